package sim

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// TextReport prints outcomes for people: one line a scenario, and all that is
// known of each failure.
type TextReport struct {
	W       io.Writer
	Color   bool
	Verbose bool // also what was armed how often, and every failing seed
	// Events returns the log of one seed, to show what led to a violation; nil:
	// the events are not shown.
	Events func(o *Outcome, seed int64) ([]Event, error)
}

func (t *TextReport) paint(code, s string) string {
	if !t.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

var exitWords = map[int]string{
	ExitPass: "ok", ExitSafety: "SAFETY", ExitLiveness: "LIVENESS", ExitVacuous: "VACUOUS", ExitDiffers: "NOT DETERMINISTIC", ExitInternal: "INTERNAL ERROR",
}

// Outcome prints one scenario.
func (t *TextReport) Outcome(o *Outcome) {
	word, color := exitWords[o.Exit], "32"
	if o.Exit != ExitPass {
		color = "31"
	}
	if o.Exit == ExitVacuous {
		color = "33"
	}
	speed := ""
	if o.Real > 0 {
		speed = fmt.Sprintf(", %s virtual in %s", clock(o.Virtual), clock(o.Real))
	}
	fmt.Fprintf(t.W, "%s  %-34s %s%s%s\n", t.paint(color, fmt.Sprintf("%-8s", word)), o.Name, plural(o.Seeds, "seed"), failedWords(o), speed)
	if t.Verbose || o.Exit != ExitPass {
		t.checks(o)
	} else {
		fmt.Fprintf(t.W, "          armed: %s\n", armedLine(o))
	}
	for _, b := range o.Bounds {
		if !b.Holds && b.Samples > 0 {
			fmt.Fprintf(t.W, "          %s %s: got %v over %d samples\n", t.paint("31", "threshold "+b.Metric), b.Bound, round(b.Value), b.Samples)
		}
	}
	for _, v := range o.Vacuous {
		fmt.Fprintf(t.W, "          %s %s\n", t.paint("33", "vacuous:"), v)
	}
	shown := 0
	for i := range o.Runs {
		s := &o.Runs[i]
		if !s.Failed() {
			continue
		}
		if shown++; shown > 3 && !t.Verbose {
			fmt.Fprintf(t.W, "          … and %d more failing seeds (--verbose shows them)\n", o.Failed-3)
			break
		}
		t.failure(o, s)
	}
}

func failedWords(o *Outcome) string {
	if o.Failed == 0 {
		return ""
	}
	s := fmt.Sprintf(", %d failed", o.Failed)
	if o.Stopped {
		s += " (stopped at the first)"
	}
	return s
}

// armedLine says how often each check was put to the test: all that the
// scenario states, and the invariants that had occasion.
func armedLine(o *Outcome) string {
	var parts []string
	for _, c := range o.Checks {
		if c.Armed > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", c.Check, c.Armed))
		}
	}
	if len(parts) == 0 {
		return "nothing was put to the test"
	}
	return strings.Join(parts, ", ")
}

func (t *TextReport) checks(o *Outcome) {
	for _, c := range o.Checks {
		if c.Armed == 0 && c.BrokenIn == 0 && !c.Required {
			continue
		}
		broken := ""
		if c.BrokenIn > 0 {
			broken = t.paint("31", fmt.Sprintf("  broken in %s", plural(c.BrokenIn, "seed")))
		}
		fmt.Fprintf(t.W, "          %-36s armed %d times in %d of %d seeds%s\n", c.Check, c.Armed, c.ArmedIn, o.Seeds, broken)
	}
}

func (t *TextReport) failure(o *Outcome, s *SeedRun) {
	fmt.Fprintf(t.W, "\n  %s\n", t.paint("1", fmt.Sprintf("%s, seed %d", o.Name, s.Seed)))
	switch {
	case s.Internal != "":
		fmt.Fprintf(t.W, "    the simulator is broken: %s\n", indent(s.Internal, "    "))
	case s.Crash != "":
		fmt.Fprintf(t.W, "    %s production code panicked or the run did not end:\n    %s\n", t.paint("31", "crash:"), indent(s.Crash, "    "))
	case s.Differs != "":
		fmt.Fprintf(t.W, "    two runs of this seed gave two event logs (%s and %s); sgsim diff shows where they part\n", s.Hash[:12], s.Differs[:12])
	}
	var events []Event
	if t.Events != nil && s.Verdict != nil && len(s.Verdict.Violations) > 0 {
		events, _ = t.Events(o, s.Seed)
	}
	if s.Verdict != nil {
		for i, v := range s.Verdict.Violations {
			if i == 4 && !t.Verbose {
				fmt.Fprintf(t.W, "    … and %d more violations\n", len(s.Verdict.Violations)-i)
				break
			}
			fmt.Fprintf(t.W, "    %s %s\n", t.paint("31", v.Check+":"), v.Detail)
			for _, e := range pickEvents(events, v.Events) {
				fmt.Fprintf(t.W, "      %s\n", t.paint("2", EventLine(e)))
			}
		}
	}
	fmt.Fprintf(t.W, "    reproduce: %s\n\n", Reproduce(o, s.Seed))
}

// Reproduce is the one line that repeats a seed.
func Reproduce(o *Outcome, seed int64) string {
	return fmt.Sprintf("sgsim run %s --seed %d --timeline", shellWord(o.File), seed)
}

func shellWord(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n'\"`\\$&;()*?[]{}<>|!#~") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func indent(s, with string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+with)
}

func pickEvents(events []Event, seqs []int) []Event {
	var out []Event
	for _, n := range seqs {
		if i, ok := slices.BinarySearchFunc(events, n, func(e Event, n int) int { return e.Seq - n }); ok {
			out = append(out, events[i])
		}
	}
	return out
}

// clock renders a long duration without needless digits.
func clock(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%.1fh", d.Hours())
	case d >= 10*time.Minute:
		return fmt.Sprintf("%.0fm", d.Minutes())
	case d >= time.Minute:
		return fmt.Sprintf("%.1fm", d.Minutes())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// EventLine is one event as a line of a timeline.
func EventLine(e Event) string {
	who := e.Actor
	if e.Instance != "" && e.Instance != e.Actor {
		who += " " + e.Instance
	} else if e.Host != "" && !strings.Contains(e.Actor, e.Host) {
		who += " " + e.Host
	}
	op := ""
	if e.Op != "" {
		op = " [" + e.Op + "]"
	}
	return fmt.Sprintf("%10s  #%-5d %-16s %s%s%s", stamp(e.T), e.Seq, e.Kind, who, op, eventTail(e))
}

// stamp is a virtual time as a timeline shows it: to the millisecond.
func stamp(d time.Duration) string {
	return fmt.Sprintf("%d:%06.3f", int(d/time.Minute), (d % time.Minute).Seconds())
}

// eventTail is what is worth saying of an event beside who and what.
func eventTail(e Event) string {
	var b strings.Builder
	for _, k := range eventAttrs[e.Kind] {
		if v := e.Attr(k); v != "" {
			if len(v) > 60 {
				v = v[:59] + "…"
			}
			fmt.Fprintf(&b, " %s=%s", k, v)
		}
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, " — %s", strings.ReplaceAll(e.Detail, "\n", " / "))
	}
	return b.String()
}

// eventAttrs are the attributes that a timeline shows of each kind of event.
var eventAttrs = map[string][]string{
	EvRunStarted: {"seed", "hosts", "services"},
	EvFault:      {"action", "host", "service", "target", "mode", "what"}, EvHealed: {"action"},
	EvBoot: {"instances"}, EvCrash: {"how"}, EvExit: {"why", "error"},
	EvUnsubscribed: {"why"}, EvPublish: {"op", "target", "receivers", "bytes"},
	EvAck: {"phase", "status", "revision"}, EvLock: {"path", "value", "ttl_ms"}, EvUnlock: {"path", "value"}, EvLockExpired: {"path", "value"},
	EvKeyNoTTL: {"key", "cmd"}, EvKeyLeft: {"key", "ttl_ms"}, EvRelease: {"value"}, EvRedis: {"what"}, EvHeartbeat: {"state"}, EvLinkDown: {"why"},
	EvRestartQueued: {"unit", "self"}, EvUnitStopped: {"unit", "why"}, EvUnitStarted: {"unit", "why"}, EvUnitActive: {"unit", "why"},
	EvUnitFailed: {"unit", "result"}, EvRestartFinished: {"unit", "result"}, EvStartLimit: {"unit"},
	EvFlock: {"path", "mode"}, EvFunlock: {"path", "mode", "why"}, EvPullStarted: {"path", "by"}, EvPullEnded: {"path", "by", "ok"},
	EvGit: {"path", "argv", "exit"}, EvRevision: {"path", "old", "new"}, EvPush: {"path", "revision"}, EvTorn: {"path"}, EvMended: {"path"},
	EvDispatch: {"op", "target", "by"}, EvReport: {"exit", "duration_ms", "failed", "refused", "unfinished", "silent"}, EvState: {"active", "subscribed", "running", "daemon"},
	EvMember: {"tier", "process", "state"}, EvVerdict: {"class", "status"}, EvAssert: {"ok", "what"},
}

// Timeline prints a whole run.
func Timeline(w io.Writer, events []Event, v *Verdict) error {
	broken := map[int][]string{}
	if v != nil {
		for _, x := range v.Violations {
			for _, n := range x.Events {
				if !slices.Contains(broken[n], x.Check) {
					broken[n] = append(broken[n], x.Check)
				}
			}
		}
	}
	for _, e := range events {
		if e.Kind == EvCommand || e.Kind == EvMember && len(broken[e.Seq]) == 0 {
			continue
		}
		mark := "  "
		if len(broken[e.Seq]) > 0 {
			mark = "✗ "
		}
		tail := ""
		if list := broken[e.Seq]; len(list) > 0 {
			tail = "   ← " + strings.Join(list, ", ")
		}
		if _, err := fmt.Fprintf(w, "%s%s%s\n", mark, EventLine(e), tail); err != nil {
			return err
		}
	}
	return nil
}
