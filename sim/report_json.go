package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// ReportSchema is the version of the JSON forms of sgsim's results.
const ReportSchema = 1

// WriteJSON writes outcomes as one JSON document.
func WriteJSON(w io.Writer, outcomes []*Outcome, exit int) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Schema    int        `json:"schema"`
		Exit      int        `json:"exit"`
		Scenarios []*Outcome `json:"scenarios"`
	}{ReportSchema, exit, outcomes})
}

// WriteJSONLine writes one seed of a scenario as a line of JSON.
func WriteJSONLine(w io.Writer, sc *Scenario, s SeedRun) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Schema   int    `json:"schema"`
		Scenario string `json:"scenario"`
		File     string `json:"file"`
		Exit     int    `json:"exit"`
		SeedRun
	}{ReportSchema, sc.Name, sc.File, s.Exit(), s})
}

// WriteGitHub writes what failed as workflow commands, so that a pull request
// shows it beside the line of the scenario.
func WriteGitHub(w io.Writer, outcomes []*Outcome) {
	for _, o := range outcomes {
		for i := range o.Runs {
			s := &o.Runs[i]
			where := fmt.Sprintf("file=%s", o.File)
			repro := "\nreproduce: " + Reproduce(o, s.Seed)
			switch {
			case s.Internal != "":
				annotate(w, "error", where, "seed "+fmt.Sprint(s.Seed)+": the simulator is broken: "+s.Internal+repro)
			case s.Crash != "":
				annotate(w, "error", where, "seed "+fmt.Sprint(s.Seed)+": crash: "+s.Crash+repro)
			case s.Differs != "":
				annotate(w, "error", where, "seed "+fmt.Sprint(s.Seed)+": two runs gave two event logs"+repro)
			}
			if s.Verdict == nil {
				continue
			}
			for _, v := range s.Verdict.Violations {
				at := where
				if v.Line > 0 {
					at += fmt.Sprintf(",line=%d", v.Line)
				}
				annotate(w, "error", at, fmt.Sprintf("seed %d: %s: %s%s", s.Seed, v.Check, v.Detail, repro))
			}
		}
		for _, b := range o.Bounds {
			if !b.Holds && b.Samples > 0 {
				annotate(w, "error", "file="+o.File, fmt.Sprintf("threshold %s %s: got %v", b.Metric, b.Bound, b.Value))
			}
		}
		for _, v := range o.Vacuous {
			annotate(w, "warning", "file="+o.File, "vacuous: "+v)
		}
	}
}

// GitHubDiagnostics writes what is wrong with a scenario file as workflow
// commands.
func GitHubDiagnostics(w io.Writer, file string, list []Diagnostic) {
	for _, d := range list {
		kind := "error"
		if d.Warning {
			kind = "warning"
		}
		msg := d.Message
		if d.Hint != "" {
			msg += " (" + d.Hint + ")"
		}
		annotate(w, kind, fmt.Sprintf("file=%s,line=%d,col=%d", file, d.Line, d.Col), msg)
	}
}

func annotate(w io.Writer, kind, where, message string) {
	message = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(message)
	fmt.Fprintf(w, "::%s %s::%s\n", kind, where, message)
}
