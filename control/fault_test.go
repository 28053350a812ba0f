package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// throughProxy puts a proxy between the dispatcher, not the stubs, and Redis.
func (f *stubFleet) throughProxy() *redistest.Proxy {
	p := redistest.NewProxy(f.t, f.srv.Addr)
	f.d = f.dispatcher(p.Addr)
	return p
}

func answerAll(f *stubFleet, instances ...string) func(Op) {
	return func(op Op) {
		f.accept(op, instances...)
		f.done(op, OK, instances...)
	}
}

// A lost reply to PUBLISH: the op was delivered once, is never sent again, and
// its outcome is collected.
func TestLostPublishReply(t *testing.T) {
	for _, tt := range []struct {
		name      string
		fault     redistest.Fault
		delivered int
	}{
		{"ReplyCut", redistest.CutReply, 1},
		{"ReplySwallowed", redistest.SwallowReply, 1},
		{"CommandCut", redistest.CutCommand, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, "web@h1", "web@h2")
			if tt.delivered == 0 {
				f.cfg.ControlReplyTimeout = fleet.Seconds(time.Second)
			}
			p := f.throughProxy()
			f.serve(answerAll(f, "web@h1", "web@h2"))
			p.LoseReply("PUBLISH", tt.fault)
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Published != "unknown" || len(r.Notes) == 0 || !strings.Contains(r.Notes[0], "sent once or not at all") {
				t.Errorf("published %q, notes %q; want unknown and a note", r.Published, r.Notes)
			}
			class := ClassOK
			if tt.delivered == 0 {
				class = ClassSilent
			}
			wantClasses(t, r, map[Class][]string{class: {"web@h1", "web@h2"}})
			if n := f.delivered(); n != tt.delivered {
				t.Errorf("delivered %d times; want %d", n, tt.delivered)
			}
			if n := p.Seen("PUBLISH"); n != 1 {
				t.Errorf("PUBLISH was sent %d times; want once", n)
			}
		})
	}
}

// A lost reply to LRANGE is read again, and what it held is counted once.
func TestLostReadReply(t *testing.T) {
	for name, fault := range map[string]redistest.Fault{"Cut": redistest.CutReply, "Swallowed": redistest.SwallowReply} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, "web@h1", "web@h2")
			p := f.throughProxy()
			f.serve(func(op Op) {
				f.accept(op, "web@h1", "web@h2")
				p.LoseReply("LRANGE", fault)
				p.LoseReply("LRANGE", redistest.CutReply)
				f.done(op, OK, "web@h1", "web@h2")
			})
			acks := map[string]int{}
			r, err := f.d.Dispatch(t.Context(), Request{Op: OpPing, Target: "all", Watch: func(u Update) {
				if u.Kind == UpdateAck {
					acks[string(u.Ack.Phase)+" "+u.Ack.Instance]++
				}
			}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "web@h2"}})
			for _, k := range []string{"accepted web@h1", "accepted web@h2", "done web@h1", "done web@h2"} {
				if acks[k] != 1 {
					t.Errorf("%s was counted %d times; want once (%v)", k, acks[k], acks)
				}
			}
		})
	}
}

// Redis restarts without its data while acks flow: those that were read stay
// counted, those that come afterwards are read although the list began anew.
func TestRedisRestartsWhileCollecting(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2", "web@h3")
	counted := make(chan struct{})
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "web@h2", "web@h3")
		f.done(op, OK, "web@h1", "web@h2")
		go func() {
			<-counted
			f.srv.Restart()
			f.done(op, OK, "web@h3")
		}()
	})
	done := 0
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Watch: func(u Update) {
		if u.Kind == UpdateAck && u.Ack.Phase == Done {
			if done++; done == 2 {
				close(counted)
			}
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "web@h2", "web@h3"}})
}

// Redis is gone for good after the publish: the collection still ends.
func TestRedisDiesWhileCollecting(t *testing.T) {
	t.Parallel()
	f := newStubFleet(t, "web@h1", "gateway@h1")
	f.beat("web@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 2000 })
	f.cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
	f.cfg.GatewayGrace = fleet.Duration(100 * time.Millisecond)
	f.beat("gateway@h1", func(h *fleet.Heartbeat) { h.DoneTimeoutMS = 300 })
	p := f.throughProxy()
	f.serve(func(op Op) { f.accept(op, "web@h1", "gateway@h1") })
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Watch: func(u Update) {
		if u.Kind == UpdateAck && u.Settled == 0 && u.Ack.Instance == "gateway@h1" {
			p.Refuse(true)
			p.Cut()
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassUnfinished: {"web@h1", "gateway@h1"}})
	if r.Release != "" || !strings.Contains(strings.Join(r.Notes, "\n"), "acks could not be read") {
		t.Errorf("release %q, notes %q; want none and a note that acks could not be read", r.Release, r.Notes)
	}
}

// An error that Redis gives is no lost reply: nothing was published.
func TestPublishRefused(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.srv.Do("ACL", "SETUSER", "half", "on", ">pw", "~*", "&*", "+@all", "-publish")
	f.cfg.Redis.Username, f.cfg.Redis.Password = "half", "pw"
	f.d = f.dispatcher(f.srv.Addr)
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	var ns *NotSentError
	if r != nil || !errors.As(err, &ns) || ns.Code != ExitError || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("got %+v, %v; want NOPERM and exit %d", r, err, ExitError)
	}
}

func TestRedisDownBeforePublishing(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.srv.Kill()
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	var ns *NotSentError
	if r != nil || !errors.As(err, &ns) || ns.Code != ExitError {
		t.Fatalf("got %+v, %v; want exit %d", r, err, ExitError)
	}
}

// A history that cannot be written is said, and keeps nothing from being done.
func TestHistoryIsBestEffort(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.srv.Do("ACL", "SETUSER", "nohist", "on", ">pw", "~*", "&*", "+@all", "-xadd")
	f.cfg.Redis.Username, f.cfg.Redis.Password = "nohist", "pw"
	f.d = f.dispatcher(f.srv.Addr)
	f.serve(answerAll(f, "web@h1"))
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpPing, Target: "all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1"}})
	if !strings.Contains(strings.Join(r.Notes, "\n"), "history could not be written") {
		t.Errorf("notes %q; want the history's error", r.Notes)
	}
}

func TestHistoryServesARetry(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2")
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "web@h2")
		f.done(op, OK, "web@h1")
		f.done(op, Failed, "web@h2")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web", RequestedBy: "oncall", Args: Args{IncludeFailed: true}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.d.FindOp(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.Op != OpRestart || p.Target != "web" || p.RequestedBy != "oncall" || !p.Args.IncludeFailed || !p.Finished ||
		!slices.Equal(p.Missed, []string{"web@h2"}) || p.Summary != r.Summary {
		t.Errorf("got %+v", p)
	}
	if _, err := f.d.FindOp(t.Context(), testID); !errors.Is(err, ErrNoOp) {
		t.Errorf("an unknown id: got %v; want ErrNoOp", err)
	}
	entries := f.client.XRange(t.Context(), f.cfg.Keys().History(), "-", "+").Val()
	if len(entries) != 2 {
		t.Errorf("%d history entries; want 2", len(entries))
	}
}

// ctx ends in the middle: what is known is reported, gateways are told to
// stay, and the error says so.
func TestPublisherCancelled(t *testing.T) {
	f := newStubFleet(t, "web@h1", "web@h2", "gateway@h1")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	released := make(chan string, 1)
	f.serve(func(op Op) {
		f.accept(op, "web@h1", "gateway@h1")
		go func() { released <- f.awaitRelease(op, patience) }()
		f.done(op, OK, "web@h1")
	})
	var m messages
	r, err := f.d.Dispatch(ctx, Request{Op: OpRestart, Target: "all", Watch: func(u Update) {
		if u.Kind == UpdateAck && u.Ack.Phase == Done {
			// Answered before the cancellation, and not read yet.
			f.accept(Op{ID: u.Op}, "web@h2")
			cancel(stop)
		}
	}}, m.send)
	if !errors.Is(err, stop) {
		t.Fatalf("error %v; want %v", err, stop)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1"}, ClassUnfinished: {"web@h2", "gateway@h1"}})
	if v := <-released; v != "abort" || r.Release != "abort" {
		t.Errorf("released with %q, report says %q; want abort", v, r.Release)
	}
	if d := resultOf(t, r, "gateway@h1").Detail; !strings.Contains(d, "told not to restart") {
		t.Errorf("gateway: %q", d)
	}
	if got := m.list(); len(got) != 2 {
		t.Errorf("sent %q; want the report, too", got)
	}
}
