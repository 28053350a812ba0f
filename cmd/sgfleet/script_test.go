package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// TestMain lets the test binary be sgfleet itself: in a script, and for a
// daemon that a test starts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sgfleet": main})
}

// TestScripts runs testdata/script: the program as an operator uses it, each
// script with a key prefix of its own on one real redis-server. Beside sgfleet,
// scripts have these commands:
//
//	beat INSTANCE TIER [ago=DURATION] [deaf] [observe] [state=STATE] [NAME=VALUE…]
//	     a heartbeat as a daemon would write it every ten minutes, so that no
//	     slow machine makes one DOWN that is not meant to be
//	published N
//	     wait until the first op of the script was published and answered N times
//	code N COMMAND…
//	     run COMMAND and check its exit code
//	daemon HOST [SERVICE=BEHAVIOUR…], stopdaemon HOST
//	     a real daemon for HOST, in this process, on units that are fakes
func TestScripts(t *testing.T) {
	server := redistest.Start(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			prefix := strings.NewReplacer(".", "-", "/", "-").Replace(filepath.Base(env.WorkDir)) + ":"
			env.Setenv("SGFLEET_REDIS_URL", "redis://"+server.Addr+"/0")
			env.Setenv("SGFLEET_KEY_PREFIX", prefix)
			env.Setenv("SGFLEET_HOST", "h1")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("TERM", "dumb")
			h := &scriptHosts{addr: server.Addr, prefix: prefix, daemons: map[string]*scriptDaemon{}}
			env.Values[scriptKey{}] = h
			env.Defer(h.stopAll)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"beat": cmdBeat, "code": cmdCode, "daemon": cmdDaemon, "stopdaemon": cmdStopDaemon,
			"published": cmdPublished,
		},
	})
}

type scriptKey struct{}

// scriptHosts are what one script runs beside sgfleet.
type scriptHosts struct {
	addr, prefix string
	daemons      map[string]*scriptDaemon
}

func (h *scriptHosts) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: h.addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
}

// cmdCode runs sgfleet and checks its exit code: code 4 sgfleet restart all.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		if _, err := fmt.Sscanf(err.Error(), "exit status %d", &got); err != nil {
			ts.Fatalf("%v: %v", args[1:], err)
		}
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cmdPublished waits for the history's first entry, which goes out just before
// the op, and then for N answers to the op.
func cmdPublished(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: published N")
	}
	want, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	h := ts.Value(scriptKey{}).(*scriptHosts)
	c := h.client()
	defer c.Close()
	ctx, keys := context.Background(), fleet.Keys{Prefix: h.prefix}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		entries, err := c.XRangeN(ctx, keys.History(), "-", "+", 1).Result()
		ts.Check(err)
		if len(entries) > 0 {
			id, _ := entries[0].Values["id"].(string)
			if n, err := c.LLen(ctx, keys.Reply(id)).Result(); err == nil && n >= want {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not published and answered %d times within 30 s", want)
		}
	}
}

func cmdBeat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: beat INSTANCE TIER [ago=DURATION] [deaf] [observe] [state=STATE]")
	}
	h := ts.Value(scriptKey{}).(*scriptHosts)
	c := h.client()
	defer c.Close()
	ctx := context.Background()
	now, err := c.Time(ctx).Result()
	ts.Check(err)
	i, err := fleet.ParseInstance(args[0])
	ts.Check(err)
	b := fleet.Heartbeat{
		Instance: args[0], Service: i.Service, Host: i.Host, Tier: args[1], Unit: "stargazer-" + i.Service + ".service",
		Version: "test", ActiveState: "active", Result: "success", Mode: fleet.ModeAct, ControlledBy: fleet.ByHost,
		MachineID: "machine-of-" + i.Host, IntervalMS: 600_000, DoneTimeoutMS: 1000,
		Started: fleet.TimeOf(now.Add(-2 * time.Hour)), SubscribedSince: fleet.TimeOf(now.Add(-time.Hour)), At: fleet.TimeOf(now),
	}
	for _, a := range args[2:] {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "ago":
			d, err := time.ParseDuration(v)
			ts.Check(err)
			b.At = b.At.Add(-d)
		case "deaf":
			b.SubscribedSince, b.DeafSince = 0, b.At.Add(-26*time.Hour-30*time.Minute)
		case "observe":
			b.Mode = fleet.ModeObserve
		case "state":
			b.ActiveState = v
		case "checkout":
			b.Checkout = v
		case "running":
			b.RunningRevision = v
		case "revision":
			b.CheckoutRevision = v
		default:
			ts.Fatalf("beat: unknown %q", a)
		}
	}
	value, err := json.Marshal(b)
	ts.Check(err)
	ts.Check(c.HSet(ctx, fleet.Keys{Prefix: h.prefix}.Live(), b.Instance, value).Err())
}

func (h *scriptHosts) stopAll() {
	for _, d := range h.daemons {
		d.stop()
	}
}

// TestNoTerminalNoHarm: without a terminal and without --yes nothing is
// published, whatever the op.
func TestNoTerminalNoHarm(t *testing.T) {
	server := redistest.Start(t)
	t.Setenv("SGFLEET_REDIS_URL", "redis://"+server.Addr+"/0")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	ctx := t.Context()
	c := server.Client()
	beat := fleet.Heartbeat{Instance: "web@h1", Service: "web", Host: "h1", Tier: "web", Unit: "stargazer-web.service", SubscribedSince: 1, At: fleet.TimeOf(time.Now())}
	value, _ := json.Marshal(beat)
	if err := c.HSet(ctx, fleet.Keys{Prefix: "sg:"}.Live(), "web@h1", value).Err(); err != nil {
		t.Fatal(err)
	}
	sub := c.Subscribe(ctx, fleet.Keys{Prefix: "sg:"}.Channel())
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"restart", "pull", "update"} {
		var stdout, stderr strings.Builder
		code := run(ctx, []string{op, "web"}, strings.NewReader("y\n"), &stdout, &stderr)
		if want := "sgfleet " + op + " web --yes"; code != exitRefused || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s web: exit %d, want %d and the command %q in:\n%s", op, code, exitRefused, want, stderr.String())
		}
	}
	if msg, err := sub.ReceiveTimeout(ctx, 200*time.Millisecond); err == nil {
		t.Errorf("something was published: %v", msg)
	}
	if n, _ := c.Exists(ctx, fleet.Keys{Prefix: "sg:"}.History()).Result(); n != 0 {
		t.Error("something is in the history")
	}
}
