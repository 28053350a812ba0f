package control

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// commandHook stands between a dispatcher and Redis: before is asked about each
// single command, and answers it by returning true.
type commandHook struct {
	before func(cmd redis.Cmder) (answered bool)
}

func (commandHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h commandHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.before(cmd) {
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

func (commandHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A reply list that somebody fills faster than it can be read ends neither the
// deadlines nor the operator's own timeout.
func TestNeverEndingReplyList(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.serve(func(op Op) { f.accept(op, "web@h1") })
	page := make([]string, readPage)
	for i := range page {
		page[i] = "x"
	}
	f.d.Client.AddHook(commandHook{func(cmd redis.Cmder) bool {
		c, ok := cmd.(*redis.StringSliceCmd)
		if !ok || cmd.Name() != "lrange" {
			return false
		}
		c.SetVal(page)
		return true
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := f.d.Dispatch(ctx, Request{Op: OpRestart, Target: "all", Timeout: 300 * time.Millisecond}, nil)
	if err != nil {
		t.Fatalf("got %v; want a report when the timeout is over", err)
	}
	if took := time.Duration(r.TookMS) * time.Millisecond; took > 10*time.Second {
		t.Errorf("took %v; want about 300 ms", took)
	}
}

// What was answered while acks could not be read is neither called silent nor
// taken for a reason to release the gateways.
func TestBlindAtTheDeadline(t *testing.T) {
	t.Parallel()
	f := newStubFleet(t, "web@h1", "gateway@h1")
	f.cfg.ControlReplyTimeout = fleet.Seconds(4 * time.Second)
	var blind atomic.Bool
	f.d.Client.AddHook(commandHook{func(cmd redis.Cmder) bool {
		if cmd.Name() == "lrange" && blind.Load() {
			cmd.SetErr(errors.New("connection reset by peer"))
			return true
		}
		return false
	}})
	early := make(chan string, 1)
	f.serve(func(op Op) {
		blind.Store(true)
		f.accept(op, "web@h1", "gateway@h1")
		early <- f.awaitRelease(op, f.cfg.ControlReplyTimeout.D()+500*time.Millisecond)
		blind.Store(false)
		time.Sleep(500 * time.Millisecond)
		f.done(op, OK, "web@h1")
		f.awaitRelease(op, patience)
		f.done(op, OK, "gateway@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := <-early; v != "" {
		t.Errorf("released with %q while web@h1 was at it and nothing could be read", v)
	}
	wantClasses(t, r, map[Class][]string{ClassOK: {"web@h1", "gateway@h1"}})
}

// A text that names an instance of ours is not its answer: a line that somebody
// pushed must not hide that the restart failed.
func TestTextSpeaksForLegacyOnly(t *testing.T) {
	f := newStubFleet(t, "web@h1")
	f.cfg.Legacy.AckPattern = `^(?P<service>\w+)@(?P<host>\w+) restart: ok`
	f.serve(func(op Op) {
		f.pushRaw(f.cfg.Keys().Reply(op.ID), "web@h1 restart: ok")
		f.accept(op, "web@h1")
		f.done(op, Failed, "web@h1")
	})
	r, err := f.d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, r, map[Class][]string{ClassFailed: {"web@h1"}})
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "web@h1") {
		t.Errorf("notes %q; want the text mentioned", notes)
	}
}

// The word that lets the publishing instance restart lets every gateway go as
// well: it is not said while others may still be at it.
func TestLastIsNotSaidTooSoon(t *testing.T) {
	all := []string{"web@h1", "gateway@h1", "gateway@h2"}
	for _, tt := range []struct {
		name  string
		req   Request
		fails bool // SETNX: the abort cannot be written
		last  string
	}{
		{"AbortCannotBeWritten", Request{Timeout: 500 * time.Millisecond}, true, "gateway@h1"},
		{"NobodyWaits", Request{NoWait: true}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newStubFleet(t, all...)
			f.d.Self = "gateway@h1"
			f.d.Client.AddHook(commandHook{func(cmd redis.Cmder) bool {
				if tt.fails && len(cmd.Args()) > 3 && cmd.Args()[2] == releaseAbort {
					cmd.SetErr(errors.New("connection reset by peer"))
					return true
				}
				return false
			}})
			f.serve(func(op Op) { f.accept(op, all...) })
			tt.req.Op, tt.req.Target = OpRestart, "all"
			if _, err := f.d.Dispatch(t.Context(), tt.req, nil); err != nil {
				t.Fatal(err)
			}
			if v := f.awaitRelease(f.op(), 300*time.Millisecond); v != "" {
				t.Errorf("the gateways were told %q while web@h1 was at it", v)
			}
			if got := f.op().Args.Last; got != tt.last {
				t.Errorf("args.last = %q; want %q", got, tt.last)
			}
		})
	}
}
