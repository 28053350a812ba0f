package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// blast is the blast radius of an op: whom it would reach, and who among them
// will not do it as things are.
type blast struct {
	*control.Plan
	target        string // as typed, shorter than the plan's for a retry
	includeFailed bool
}

// blastEntry is one instance of a dry run; its keys are stable.
type blastEntry struct {
	Instance string     `json:"instance"`
	Service  string     `json:"service"`
	Tier     string     `json:"tier"`
	Host     string     `json:"host"`
	Unit     string     `json:"unit"`
	Gateway  bool       `json:"gateway"`
	Warning  string     `json:"warning"` // why it will not do it; "" when nothing is known
	LastSeen fleet.Time `json:"last_seen"`
}

// warning says in what way e will not do the op; kind groups equal ones.
func (b blast) warning(e control.Expected) (kind, detail string) {
	h := e.Beat
	since := func(t fleet.Time) string { return fleet.Humane(b.Registry.Now.Sub(t)) }
	changes := b.Op != control.OpPing
	switch {
	case e.Legacy && h.At == 0:
		return "legacy, answers in text", ""
	case e.Down:
		return "DOWN, will not hear it", "last heartbeat " + since(h.At) + " ago"
	case h.SubscribedSince == 0 && !e.Legacy:
		return "DEAF, will not hear it", "for " + since(h.DeafSince)
	case e.Held != "" && changes:
		return "will refuse", e.Held
	case h.Degraded != "":
		return "DEGRADED", h.Degraded
	case !changes:
		return "", ""
	case h.Mode == fleet.ModeObserve:
		return "observing, will do nothing", ""
	case b.Op == control.OpPull:
		if h.Checkout == "" && !e.Legacy {
			return "has no checkout", ""
		}
	case h.ActiveState == "inactive":
		return "stopped, stays stopped", ""
	case h.ActiveState == "failed" && !b.includeFailed && !b.Target.Names(e.Member):
		return "failed, left alone without --include-failed", h.Result
	}
	return "", ""
}

// summary is one line: "restart inference: 7 instances on 4 hosts (inference 7)".
func (b blast) summary() string {
	hosts, tiers := map[string]bool{}, map[string]int{}
	var order []string
	gateways := 0
	for _, e := range b.Instances {
		hosts[e.Host] = true
		tier := cmp.Or(e.Tier, e.Service) // a daemon has none
		if tiers[tier] == 0 {
			order = append(order, tier)
		}
		tiers[tier]++
		if e.Gateway {
			gateways++
		}
	}
	var parts []string
	for _, t := range order {
		parts = append(parts, fmt.Sprintf("%s %d", t, tiers[t]))
	}
	s := fmt.Sprintf("%s %s: %s on %s (%s)", b.Op, b.target,
		count(len(b.Instances), "instance"), count(len(hosts), "host"), strings.Join(parts, ", "))
	if gateways > 0 && gateways < len(b.Instances) {
		s += ", gateways last"
	}
	return s
}

// print writes the summary and who will not do it, folded.
func (b blast) print(a *app, w io.Writer) {
	fmt.Fprintln(w, a.paint(w, bold, b.summary()))
	type group struct {
		kind      string
		instances []fleet.Instance
		details   []string
	}
	var groups []*group
	index := map[string]*group{}
	for _, e := range b.Instances {
		kind, detail := b.warning(e)
		if kind == "" {
			continue
		}
		g := index[kind]
		if g == nil {
			g = &group{kind: kind}
			index[kind] = g
			groups = append(groups, g)
		}
		g.instances = append(g.instances, e.Instance)
		g.details = append(g.details, detail)
	}
	for _, g := range groups {
		line := strings.Join(fleet.FoldInstances(g.instances), ", ")
		if len(g.instances) > 1 {
			line += fmt.Sprintf(" (%d)", len(g.instances))
		}
		line += ": " + g.kind
		if d := g.details[0]; d != "" && len(g.instances) == 1 {
			line += " (" + clean(d) + ")"
		}
		fmt.Fprintf(w, "  %s\n", a.paint(w, yellow, line))
	}
}

// printDryRun writes the instances as the result of the command.
func (b blast) printDryRun(a *app) error {
	entries := []blastEntry{}
	for _, e := range b.Instances {
		kind, detail := b.warning(e)
		if detail != "" {
			kind += " (" + clean(detail) + ")"
		}
		entries = append(entries, blastEntry{e.Instance.String(), e.Service, e.Tier, e.Host, e.Beat.Unit, e.Gateway, kind, e.Beat.At})
	}
	switch a.flags.output {
	case "json":
		return a.printJSON(map[string]any{"schema": 1, "dry_run": true, "op": b.Op, "target": b.Target.String(), "instances": entries})
	case "jsonl":
		enc := json.NewEncoder(a.stdout)
		for _, e := range entries {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, e := range entries {
			fmt.Fprintln(a.stdout, e.Instance)
		}
		return nil
	case "wide":
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "INSTANCE\tTIER\tUNIT\tWARNING")
		for _, e := range entries {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Instance, e.Tier, e.Unit, e.Warning)
		}
		return w.Flush()
	}
	b.print(a, a.stdout)
	fmt.Fprintln(a.stdout, "dry run: nothing was sent")
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
