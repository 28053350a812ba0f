package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

func startOne(t *testing.T, change func(*rigDaemon, *fakeHost)) (*rig, *rigDaemon, *fakeHost) {
	t.Helper()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.daemon("h1", fake)
	if change != nil {
		change(d, fake)
	}
	r.start(d)
	return r, d, fake
}

// TestPullSharedCheckout: two services on one checkout pull it once; the other
// joins and reports the same revision.
func TestPullSharedCheckout(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, nil)
	c := fake.checkout("/srv/app")
	fake.set(func() { c.takes = 300 * time.Millisecond })
	op := r.send(OpPull, "web,agents")
	got := r.finals(op.ID, 2)
	statuses := []Status{got["web@h1"].Status, got["agents@h1"].Status}
	slices.Sort(statuses)
	if !slices.Equal(statuses, []Status{Joined, OK}) {
		t.Errorf("got %v, want one ok and one joined: %+v", statuses, got)
	}
	for name, a := range got {
		if a.Revision != rev(2) {
			t.Errorf("%s: got revision %s, want %s", name, a.Revision, rev(2))
		}
	}
	if n := fake.fetches("/srv/app"); n != 1 {
		t.Errorf("got %d pulls, want 1", n)
	}
	if h := r.registry()["web@h1"]; h.CheckoutRevision != rev(2) || h.RunningRevision != rev(1) {
		t.Errorf("the registry says that %s is checked out and %s runs; want %s and %s", h.CheckoutRevision, h.RunningRevision, rev(2), rev(1))
	}
}

// Whoever has read a final ack finds no roster from before it.
func TestRegistryKeepsUpWithAcks(t *testing.T) {
	t.Parallel()
	r, _, _ := startOne(t, func(_ *rigDaemon, f *fakeHost) {
		u := f.unit("stargazer-web.service")
		u.ActiveState, u.SubState = "failed", "failed"
	})
	for n := range 3 {
		if a := r.finals(r.send(OpRestart, "web@h1").ID, 1)["web@h1"]; a.Status != OK {
			t.Fatalf("got %+v, want it restarted", a)
		} else if h := r.registry()["web@h1"]; h.InvocationID != a.InvocationID || h.ActiveState != "active" || h.LastOp != a.ID {
			t.Errorf("restart %d: the ack tells of %s, the registry of %s, %s since %s", n, a.InvocationID, h.InvocationID, h.ActiveState, h.LastOp)
		}
	}
	r.finals(r.send(OpPull, "web").ID, 1)
	got := r.registry()
	for _, name := range []string{"web@h1", "agents@h1"} { // one checkout
		if h := got[name]; h.CheckoutRevision != rev(2) || h.RunningRevision != rev(1) {
			t.Errorf("%s: the registry says that %s is checked out and %s runs; want %s and %s", name, h.CheckoutRevision, h.RunningRevision, rev(2), rev(1))
		}
	}
}

// A unit that was up before the daemon's first look is as old as systemd says.
func TestStartedBeforeTheDaemon(t *testing.T) {
	t.Parallel()
	const age = 11 * time.Minute
	r, _, fake := startOne(t, func(_ *rigDaemon, f *fakeHost) {
		f.unit("stargazer-web.service").ActiveEnter = time.Now().Add(-age)
	})
	if h := r.registry()["web@h1"]; h.At.Sub(h.Started) < age-startedGrain || h.At.Sub(h.Started) > age+patience {
		t.Errorf("up for %v by the registry; want %v", h.At.Sub(h.Started), age)
	}
	// Restarted, it is young again, even while systemd tells of its former life.
	u := fake.unit("stargazer-web.service")
	fake.set(func() { u.then, u.ActiveEnter = "activating", time.Now().Add(-age) })
	a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]
	if h := r.registry()["web@h1"]; h.InvocationID != a.InvocationID || h.At.Sub(h.Started) > patience {
		t.Errorf("restarted as %s (%s): up for %v by the registry, as %s", a.InvocationID, a.Detail, h.At.Sub(h.Started), h.InvocationID)
	}
}

// The daemon that starts does not call itself one that is being started, nor
// one of the services that it serves.
func TestDaemonOfItself(t *testing.T) {
	t.Parallel()
	said := make(chan string, 100)
	r, _, _ := startOne(t, func(d *rigDaemon, f *fakeHost) {
		d.Notify = func(s string) { said <- s }
		u := f.unit("sgfleet.service")
		u.ActiveState, u.ActiveEnter = "activating", time.Now().Add(-time.Hour) // the process before
	})
	h := r.registry()["sgfleet@h1"]
	if h.ActiveState != "active" || h.At.Sub(h.Started) > patience {
		t.Errorf("%s, up for %v; want it active, just so", h.ActiveState, h.At.Sub(h.Started))
	}
	for s := range said {
		if strings.HasPrefix(s, "STATUS=subscribed") {
			if s != "STATUS=subscribed, serving 3 services" {
				t.Errorf("got %q; want 3 services", s)
			}
			break
		}
	}
}

// TestPullError is shared by those who joined the pull.
func TestPullError(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, nil)
	c := fake.checkout("/srv/app")
	fake.set(func() { c.takes, c.fetchErr = 200*time.Millisecond, errors.New("remote hung up") })
	op := r.send(OpUpdate, "web,agents")
	for name, a := range r.finals(op.ID, 2) {
		if a.Status != Failed || !strings.Contains(a.Detail, "remote hung up") || !strings.Contains(a.Detail, "not restarted") {
			t.Errorf("%s: got %+v, want failed with the remote's error", name, a)
		}
	}
	if n := fake.restarts("stargazer-web.service") + fake.restarts("stargazer-agents.service"); n != 0 {
		t.Errorf("got %d restarts after a failed pull, want 0", n)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, nil)
	c := fake.checkout("/srv/app")
	fake.set(func() { c.takes = 200 * time.Millisecond })
	op := r.makeOp(OpUpdate, "web,agents")
	op.Args.Revision = rev(2)
	r.publish(op)
	for name, a := range r.finals(op.ID, 2) {
		if a.Status != OK || a.Revision != rev(2) {
			t.Errorf("%s: got %+v, want ok on %s", name, a, rev(2))
		}
	}
	if n := fake.fetches("/srv/app"); n != 1 {
		t.Errorf("got %d pulls, want 1", n)
	}
	r.await("both to run on the new revision", func() bool {
		reg := r.registry()
		return reg["web@h1"].RunningRevision == rev(2) && reg["agents@h1"].RunningRevision == rev(2)
	})
}

func TestRestartStates(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, state, target string
		args                Args
		status              Status
		restarts            int
	}{
		{"stoppedStaysStopped", "inactive", "all", Args{}, Skipped, 0},
		{"stoppedStaysStoppedNamed", "inactive", "web@h1", Args{IncludeFailed: true}, Skipped, 0},
		{"failedByTier", "failed", "web", Args{}, Skipped, 0},
		{"failedNamed", "failed", "web@h1", Args{}, OK, 1},
		{"failedIncluded", "failed", "web", Args{IncludeFailed: true}, OK, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _, fake := startOne(t, func(_ *rigDaemon, f *fakeHost) { f.unit("stargazer-web.service").ActiveState = tc.state })
			op := r.makeOp(OpRestart, tc.target)
			op.Args.IncludeFailed = tc.args.IncludeFailed
			r.publish(op)
			r.release(op.ID, releaseAbort)
			answers := map[string]int{"all": 3}[tc.target]
			if a := r.finals(op.ID, max(1, answers))["web@h1"]; a.Status != tc.status {
				t.Errorf("got %+v, want %s", a, tc.status)
			}
			if n := fake.restarts("stargazer-web.service"); n != tc.restarts {
				t.Errorf("got %d restarts, want %d", n, tc.restarts)
			}
		})
	}
}

func TestRestartThatDies(t *testing.T) {
	t.Parallel()
	r, _, _ := startOne(t, func(d *rigDaemon, f *fakeHost) {
		f.unit("stargazer-web.service").then = "failed"
		d.Journal = func(_ context.Context, unit, _ string) []string { return []string{unit + ": boom\x1b[31m"} }
	})
	op := r.send(OpRestart, "web")
	a := r.finals(op.ID, 1)["web@h1"]
	if a.Status != Failed || len(a.Journal) != 1 || a.Journal[0] != "stargazer-web.service: boom [31m" {
		t.Errorf("got %+v, want failed with the journal's line and no escape", a)
	}
}

// TestRestartWaitsForPull: a restart during a pull of the checkout waits, and
// gives up as busy.
func TestRestartWaitsForPull(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		wait   time.Duration
		status Status
	}{{"waits", patience, OK}, {"busy", 100 * time.Millisecond, Busy}} {
		t.Run(tc.name, func(t *testing.T) {
			r, _, fake := startOne(t, func(d *rigDaemon, _ *fakeHost) { d.Tuning.RestartWait = tc.wait })
			pulled := make(chan struct{})
			c := fake.checkout("/srv/app")
			fake.set(func() { c.until = pulled })
			pull := r.send(OpPull, "agents")
			r.await("the fetch", func() bool { return fake.fetches("/srv/app") == 1 })
			op := r.send(OpRestart, "web")
			r.await("the restart to be accepted", func() bool { return r.answered(op.ID) })
			if tc.status == OK {
				close(pulled)
			}
			a := r.finals(op.ID, 1)["web@h1"]
			if a.Status != tc.status {
				t.Errorf("got %+v, want %s", a, tc.status)
			}
			if tc.status == Busy {
				close(pulled)
			}
			if done := r.finals(pull.ID, 1)["agents@h1"]; tc.status == OK && (a.At < done.At || a.Revision != rev(2)) {
				t.Errorf("restarted at %d on %s, but the pull was done at %d", a.At, a.Revision, done.At)
			}
		})
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		d.Config.Mode = fleet.ModeObserve
		f.checkout("/srv/app").marker = &opsexec.Marker{Old: rev(1), Next: rev(2)}
	})
	for _, name := range []string{OpRestart, OpPull, OpUpdate} {
		op := r.send(name, "all")
		for inst, a := range r.finals(op.ID, 3) {
			service, _, _ := strings.Cut(inst, "@")
			checkout := "/srv/app"
			if service == "gateway" {
				checkout = "/srv/gw"
			}
			want := map[string]string{
				OpRestart: "would restart stargazer-" + service + ".service", OpPull: "would pull " + checkout,
				OpUpdate: "would pull " + checkout + " and restart stargazer-" + service + ".service",
			}[name]
			if a.Status != Skipped || a.Reason != ReasonObserve || a.Detail != want {
				t.Errorf("%s of %s: got %+v, want skipped, %s", name, inst, a, want)
			}
		}
	}
	if n := fake.restarts("stargazer-web.service") + fake.fetches("/srv/app"); n != 0 {
		t.Error("something was done in observe mode")
	}
	if fake.checkout("/srv/app").marker == nil {
		t.Error("the checkout was repaired in observe mode")
	}
}

func TestGateway(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		word     string // written after everything else is done; "" for none
		deadline time.Duration
		status   Status
		restarts int
	}{
		{"go", releaseGo, time.Minute, OK, 1},
		{"abort", releaseAbort, time.Minute, Skipped, 0},
		{"publisherDied", "", 2 * time.Second, OK, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _, fake := startOne(t, nil)
			op := r.makeOp(OpRestart, "all")
			op.Args.GatewayDeadline = op.IssuedAt.Add(tc.deadline)
			r.publish(op)
			r.finals(op.ID, 2)
			if tc.word != "" {
				if n := fake.restarts("stargazer-gateway.service"); n != 0 {
					t.Fatal("the gateway did not wait")
				}
				r.release(op.ID, tc.word)
			}
			a := r.finals(op.ID, 3)["gateway@h1"]
			if a.Status != tc.status {
				t.Errorf("got %+v, want %s", a, tc.status)
			}
			if tc.word == "" && a.At < op.Args.GatewayDeadline {
				t.Errorf("restarted %v before the deadline", op.Args.GatewayDeadline.Sub(a.At))
			}
			if n := fake.restarts("stargazer-gateway.service"); n != tc.restarts {
				t.Errorf("got %d restarts, want %d", n, tc.restarts)
			}
		})
	}
}

// TestGatewayLast: the instance that publishes an op itself is not released by
// "go".
func TestGatewayLast(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, nil)
	op := r.makeOp(OpRestart, "gateway")
	op.Args.Last = "gateway@h1"
	r.release(op.ID, releaseGo)
	r.publish(op)
	time.Sleep(700 * time.Millisecond) // longer than a poll
	if n := fake.restarts("stargazer-gateway.service"); n != 0 {
		t.Fatal("restarted on go")
	}
	r.release(op.ID, releaseLast)
	if a := r.finals(op.ID, 1)["gateway@h1"]; a.Status != OK {
		t.Errorf("got %+v, want ok", a)
	}
}

// TestLegacy: ops of the original's shape are obeyed and answered with one line
// of text per instance.
func TestLegacy(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, func(d *rigDaemon, _ *fakeHost) { d.Config.Cooldown = fleet.Duration(time.Minute) })
	say := func(key, op, target string) {
		r.publishRaw([]byte(`{"op":"` + op + `","target":"` + target + `","requested_by":"bot","reply_key":"` + key + `"}`))
	}
	lines := func(key string, n int64) []string {
		r.await("answers on "+key, func() bool { return r.listLength(key) >= n })
		got, err := r.op.LRange(context.Background(), key, 0, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	prefix := r.cfg.Keys().ReplyPrefix()
	say(prefix+"a", OpRestart, "web")
	if got := lines(prefix+"a", 1); got[0] != "web@h1 restart: accepted" {
		t.Errorf("got %q", got)
	}
	r.await("the restart", func() bool { return fake.restarts("stargazer-web.service") == 1 })
	say(prefix+"b", OpPull, "web")
	if got := lines(prefix+"b", 1); !strings.HasPrefix(got[0], "web@h1 pull: ok (") {
		t.Errorf("got %q", got)
	}
	say(prefix+"c", OpRestart, "web")
	if got := lines(prefix+"c", 1); !strings.HasPrefix(got[0], "web@h1 restart: cooldown (") {
		t.Errorf("got %q", got)
	}
	if ttl := r.op.TTL(context.Background(), prefix+"a").Val(); ttl <= 0 {
		t.Errorf("the reply list has no life: %v", ttl)
	}
	time.Sleep(100 * time.Millisecond)
	if got := lines(prefix+"a", 1); len(got) != 1 {
		t.Errorf("got %q, want one line", got)
	}
	// An observer's line is the only one, too.
	watcher := newFakeHost()
	h2 := r.daemon("h2", watcher)
	h2.Config.Mode = fleet.ModeObserve
	r.start(h2)
	say(prefix+"d", OpRestart, "web@h2")
	if got := lines(prefix+"d", 1); got[0] != "web@h2 restart: skipped (would restart stargazer-web.service)" {
		t.Errorf("got %q", got)
	}
	// Without a reply key it is obeyed as well.
	r.publishRaw([]byte(`{"op":"restart","target":"agents"}`))
	r.await("the restart", func() bool { return fake.restarts("stargazer-agents.service") == 1 })
}

// TestForeignLock: an older service holds the pull lock; it is waited for, then
// the checkout is pulled, since it leaves no outcome.
func TestForeignLock(t *testing.T) {
	t.Parallel()
	r, _, fake := startOne(t, nil)
	key := r.cfg.Keys().Pull("h1", "/srv/app")
	r.op.Set(context.Background(), key, "web-h1:4f1c", time.Minute)
	op := r.send(OpPull, "web")
	time.Sleep(1200 * time.Millisecond)
	if n := fake.fetches("/srv/app"); n != 0 {
		t.Fatal("pulled beside an older service")
	}
	r.op.Del(context.Background(), key)
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != OK || a.Revision != rev(2) {
		t.Errorf("got %+v, want ok on %s", a, rev(2))
	}
}

func TestPullLock(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	ctx := t.Context()
	lock := func(instance, token string) *pullLock {
		return newPullLock(r.op, r.cfg.Keys(), "h1", "/srv/app", instance, token)
	}
	a, b := lock("web@h1", "ta"), lock("agents@h1", "tb")
	if held, _, at, err := a.TryLock(ctx, time.Minute); !held || at == 0 || err != nil {
		t.Fatalf("first: got %v, %d, %v", held, at, err)
	}
	if held, holder, _, err := b.TryLock(ctx, time.Minute); held || holder != (opsexec.PullHolder{Instance: "web@h1"}) || err != nil {
		t.Fatalf("second: got %v, %+v, %v", held, holder, err)
	}
	m.FastForward(2 * time.Minute)
	if held, _, _, _ := b.TryLock(ctx, time.Minute); !held {
		t.Fatal("not free after its life")
	}
	if err := a.Unlock(ctx); err != nil { // a's life ran out; the lock is b's
		t.Fatal(err)
	}
	if h, _ := a.Holder(ctx); h.Instance != "agents@h1" {
		t.Fatalf("a released b's lock: holder is %+v", h)
	}
	if err := b.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if h, _ := a.Holder(ctx); h != (opsexec.PullHolder{}) {
		t.Fatalf("not released: %+v", h)
	}
	for value, want := range map[string]opsexec.PullHolder{
		"web@h1:4f1c":       {Instance: "web@h1", Foreign: true},
		"stargazer-web:x:y": {Instance: "stargazer-web:x", Foreign: true},
		"plain":             {Instance: "plain", Foreign: true},
		"web@h1#2:sgf-1":    {Instance: "web@h1#2"},
		"":                  {},
	} {
		if got := parseHolder(value); got != want {
			t.Errorf("%q: got %+v, want %+v", value, got, want)
		}
	}
	if o, err := a.Outcome(ctx); o != nil || err != nil {
		t.Fatalf("got outcome %+v, %v, want none", o, err)
	}
	want := opsexec.PullOutcome{OpID: "x", Holder: "web@h1", Started: 5, Old: rev(1), New: rev(2)}
	if err := a.SetOutcome(ctx, want); err != nil {
		t.Fatal(err)
	}
	if o, err := b.Outcome(ctx); err != nil || *o != want {
		t.Fatalf("got %+v, %v, want %+v", o, err, want)
	}
	if m.TTL(r.cfg.Keys().Pulled("h1", "/srv/app")) <= 0 {
		t.Error("the outcome has no life")
	}
}

// A tier's done_timeout is all the time that the publisher gives a restart, so
// the wait for a pull comes out of it: the last word is said by then.
func TestPullCountsAgainstTheDoneTimeout(t *testing.T) {
	t.Parallel()
	const limit = 4 * time.Second // generous: the parts of a slow machine all take their share
	r, _, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		d.Config.Tiers = slices.Clone(d.Config.Tiers)
		for i := range d.Config.Tiers {
			d.Config.Tiers[i].DoneTimeout = fleet.Duration(limit)
		}
		f.unit("stargazer-web.service").takes = time.Hour
		f.unit("stargazer-gateway.service").takes = time.Hour
	})
	app, gw := fake.checkout("/srv/app"), fake.checkout("/srv/gw")
	fake.set(func() { app.takes, gw.takes = limit/2, time.Minute })
	for _, tc := range []struct {
		puller, service string
		want            Status
	}{{"agents", "web", Pending}, {"gateway", "gateway", Busy}} {
		dir := map[string]string{"web": "/srv/app", "gateway": "/srv/gw"}[tc.service]
		unlock := func() {}
		if tc.want == Busy { // somebody's pull that goes on for longer than that
			l, err := fake.Lock(t.Context(), opsexec.Checkout{Dir: dir}, opsexec.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			unlock = func() { _ = l.Unlock() }
		} else {
			r.send(OpPull, tc.puller)
			r.await("the fetch", func() bool { return fake.fetches(dir) == 1 })
		}
		op := r.makeOp(OpRestart, tc.service)
		r.release(op.ID, releaseGo)
		r.publish(op)
		a := r.finals(op.ID, 1)[tc.service+"@h1"]
		unlock()
		accepted := r.acks(op.ID)[0].At
		if took := a.At.Sub(accepted); a.Status != tc.want || took > limit+limit/2 {
			t.Errorf("%s: got %s (%s) after %v; want %s within %v", tc.service, a.Status, a.Detail, took, tc.want, limit)
		}
	}
}
