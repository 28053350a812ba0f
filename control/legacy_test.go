package control

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

const testAckPattern = `^\[(?P<service>[a-z]+)@(?P<host>[a-z0-9]+)\] (?:(?P<failed>failed)|.*)`

func TestLegacyPeersAnswerInText(t *testing.T) {
	old := []string{"web@old1", "web@old2"}
	for _, tt := range []struct {
		name    string
		pattern string
		texts   []string
		want    map[Class][]string
		exit    int
		loose   int // unattributed answers
	}{
		{
			"Attributed", testAckPattern,
			[]string{"[web@old1] restarting", "[web@old2] restarting"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1", "web@old2"}},
			0, 0,
		},
		{
			"OneFailed", testAckPattern,
			[]string{"[web@old1] failed: no such unit", "[web@old2] restarting"},
			map[Class][]string{ClassOK: {"web@h1", "web@old2"}, ClassFailed: {"web@old1"}},
			3, 0,
		},
		{
			"OneSilent", testAckPattern,
			[]string{"[web@old1] restarting"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1"}, ClassSilent: {"web@old2"}},
			4, 0,
		},
		{
			"SameOneTwice", testAckPattern,
			[]string{"[web@old1] restarting", "[web@old1] restarting"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1"}, ClassSilent: {"web@old2"}},
			4, 0,
		},
		{
			"NoPattern", "",
			[]string{"restarting", "restarting"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1", "web@old2"}},
			0, 2,
		},
		{
			"NoPatternOneAnswer", "",
			[]string{"restarting"},
			map[Class][]string{ClassOK: {"web@h1"}, ClassUnfinished: {"web@old1", "web@old2"}},
			4, 1,
		},
		{
			"OneUnattributable", testAckPattern,
			[]string{"[web@old1] ok", "yes, yes"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1", "web@old2"}},
			0, 1,
		},
		{
			"Stranger", testAckPattern,
			[]string{"[web@old1] ok", "[web@old2] ok", "[web@old9] ok"},
			map[Class][]string{ClassOK: {"web@h1", "web@old1", "web@old2", "web@old9"}},
			0, 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, "web@h1")
			if tt.exit == ExitSilent {
				f.cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
			}
			f.cfg.Legacy.Instances, f.cfg.Legacy.AckPattern = old, tt.pattern
			f.serve(func(op Op) {
				for _, text := range tt.texts {
					f.pushRaw(f.cfg.Keys().Reply(op.ID), text)
				}
				f.accept(op, "web@h1")
				f.done(op, OK, "web@h1")
			})
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantClasses(t, r, tt.want)
			if r.ExitCode() != tt.exit || len(r.Unattributed) != tt.loose {
				t.Errorf("exit %d, unattributed %q; want %d and %d", r.ExitCode(), r.Unattributed, tt.exit, tt.loose)
			}
		})
	}
}

// Ops that legacy peers understand carry their reply field; others do not.
func TestLegacyReplyField(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2")
	f.cfg.Legacy.ReplyField = "answer_to"
	for target, want := range map[string]bool{"all": true, "web": true, "web@h1": false, "web,!host:h2": false} {
		p, err := f.d.Plan(t.Context(), Request{Op: OpRestart, Target: target})
		if err != nil {
			t.Fatal(err)
		}
		op := f.d.newOp(p, Request{Op: OpRestart})
		b, err := op.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		if got := fields["answer_to"] == f.cfg.Keys().Reply(op.ID); got != want {
			t.Errorf("%s: %s; want the reply field %v", target, b, want)
		}
	}
}

// The collector of this package and the text that its own daemons give to
// legacy publishers fit together, when the pattern is told so.
func TestLegacyPattern(t *testing.T) {
	cfg := fleet.Default()
	cfg.Legacy.AckPattern = testAckPattern
	p, err := newLegacyPeers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]Ack{
		"[web@h1] fine\x1b[31m":        {Instance: "web@h1", Host: "h1", Phase: Done, Status: OK, Detail: "[web@h1] fine [31m"},
		"  {not json":                  {},
		"[web@h1] failed: exit status": {Instance: "web@h1", Host: "h1", Phase: Done, Status: Failed, Detail: "[web@h1] failed: exit status"},
		"":                             {Phase: Done, Status: OK},
		"[../x@h1] fine":               {Phase: Done, Status: OK, Detail: "[../x@h1] fine"},
	} {
		got, _, err := p.decodeReply(raw)
		if (err != nil) != (want.Phase == "") {
			t.Errorf("%q: error %v", raw, err)
		}
		a, b := mustJSON(t, got), mustJSON(t, want)
		if err == nil && a != b {
			t.Errorf("%q: got %s; want %s", raw, a, b)
		}
	}
	for _, bad := range []string{"(", "(?P<service>x)", "plain"} {
		cfg.Legacy.AckPattern = bad
		if _, err := newLegacyPeers(cfg); err == nil || !strings.Contains(err.Error(), "legacy.ack_pattern") {
			t.Errorf("pattern %q: got %v; want an error that names the key", bad, err)
		}
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzReply(f *testing.F) {
	cfg := fleet.Default()
	cfg.Legacy.AckPattern = testAckPattern
	p, err := newLegacyPeers(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"id":"` + testID + `","instance":"web@h1","host":"h1","phase":"done","status":"ok","detail":"a\nb","journal":["x"],"at":1}`)
	f.Add("[web@h1] failed")
	f.Add("\xff\x00{")
	f.Fuzz(func(t *testing.T, raw string) {
		a, text, err := p.decodeReply(raw)
		if err != nil {
			return
		}
		for _, s := range append(a.Journal, a.Detail, a.Revision, a.InvocationID, a.Version, a.TraceID, a.Host) {
			if !printable(s) || len(s) > maxDetail+len("…") {
				t.Fatalf("%q lets %q through", raw, s)
			}
		}
		if i, err := fleet.ParseInstance(a.Instance); err == nil && (i.String() != a.Instance || i.Host != a.Host) || err != nil && !(text && a.Instance == "") {
			t.Fatalf("%q gives instance %q, host %q (%v)", raw, a.Instance, a.Host, err)
		}
	})
}
