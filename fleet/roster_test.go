package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const rosterNow = Time(1_800_000_000_000_000)

// troubledFleet has one of every kind of trouble among instances that are well.
func troubledFleet() Registry {
	const revA, revB = "3f2a1b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a", "77aa00bb11cc22dd33ee44ff55aa66bb77cc88dd"
	r := Registry{Now: rosterNow}
	add := func(instance, tier string, change func(h *Heartbeat)) {
		h := beat(instance, tier, rosterNow.Add(-3*time.Second))
		h.Started = rosterNow.Add(-5*time.Hour - 12*time.Minute)
		h.RunningRevision, h.CheckoutRevision, h.Checkout = revA, revA, "/srv/stargazer"
		if change != nil {
			change(&h)
		}
		r.Beats = append(r.Beats, h)
	}
	add("web@h10", "web", nil)
	add("web@h9", "web", func(h *Heartbeat) { h.CheckoutRevision = revB })
	add("web@h8", "web", func(h *Heartbeat) { h.Mode = ModeObserve })
	add("gateway@gw-1", "gateway", nil)
	for _, n := range []int{7, 1, 2, 3, 4} {
		add(fmt.Sprintf("inference@h%d", n), "inference", nil)
	}
	add("inference@h5", "inference", func(h *Heartbeat) { h.At = rosterNow.Add(-184 * time.Second) })
	add("inference@h6", "inference", func(h *Heartbeat) { h.SubscribedSince, h.DeafSince = 0, rosterNow.Add(-40*time.Second) })
	add("agents@h1#1", "agents", nil)
	add("agents@h1#2", "agents", func(h *Heartbeat) {
		h.Unit, h.ActiveState, h.Result = "stargazer-agents@2.service", "failed", "exit-code"
	})
	add("agents@h2#1", "agents", func(h *Heartbeat) { h.ActiveState = "inactive" })
	add("consolidation@h3", "consolidation", func(h *Heartbeat) { h.Degraded = "another daemon controls it, too: pid 12" })
	add("consolidation@h4", "consolidation", func(h *Heartbeat) { h.ControlledBy, h.RunningRevision, h.CheckoutRevision = BySelf, "", "" })
	add("cron@h4", "offline", func(h *Heartbeat) { h.ActiveState, h.Unit = "", "evil\x1b[2J\nunit" })
	add("notify@h1", "offline", func(h *Heartbeat) { h.At = rosterNow.Add(-184 * time.Second) }) // whose daemon lives
	add("sgfleet@h1", "", func(h *Heartbeat) { h.Unit, h.ControlledBy = "sgfleet.service", BySelf })
	add("sgfleet@h5", "", func(h *Heartbeat) { h.Unit, h.At = "sgfleet.service", rosterNow.Add(-184*time.Second) })
	r.Holds = []Hold{
		{Target: "inference@h7", By: "ann", Reason: "new disks", Until: rosterNow.Add(time.Hour)},
		{Target: "web", By: "bob", Until: rosterNow - 1},
	}
	r.Malformed = []error{errors.New("sg:control:live x@y: heartbeat is not JSON: unexpected end")}
	r.Arrange(nil)
	return r
}

func TestRosterGolden(t *testing.T) {
	r := troubledFleet()
	golden(t, "roster/table.golden", strings.Join(FormatRosterTable(r.Entries(), 0), "\n")+"\n")
	golden(t, "roster/table80.golden", strings.Join(FormatRosterTable(r.Entries(), 80), "\n")+"\n")
	golden(t, "roster/table50.golden", strings.Join(FormatRosterTable(r.Entries(), 50), "\n")+"\n")
	golden(t, "roster/chat.golden", strings.Join(FormatServiceRoster(r, nil), "\n--- next message ---\n")+"\n")
	b, err := json.MarshalIndent(r.Roster(r.Entries()[:3]), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "roster/roster.golden", string(b)+"\n")
}

// A short terminal shows who is in trouble, the worst first, and counts the
// others.
func TestFirstTroubled(t *testing.T) {
	all := troubledFleet().Entries()
	shown, more := FirstTroubled(all, 4)
	var names []string
	for _, e := range shown {
		names = append(names, e.Instance)
	}
	if d := cmp.Diff([]string{"inference@h5", "notify@h1", "sgfleet@h5", "inference@h6"}, names); d != "" {
		t.Errorf("the first four (-want +got):\n%s", d)
	}
	if want := "… and 16 more: 1 failed, 1 inactive, 1 unknown, 13 active"; more != want {
		t.Errorf("more = %q, want %q", more, want)
	}
	if shown, more := FirstTroubled(all, len(all)); len(shown) != len(all) || more != "" {
		t.Errorf("%d of %d shown, %q", len(shown), len(all), more)
	}
}

// However narrow the terminal, no line wraps, nobody is missing, and the state
// is the last to go.
func TestRosterTableFits(t *testing.T) {
	all := troubledFleet().Entries()
	for cols := 40; cols < 160; cols++ {
		lines := FormatRosterTable(all, cols)
		if len(lines) != len(all)+1 {
			t.Fatalf("%d lines for %d entries", len(lines), len(all))
		}
		for i, l := range lines {
			if n := utf8.RuneCountInString(l); n > cols {
				t.Errorf("at %d columns a line has %d: %s", cols, n, l)
			}
			if i > 0 && (!strings.HasPrefix(l, all[i-1].Host+" ") || !strings.Contains(l, all[i-1].State)) {
				t.Errorf("at %d columns %s is shown as %s", cols, all[i-1].Instance, l)
			}
		}
	}
}

// The JSON form holds every heartbeat as it was, for a twin to be built of.
func TestRosterRoundTrip(t *testing.T) {
	r := troubledFleet()
	b, err := json.Marshal(r.Roster(r.Entries()))
	if err != nil {
		t.Fatal(err)
	}
	var back Roster
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Schema != 1 || back.Now != rosterNow || len(back.Malformed) != 1 {
		t.Errorf("back = %+v", back)
	}
	for i, e := range back.Instances {
		if d := cmp.Diff(r.Beats[i], e.Heartbeat); d != "" {
			t.Errorf("%s (-want +got):\n%s", r.Beats[i].Instance, d)
		}
	}
	b, err = json.Marshal(Registry{}.Roster(nil))
	if want := `{"schema":1,"now":0,"instances":[]}`; err != nil || string(b) != want {
		t.Errorf("an empty roster is %s, %v; want %s", b, err, want)
	}
}

func TestEntryStates(t *testing.T) {
	for _, e := range troubledFleet().Entries() {
		want := map[string]string{
			"inference@h5": StateDown, "notify@h1": StateDown, "sgfleet@h5": StateDown, "inference@h6": StateDeaf, "agents@h1#2": "failed", "agents@h2#1": "inactive", "cron@h4": StateUnknown,
		}[e.Instance]
		if want == "" {
			want = "active"
		}
		trouble := want != "active" || e.Instance == "consolidation@h3"
		if e.State != want || e.Trouble() != trouble || e.Behind != (e.Instance == "web@h9") {
			t.Errorf("%s: state %s, trouble %v, behind %v; want %s, %v", e.Instance, e.State, e.Trouble(), e.Behind, want, trouble)
		}
	}
}

// Whatever the heartbeats say, every message fits and every instance that
// needs attention is named.
func TestChatRosterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Registry{Now: rosterNow}
		n := rapid.IntRange(0, 120).Draw(t, "n")
		for i := range n {
			h := beat(fmt.Sprintf("%s@host-%d", rapid.SampledFrom([]string{"web", "agents"}).Draw(t, "service"), i), "web", rosterNow)
			h.Degraded = rapid.SampledFrom([]string{"", "", strings.Repeat("ä", 3000), "a\nb"}).Draw(t, "degraded")
			if rapid.Bool().Draw(t, "down") {
				h.At = 1
			}
			r.Beats = append(r.Beats, h)
		}
		messages := FormatServiceRoster(r, Default())
		all := strings.Join(messages, "\n")
		for _, m := range messages {
			if len(m) > MaxChat || m == "" || !utf8.ValidString(m) {
				t.Fatalf("a message of %d bytes, valid %v", len(m), utf8.ValidString(m))
			}
		}
		for _, e := range r.Entries() {
			if e.Trouble() && !strings.Contains(all, e.Instance+":") {
				t.Fatalf("%s is not named in\n%s", e.Instance, all)
			}
		}
	})
}

func TestChatMessages(t *testing.T) {
	long := strings.Repeat("word ", 1000)
	unbroken := strings.Repeat("ü", 3000)
	got := ChatMessages([]string{"a", "b", long, "c", unbroken, strings.Repeat("x", MaxChat)})
	joined := strings.ReplaceAll(strings.Join(got, ""), "\n", "")
	if want := "ab" + long + "c" + unbroken + strings.Repeat("x", MaxChat); joined != want {
		t.Errorf("chunks lose text: %d bytes, want %d", len(joined), len(want))
	}
	for i, m := range got {
		if len(m) > MaxChat || !utf8.ValidString(m) {
			t.Errorf("chunk %d: %d bytes, valid %v", i, len(m), utf8.ValidString(m))
		}
	}
	if got[0] != "a\nb" || len(got) != 9 {
		t.Errorf("%d chunks, the first %q", len(got), got[0])
	}
	if got := ChatMessages(nil); got != nil {
		t.Errorf("ChatMessages(nil) = %q", got)
	}
}
