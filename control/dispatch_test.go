package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// What the operator reads first says how many gateways wait for the others, if
// there are any others.
func TestAskingNamesTheGateways(t *testing.T) {
	for _, c := range []struct {
		instances []string
		want      string
	}{
		{[]string{"web@h1", "gateway@h1"}, "the gateway goes last"},
		{[]string{"web@h1", "gateway@h1", "gateway@h2"}, "the gateways go last"},
		{[]string{"gateway@h1", "gateway@h2"}, ""},
	} {
		p := &Plan{}
		for _, name := range c.instances {
			inst, err := fleet.ParseInstance(name)
			if err != nil {
				t.Fatal(err)
			}
			p.Instances = append(p.Instances, Expected{Member: fleet.Member{Instance: inst}, Gateway: inst.Service == fleet.GatewayTier})
		}
		got := p.ack(Op{Op: OpRestart, Target: "all", ID: "x"})
		if c.want == "" && strings.Contains(got, "last") || !strings.HasSuffix(got, c.want) {
			t.Errorf("%v: %q, want it to end with %q", c.instances, got, c.want)
		}
	}
}

func TestDispatchEveryOp(t *testing.T) {
	for _, name := range OpNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, "web@h1", "web@h2", "inference@h1", "gateway@h1")
			restarts := opSpecs[name].Restarts
			others := []string{"web@h1", "web@h2", "inference@h1"}
			released := make(chan string, 1)
			f.serve(func(op Op) {
				f.accept(op, append(others, "gateway@h1")...)
				go func() {
					if restarts {
						released <- f.awaitRelease(op, patience)
					}
					f.done(op, OK, "gateway@h1")
				}()
				f.done(op, OK, others...)
			})
			var m messages
			r, err := f.d.Dispatch(t.Context(), Request{Op: name, Target: "all", RequestedBy: "oncall", TraceID: "t1"}, m.send)
			if err != nil {
				t.Fatal(err)
			}
			wantClasses(t, r, map[Class][]string{ClassOK: append(others, "gateway@h1")})
			if r.ExitCode() != 0 || r.Exit != 0 || r.Err() != nil || r.Published != "yes" || r.Receivers != 1 {
				t.Errorf("exit %d, err %v, published %s to %d", r.ExitCode(), r.Err(), r.Published, r.Receivers)
			}
			if restarts {
				if v := <-released; v != "go" || r.Release != "go" {
					t.Errorf("released with %q, report says %q; want go", v, r.Release)
				}
				ttl := f.client.TTL(t.Context(), f.cfg.Keys().Release(r.ID)).Val()
				if ttl <= 0 || ttl > ReleaseLife {
					t.Errorf("the release key lives for %v; want at most %v", ttl, ReleaseLife)
				}
			} else if n := f.client.Exists(t.Context(), f.cfg.Keys().Release(r.ID)).Val(); n != 0 || r.Release != "" {
				t.Errorf("%s wrote a release (%q)", name, r.Release)
			}
			got := m.list()
			if len(got) != 2 || !strings.Contains(got[0], "asking 4 instances on 2 hosts") || !strings.Contains(got[1], "4 ok") {
				t.Errorf("sent %q", got)
			}
			if n := f.delivered(); n != 1 {
				t.Errorf("delivered %d times; want once", n)
			}
			op := f.op()
			if op.RequestedBy != "oncall" || op.TraceID != "t1" || op.Target != "all" || op.ExpiresAt.Sub(op.IssuedAt) != f.cfg.OpLife.D() {
				t.Errorf("published %+v", op)
			}
		})
	}
}

// The exit codes and the classes that they come from.
func TestDispatchClasses(t *testing.T) {
	type say func(f *stubFleet, op Op)
	const a, b = "web@h1", "web@h2"
	ok := func(f *stubFleet, op Op) { f.accept(op, a); f.done(op, OK, a) }
	for _, tt := range []struct {
		name string
		b    say // what web@h2 does
		want Class
		exit int
		says string
	}{
		{"Joined", func(f *stubFleet, op Op) { f.accept(op, b); f.done(op, Joined, b) }, ClassOK, 0, ""},
		{"Skipped", func(f *stubFleet, op Op) { f.accept(op, b); f.done(op, Skipped, b) }, ClassOK, 0, ""},
		{"Failed", func(f *stubFleet, op Op) { f.accept(op, b); f.done(op, Failed, b) }, ClassFailed, 3, ""},
		{"UnheardOfStatus", func(f *stubFleet, op Op) { f.accept(op, b); f.done(op, "melted", b) }, ClassFailed, 3, ""},
		{"BusyAfterAccepting", func(f *stubFleet, op Op) { f.accept(op, b); f.done(op, Busy, b) }, ClassRefused, 3, ""},
		{"Silent", func(*stubFleet, Op) {}, ClassSilent, 4, "no ack, last heartbeat"},
		{"AcceptedOnly", func(f *stubFleet, op Op) { f.accept(op, b) }, ClassUnfinished, 4, "accepted, not done after"},
		{"StillPending", func(f *stubFleet, op Op) {
			f.accept(op, b)
			f.push(op, Ack{Instance: b, Phase: Done, Status: Pending, Detail: "deactivating"})
		}, ClassUnfinished, 4, "still at it"},
		{"PendingThenTruth", func(f *stubFleet, op Op) {
			f.accept(op, b)
			f.push(op, Ack{Instance: b, Phase: Done, Status: Pending})
			f.done(op, OK, b)
		}, ClassOK, 0, ""},
		{"Held", refuse(b, Held), ClassRefused, 3, ""},
		{"Cooldown", refuse(b, InCooldown), ClassRefused, 3, ""},
		{"Expired", refuse(b, Expired), ClassRefused, 3, ""},
		{"TooOld", refuse(b, TooOld), ClassRefused, 3, ""},
		{"Version", refuse(b, WrongVersion), ClassRefused, 3, ""},
		{"Denied", refuse(b, Denied), ClassRefused, 3, ""},
		{"Duplicate", refuse(b, Duplicate), ClassRefused, 3, ""},
		{"RefusedThenDone", func(f *stubFleet, op Op) {
			// A second copy of the op was refused before the first was done.
			f.accept(op, b)
			f.push(op, Ack{Instance: b, Phase: Refused, Status: Duplicate})
			f.done(op, OK, b)
		}, ClassOK, 0, ""},
		{"DoneThenRefused", func(f *stubFleet, op Op) {
			f.accept(op, b)
			f.done(op, OK, b)
			f.push(op, Ack{Instance: b, Phase: Refused, Status: Duplicate})
		}, ClassOK, 0, ""},
		{"RefusedAfterQueueing", func(f *stubFleet, op Op) {
			f.accept(op, b)
			f.push(op, Ack{Instance: b, Phase: Refused, Status: Expired})
		}, ClassRefused, 3, ""},
		{"FirstDoneWins", func(f *stubFleet, op Op) {
			f.accept(op, b)
			f.done(op, Failed, b)
			f.done(op, OK, b)
		}, ClassFailed, 3, ""},
		{"EverythingTwice", func(f *stubFleet, op Op) {
			f.accept(op, b, b)
			f.done(op, OK, b, b)
		}, ClassOK, 0, ""},
		{"DoneWithoutAccepted", func(f *stubFleet, op Op) { f.done(op, OK, b) }, ClassOK, 0, ""},
		{"AnotherOpsAck", func(f *stubFleet, op Op) {
			f.pushRaw(f.cfg.Keys().Reply(op.ID), `{"id":"01JDG0000000000000000000ZZ","instance":"web@h2","phase":"done","status":"ok"}`)
		}, ClassSilent, 4, "no ack"},
		{"Garbage", func(f *stubFleet, op Op) {
			for _, raw := range []string{`{`, `{"instance":"../x"}`, `{"id":1}`, "\x00\xff", `{"id":"` + op.ID + `","instance":"web@h2","phase":"boo","status":"ok"}`} {
				f.pushRaw(f.cfg.Keys().Reply(op.ID), raw)
			}
			f.accept(op, b)
			f.done(op, OK, b)
		}, ClassOK, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, a, b)
			if tt.want == ClassSilent || tt.want == ClassUnfinished {
				f.cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
				f.beat(b, func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 1000 })
			}
			f.serve(func(op Op) { tt.b(f, op); ok(f, op) })
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := map[Class][]string{ClassOK: {a}}
			want[tt.want] = append(want[tt.want], b)
			wantClasses(t, r, want)
			if r.ExitCode() != tt.exit {
				t.Errorf("exit %d; want %d", r.ExitCode(), tt.exit)
			}
			if d := resultOf(t, r, b).Detail; !strings.Contains(d, tt.says) {
				t.Errorf("detail %q; want %q in it", d, tt.says)
			}
			if (r.Err() != nil) != (tt.want != ClassOK) || r.Err() != nil && !strings.Contains(r.Err().Error(), b) {
				t.Errorf("Err() = %v", r.Err())
			}
			if missed := r.Missed(); (tt.want != ClassOK) != slices.Equal(missed, []string{b}) {
				t.Errorf("Missed() = %v", missed)
			}
		})
	}
}

func refuse(instance string, s Status) func(*stubFleet, Op) {
	return func(f *stubFleet, op Op) { f.push(op, Ack{Instance: instance, Phase: Refused, Status: s}) }
}

// Nothing that is wrong with a request may be published.
func TestDispatchRefusesBeforePublishing(t *testing.T) {
	f := newStubFleet(t, "web@h1", "inference@h1", "gateway@h1")
	f.cfg.Legacy.Instances = []string{"web@old"}
	f.serve(func(Op) {})
	for _, tt := range []struct {
		name string
		req  Request
		exit int
		says string
	}{
		{"EmptyTarget", Request{Op: OpRestart}, ExitUsage, "empty"},
		{"MistypedTier", Request{Op: OpRestart, Target: "infernce"}, ExitUsage, "inference"},
		{"UnknownOp", Request{Op: "reboot", Target: "all"}, ExitUsage, "known: ping"},
		{"NoMatch", Request{Op: OpRestart, Target: "inference@h9"}, ExitNobody, "matches nothing"},
		{"NothingLeft", Request{Op: OpRestart, Target: "inference,!host:h1"}, ExitNobody, "matches nothing"},
		{"RevisionOption", Request{Op: OpPull, Target: "inference", Args: Args{Revision: "--exec=x"}}, ExitUsage, "revision"},
		{"ControlCharacter", Request{Op: OpPull, Target: "inference", RequestedBy: "a\x1b[2Jb"}, ExitUsage, "requested_by"},
		{"RetryOfAStranger", Request{Op: OpPull, Target: "all", Only: []string{"web@h7"}}, ExitNobody, "web@h7"},
		{"RetryOutsideTarget", Request{Op: OpPull, Target: "inference", Only: []string{"gateway@h1"}}, ExitNobody, "gateway@h1"},
		{"RetryMalformed", Request{Op: OpPull, Target: "inference", Only: []string{"x"}}, ExitUsage, "x"},
		{"UpdateOfLegacy", Request{Op: OpUpdate, Target: "all"}, ExitRefused, "update all,!web"},
		{"LegacySingly", Request{Op: OpRestart, Target: "web@old"}, ExitRefused, "singly"},
		{"LegacyAmongOthers", Request{Op: OpRestart, Target: "web,inference"}, ExitRefused, "web,inference,!web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m messages
			r, err := f.d.Dispatch(t.Context(), tt.req, m.send)
			var ns *NotSentError
			if r != nil || !errors.As(err, &ns) {
				t.Fatalf("got %+v, %v; want a *NotSentError", r, err)
			}
			if ns.Code != tt.exit || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got exit %d, %v; want exit %d and %q", ns.Code, err, tt.exit, tt.says)
			}
			if len(m.list()) != 0 || f.delivered() != 0 {
				t.Errorf("sent %q, delivered %d ops; want nothing", m.list(), f.delivered())
			}
		})
	}
	t.Run("AckNotSent", func(t *testing.T) {
		boom := errors.New("chat is down")
		r, err := f.d.Dispatch(t.Context(), Request{Op: OpPing, Target: "inference"}, func(context.Context, string) error { return boom })
		if r != nil || !errors.Is(err, boom) || f.delivered() != 0 {
			t.Errorf("got %+v, %v, %d delivered; want the error and nothing published", r, err, f.delivered())
		}
	})
}

func TestDispatchNobodySubscribed(t *testing.T) {
	f := newStubFleet(t, "web@h1", "gateway@h1")
	f.cfg.ControlReplyTimeout = fleet.Seconds(30 * time.Second)
	start := time.Now()
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassSilent: {"web@h1", "gateway@h1"}})
	if r.ExitCode() != ExitNobody {
		t.Errorf("exit %d; want %d", r.ExitCode(), ExitNobody)
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("took %v; want it to fail without waiting for the reply window", d)
	}
}

// Expected is who was known before the op, whatever their state; the report
// says why each of them did not answer.
func TestDispatchNamesTheSilent(t *testing.T) {
	t.Parallel()
	f := newStubFleet(t, "web@h1")
	f.cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
	now := f.now()
	f.beat("web@down", func(h *fleet.Heartbeat) { h.At = now.Add(-10 * time.Minute) })
	f.beat("web@dropped", func(h *fleet.Heartbeat) { h.At = now.Add(-10 * time.Minute) })
	f.beat("sgfleet@dropped", func(h *fleet.Heartbeat) { h.ControlledBy = fleet.BySelf })
	f.beat("web@powerless", func(h *fleet.Heartbeat) { h.At, h.Degraded = now.Add(-16*time.Second), "checkout: no git" })
	f.beat("web@deaf", func(h *fleet.Heartbeat) { h.SubscribedSince, h.DeafSince = 0, now.Add(-2*time.Minute) })
	f.beat("web@self", func(h *fleet.Heartbeat) { h.ControlledBy, h.DoneTimeoutMS = fleet.BySelf, 200 })
	f.beat("web@gone", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 200 })
	f.beat("web@crashed", nil)
	f.beat("web@forgotten", nil)
	f.beat("web@slow", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 200 })
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "web@self", "web@gone", "web@slow")
		f.done(op, OK, "web@h1")
		f.beat("web@gone", func(h *fleet.Heartbeat) { h.At = h.At.Add(-time.Minute) })
		f.beat("web@crashed", func(h *fleet.Heartbeat) { h.InvocationID, h.SubscribedSince = "after", h.At })
		f.beat("web@slow", func(h *fleet.Heartbeat) { h.InvocationID = "after" })
		f.client.HDel(context.Background(), f.cfg.Keys().Live(), "web@forgotten")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{
		ClassOK:         {"web@h1"},
		ClassSilent:     {"web@down", "web@dropped", "web@powerless", "web@deaf", "web@self", "web@gone", "web@crashed", "web@forgotten"},
		ClassUnfinished: {"web@slow"},
	})
	for instance, says := range map[string]string{
		"web@down":      "DOWN, last heartbeat",
		"web@dropped":   "no longer served by dropped, last heartbeat 10m",
		"web@powerless": "no ack, last heartbeat 1",
		"web@deaf":      "deaf since",
		"web@self":      "never came back",
		"web@gone":      "accepted, and not heard of since",
		"web@crashed":   "subscribed only after the op was published",
		"web@forgotten": "no heartbeat any more",
		"web@slow":      "restarted, but no final answer",
	} {
		if d := resultOf(t, r, instance).Detail; !strings.Contains(d, says) {
			t.Errorf("%s: %q; want %q in it", instance, d, says)
		}
	}
	for instance, end := range map[string]string{
		"web@powerless": " ago, which said: degraded, checkout: no git",
		"web@dropped":   " ago; if that is meant: sgfleet forget web@dropped",
	} {
		if d := resultOf(t, r, instance).Detail; !strings.HasSuffix(d, end) {
			t.Errorf("%s: %q; want it to end in %q", instance, d, end)
		}
	}
	if r.ExitCode() != ExitSilent {
		t.Errorf("exit %d; want %d", r.ExitCode(), ExitSilent)
	}
	note := "3 silent instances may still receive this op and act on it until it expires, in 2"
	if !strings.Contains(strings.Join(r.Notes, "\n"), note) {
		t.Errorf("notes: %q; want %q…", r.Notes, note)
	}
}

// An op that ends with its collection, or touches nothing, leaves nothing to
// be warned of.
func TestSilentAfterTheOpExpired(t *testing.T) {
	for _, op := range []string{OpRestart, OpPing} {
		f := newStubFleet(t, "web@h1")
		f.cfg.ControlReplyTimeout = fleet.Seconds(300 * time.Millisecond)
		if op == OpRestart {
			f.cfg.OpLife = fleet.Duration(300 * time.Millisecond)
		}
		f.serve(func(Op) {})
		r, err := f.d.Dispatch(t.Context(), Request{Op: op, Target: "web"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Notes) > 0 || r.Counts.Silent != 1 {
			t.Errorf("%s: %d silent, notes %q; want 1 and none", op, r.Counts.Silent, r.Notes)
		}
	}
}

func TestDispatchUnexpectedAndLate(t *testing.T) {
	t.Parallel()
	f := newStubFleet(t, "web@h1", "web@h2")
	f.cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "web@new")
		f.done(op, OK, "web@new")
		time.Sleep(3200 * time.Millisecond) // the reply window passes; web@h1 is still waited for
		f.accept(op, "web@h2")
		f.done(op, OK, "web@h2", "web@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "web@h2", "web@new"}})
	if i := resultOf(t, r, "web@new"); !i.Unknown || i.Tier != "web" {
		t.Errorf("web@new: %+v; want it marked unknown, tier web", i)
	}
	if i := resultOf(t, r, "web@h2"); !i.Late || i.Unknown {
		t.Errorf("web@h2: %+v; want it marked late", i)
	}
}

// What cannot be read is said, and whoever floods a reply list with strangers
// fills no memory.
func TestDispatchSaysWhatItCouldNotRead(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.client.HSet(t.Context(), f.cfg.Keys().Live(), "../x", "{}")
	f.serve(func(op Op) {
		key := f.cfg.Keys().Reply(op.ID)
		pipe := f.client.Pipeline()
		for n := range 3 * maxStrangers {
			pipe.RPush(context.Background(), key, fmt.Sprintf(`{"id":"%s","instance":"web@x%d","phase":"done","status":"ok"}`, op.ID, n), "hello")
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			t.Error(err)
		}
		f.accept(op, "web@h1")
		f.done(op, OK, "web@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpPing, Target: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if i := resultOf(t, r, "web@h1"); i.Class != ClassOK {
		t.Errorf("web@h1: %+v", i)
	}
	if len(r.Instances) != 1+maxStrangers || len(r.Unattributed) != maxStrangers {
		t.Errorf("%d instances, %d texts; want them bounded", len(r.Instances), len(r.Unattributed))
	}
	notes := strings.Join(r.Notes, "\n")
	if !strings.Contains(notes, "1 of the registry's entries") || !strings.Contains(notes, "4000 answers could not be used") {
		t.Errorf("notes %q; want what could not be read", notes)
	}
}

func TestDispatchExpectVersion(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2")
	f.serve(func(op Op) {
		f.push(op, Ack{Instance: "web@h1", Phase: Done, Status: OK, Version: "v2"})
		f.push(op, Ack{Instance: "web@h2", Phase: Done, Status: OK, Version: "v1"})
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpPing, Target: "web", ExpectVersion: "v2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1"}, ClassFailed: {"web@h2"}})
	if d := resultOf(t, r, "web@h2").Detail; !strings.Contains(d, "runs sgfleet v1, expected v2") || r.ExitCode() != ExitFailed {
		t.Errorf("exit %d, %q", r.ExitCode(), d)
	}
}

func TestDispatchRetryNamesEachInstance(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2", "web@h3", "inference@h1")
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "web@h2")
		f.done(op, OK, "web@h1", "web@h2")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Only: []string{"web@h2", "web@h1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "web@h2"}})
	target, err := fleet.ParseTarget(f.op().Target, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := fleet.Member{Instance: fleet.Instance{Service: "web", Host: "h1"}, Tier: "web"}
	other := fleet.Member{Instance: fleet.Instance{Service: "web", Host: "h3"}, Tier: "web"}
	if !target.Names(m) || target.Match(other) {
		t.Errorf("published target %q; want it to name web@h1 and web@h2 only", f.op().Target)
	}
}
