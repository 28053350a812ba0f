package control

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// The release comes when every instance that is no gateway is done or past its
// deadline, and not before; gateways are then waited for.
func TestReleaseComesLast(t *testing.T) {
	for _, tt := range []struct {
		name string
		web  func(f *stubFleet, op Op) // what web@h2 does, after half a second
		want Class
	}{
		{"AllDone", func(f *stubFleet, op Op) { f.done(op, OK, "web@h2") }, ClassOK},
		{"OneFails", func(f *stubFleet, op Op) { f.done(op, Failed, "web@h2") }, ClassFailed},
		{"OneNeverEnds", func(*stubFleet, Op) {}, ClassUnfinished},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, "web@h1", "gateway@h1")
			f.beat("web@h2", func(h *fleet.Heartbeat) {
				if tt.want == ClassUnfinished {
					h.DoneTimeoutMS = 3000
				}
			})
			early := make(chan string, 1)
			f.serve(func(op Op) {
				f.accept(op, "gateway@h1", "web@h1", "web@h2")
				f.done(op, OK, "web@h1")
				early <- f.awaitRelease(op, 500*time.Millisecond)
				tt.web(f, op)
				if v := f.awaitRelease(op, patience); v != "go" {
					t.Errorf("released with %q; want go", v)
				}
				f.done(op, OK, "gateway@h1")
			})
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if v := <-early; v != "" {
				t.Errorf("released with %q while web@h2 was at it", v)
			}
			want := map[Class][]string{ClassOK: {"web@h1", "gateway@h1"}}
			want[tt.want] = append(want[tt.want], "web@h2")
			wantClasses(t, r, want)
		})
	}
}

// The gateway's own deadline lies after anything that a live publisher waits
// for.
func TestGatewayDeadline(t *testing.T) {
	f := newStubFleet(t, "gateway@h1")
	reply := f.cfg.ControlReplyTimeout.D()
	f.beat("web@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 40_000 })
	f.beat("inference@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS, h.Checkout = 600_000, "/srv/model" })
	// Its restart may first wait for a pull, for as long as a daemon waits.
	f.beat("agents@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS, h.Checkout = 40_000, "/srv/app" })
	f.cfg.Tiers[1].DoneTimeout = fleet.Duration(7 * time.Minute) // overrides the heartbeat's
	for _, tt := range []struct {
		op, target string
		noWait     bool
		want       time.Duration // after issued_at
	}{
		{OpRestart, "all", false, reply + 7*time.Minute + 30*time.Second},
		{OpRestart, "web,gateway", false, reply + 40*time.Second + 30*time.Second},
		{OpRestart, "web,gateway", true, reply + 40*time.Second},
		{OpRestart, "agents,gateway", false, reply + 40*time.Second + (Tuning{}).withDefaults().RestartWait + 30*time.Second},
		{OpRestart, "gateway", false, reply + 30*time.Second},
		{OpUpdate, "web,gateway", false, reply + (90+60+15+40)*time.Second + 30*time.Second},
		{OpRestart, "web", false, 0},
		{OpPull, "all", false, 0},
	} {
		p, err := f.d.Plan(t.Context(), Request{Op: tt.op, Target: tt.target})
		if err != nil {
			t.Fatal(err)
		}
		got := p.gatewayDeadline(f.cfg, 1_000_000, tt.noWait)
		want := fleet.Time(0)
		if tt.want > 0 {
			want = fleet.Time(1_000_000).Add(tt.want)
		}
		if got != want {
			t.Errorf("%s %s: deadline %v after issued_at; want %v", tt.op, tt.target, got.Sub(1_000_000), tt.want)
		}
	}
}

func TestNoWaitEndsAtAccepted(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2", "gateway@h1")
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "gateway@h1")
		f.push(op, Ack{Instance: "web@h2", Phase: Refused, Status: Held})
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", NoWait: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "gateway@h1"}, ClassRefused: {"web@h2"}})
	if v := f.awaitRelease(f.op(), 50*time.Millisecond); v != "" || r.Release != "" {
		t.Errorf("released with %q while web@h1 was at it", v)
	}
	if !strings.Contains(r.Summary, "2 accepted") {
		t.Errorf("summary %q; want it to say accepted", r.Summary)
	}
}

// Nobody but gateways: they need not wait for anybody, --no-wait or not.
func TestGatewaysAlone(t *testing.T) {
	for _, noWait := range []bool{false, true} {
		f := newStubFleet(t, "web@h1", "gateway@h1")
		f.serve(func(op Op) {
			f.accept(op, "gateway@h1")
			if v := f.awaitRelease(op, patience); v != "go" {
				t.Errorf("no wait %v: released with %q; want go", noWait, v)
			}
			f.done(op, OK, "gateway@h1")
		})
		r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "gateway", NoWait: noWait}, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantClasses(t, r, map[Class][]string{ClassOK: {"gateway@h1"}})
	}
}

func TestTimeoutTellsGatewaysToStay(t *testing.T) {
	t.Parallel()
	f := newStubFleet(t, "web@h1", "gateway@h1")
	f.serve(func(op Op) { f.accept(op, "web@h1", "gateway@h1") })
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Timeout: 3 * time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassUnfinished: {"web@h1", "gateway@h1"}})
	if v := f.awaitRelease(f.op(), time.Second); v != "abort" || r.Release != "abort" {
		t.Errorf("released with %q, report says %q; want abort", v, r.Release)
	}
	if r.ExitCode() != ExitSilent {
		t.Errorf("exit %d; want %d", r.ExitCode(), ExitSilent)
	}
}

// What was written first stands: an abort by somebody else is not overwritten.
func TestReleaseDoesNotOverrideAnAbort(t *testing.T) {
	f := newStubFleet(t, "web@h1", "gateway@h1")
	f.beat("gateway@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 100 })
	f.serve(func(op Op) {
		f.client.Set(context.Background(), f.cfg.Keys().Release(op.ID), "abort", ReleaseLife)
		f.accept(op, "web@h1", "gateway@h1")
		f.done(op, OK, "web@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := f.awaitRelease(f.op(), time.Second); v != "abort" || r.Release != "abort" {
		t.Errorf("released with %q, report says %q; want abort", v, r.Release)
	}
}

func TestLostReleaseReply(t *testing.T) {
	f := newStubFleet(t, "web@h1", "gateway@h1")
	p := f.throughProxy()
	p.LoseReply("SET", redistest.CutCommand)
	p.LoseReply("SET", redistest.CutReply)
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "gateway@h1")
		f.done(op, OK, "web@h1")
		f.awaitRelease(op, patience)
		f.done(op, OK, "gateway@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "gateway@h1"}})
	if r.Release != "go" {
		t.Errorf("report says %q; want go", r.Release)
	}
}

// A gateway that dispatches by itself restarts when everything else is over:
// its own end is not waited for.
func TestSelfRestartsLastOfAll(t *testing.T) {
	for _, self := range []string{"gateway@h1", "web@h1"} {
		t.Run(self, func(t *testing.T) {
			t.Parallel()
			all := []string{"web@h1", "web@h2", "gateway@h1", "gateway@h2"}
			f := newStubFleet(t, all...)
			f.d.Self = self
			f.serve(func(op Op) {
				if op.Args.Last != self {
					t.Errorf("args.last = %q; want %s", op.Args.Last, self)
				}
				f.accept(op, all...)
				for _, i := range all[:2] {
					if i != self {
						f.done(op, OK, i)
					}
				}
				if v := f.awaitRelease(op, patience); v != "go" {
					t.Errorf("released with %q; want go", v)
				}
				for _, i := range all[2:] {
					if i != self {
						f.done(op, OK, i)
					}
				}
			})
			var release []string // when each message was sent
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Args: Args{Last: "web@h9"}}, func(context.Context, string) error {
				v := ""
				if f.delivered() > 0 {
					v = f.awaitRelease(f.op(), 10*time.Millisecond)
				}
				release = append(release, v)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			others := slices.DeleteFunc(all, func(s string) bool { return s == self })
			wantClasses(t, r, map[Class][]string{ClassOK: others, ClassUnfinished: {self}})
			if d := resultOf(t, r, self).Detail; !strings.Contains(d, "last of all") {
				t.Errorf("%s: %q", self, d)
			}
			if len(release) != 2 || release[1] != "go" {
				t.Errorf("release when each message was sent: %q; want the report at go", release)
			}
			if v := f.awaitRelease(f.op(), time.Second); v != "last" {
				t.Errorf("released with %q in the end; want last", v)
			}

			// An op that does not restart this instance does not concern it.
			p, err := f.d.Plan(t.Context(), Request{Op: OpPull, Target: "all"})
			if err != nil {
				t.Fatal(err)
			}
			if op := f.d.newOp(p, Request{Op: OpPull, Args: Args{Last: self}}); op.Args.Last != "" {
				t.Errorf("args.last = %q on a pull", op.Args.Last)
			}
		})
	}
}
