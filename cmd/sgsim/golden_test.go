package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sgfleet/sgfleet/sim"
)

// The small scenarios carry a golden trace: what their first seed does to each
// instance, in order. A change in it is a change in what the fleet does; commit
// it (go test ./cmd/sgsim -update) only if you understand it.
func TestGoldenTraces(t *testing.T) {
	for _, name := range []string{
		"down-service-no-replay", "dirty-checkout", "held-tier", "late-instance", "late-op", "mistyped-targets", "quick-deaf", "quick-pull",
		"quick-restart", "self-restart", "stopped-stays-stopped",
	} {
		t.Run(name, func(t *testing.T) {
			sc, _, err := sim.Load(filepath.Join("../../scenarios", name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			run, events, err := sim.RunSeed(t.Context(), sc, sc.Seeds.List[0], sim.SeedOptions{})
			if err != nil || run.Verdict == nil {
				t.Fatalf("%v %s%s", err, run.Crash, run.Internal)
			}
			got := outline(events)
			file := filepath.Join("../../scenarios/golden", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("the run differs from %s (-want +got):\n%s", file, d)
			}
		})
	}
}

// outline is a run without its times: what happened to each instance, op by op.
func outline(events []sim.Event) string {
	story := map[string][]string{}
	var reports []string
	say := func(who, op, what string) {
		if who == "" {
			return // a daemon's own unit
		}
		if op != "" {
			what = op + ":" + what
		}
		story[who] = append(story[who], what)
	}
	for _, e := range events {
		switch e.Kind {
		case sim.EvAck:
			if e.Attr("first") != "false" {
				say(e.Instance, e.Op, strings.Trim(e.Attr("phase")+" "+e.Attr("status"), " "))
			}
		case sim.EvRestartQueued:
			say(e.Instance, e.Op, "restart")
		case sim.EvUnitStopped:
			if e.Attr("why") != "restart" {
				say(e.Instance, "", "stopped by "+e.Attr("why"))
			}
		case sim.EvUnitActive:
			say(e.Instance, "", "active")
		case sim.EvUnitFailed:
			say(e.Instance, "", "failed")
		case sim.EvCrash:
			say(e.Actor, "", "crash")
		case sim.EvBoot:
			say(e.Actor, "", "boot")
		case sim.EvPullStarted: // by whom is a matter of nanoseconds
			say("checkout "+e.Host+":"+e.Attr("path"), e.Op, "pull")
		case sim.EvReport:
			line := fmt.Sprintf("%s: exit %s, %d ok", e.Op, e.Attr("exit"), len(strings.Split(e.Attr("ok"), ",")))
			for _, class := range []string{"failed", "refused", "unfinished", "silent"} {
				if e.Attr(class) != "" {
					line += ", " + class + " " + e.Attr(class)
				}
			}
			reports = append(reports, line)
		case sim.EvNoReport:
			reports = append(reports, fmt.Sprintf("%s: not sent: %s", e.Op, e.Detail))
		}
	}
	var names []string
	for n := range story {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%-26s %s\n", n, strings.Join(story[n], " → "))
	}
	for _, r := range reports {
		fmt.Fprintf(&b, "report %s\n", r)
	}
	return b.String()
}
