package sim

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

var (
	//go:embed html/report.html
	reportPage string
	//go:embed html/report.js
	reportScript string
)

var reportTemplate = template.Must(template.New("report").Parse(reportPage))

// htmlEvent is an event as the page reads it: an array, because a long run has
// very many of them.
type htmlEvent [10]any

// WriteHTML writes one run as a page that needs nothing but a browser: a lane
// for every instance, faults shaded, every event under the mouse, violations
// marked.
func WriteHTML(w io.Writer, sc *Scenario, seed int64, events []Event, v *Verdict) error {
	r := newRecord(sc, seed, events)
	type htmlMember struct {
		Name    string `json:"name"`
		Host    string `json:"host"`
		Tier    string `json:"tier"`
		Process string `json:"process"`
		State   string `json:"state"`
	}
	type htmlOp struct {
		Op   string `json:"op"`
		Exit string `json:"exit"`
		Took int64  `json:"took"`
	}
	page := struct {
		Name        string       `json:"name"`
		Description string       `json:"description"`
		Seed        int64        `json:"seed"`
		End         float64      `json:"end"`
		Tiers       []string     `json:"tiers"`
		Members     []htmlMember `json:"members"`
		Ops         []htmlOp     `json:"ops"`
		Violations  []Violation  `json:"violations"`
		Kinds       []string     `json:"kinds"`
		Events      []htmlEvent  `json:"events"`
	}{Name: sc.Name, Description: sc.Description, Seed: seed, End: ms(r.end), Tiers: sc.Config.TierNames(), Violations: []Violation{}, Members: []htmlMember{}, Ops: []htmlOp{}}
	if v != nil && len(v.Violations) > 0 {
		page.Violations = v.Violations
	}
	for _, name := range r.names {
		m := r.members[name]
		page.Members = append(page.Members, htmlMember{name, m.Host, m.Tier, m.process, r.Events[m.joined].Attr("state")})
	}
	for _, o := range figures(r).Ops {
		page.Ops = append(page.Ops, htmlOp{o.Op, o.Exit, o.Took.Milliseconds()})
	}
	kinds := map[string]int{}
	for _, e := range events {
		if e.Kind == EvCommand || e.Kind == EvMember {
			continue
		}
		if _, known := kinds[e.Kind]; !known {
			kinds[e.Kind] = len(page.Kinds)
			page.Kinds = append(page.Kinds, e.Kind)
		}
		page.Events = append(page.Events, htmlEvent{e.Seq, ms(e.T), kinds[e.Kind], e.Actor, e.Host, e.Instance, e.Op, e.Detail, e.Cause, e.Attrs})
	}
	data, err := json.Marshal(page)
	if err != nil {
		return fmt.Errorf("writing the HTML report: %w", err)
	}
	// encoding/json escapes <, > and & by itself, so the data cannot end the
	// script element that holds it.
	return reportTemplate.Execute(w, struct {
		Title  string
		Data   template.JS
		Script template.JS
	}{fmt.Sprintf("%s, seed %d", sc.Name, seed), template.JS(data), template.JS(reportScript)})
}

func ms(d interface{ Microseconds() int64 }) float64 { return float64(d.Microseconds()) / 1000 }
