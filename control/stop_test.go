package control

import (
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// TestStopWithQueuedOps: the running op ends and is reported, what waits is
// reported as left undone, nothing new begins.
func TestStopWithQueuedOps(t *testing.T) {
	t.Parallel()
	restarted := make(chan struct{})
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		f.unit("stargazer-web.service").until = restarted
	})
	running := r.send(OpRestart, "web")
	r.await("the restart to begin", func() bool { return fake.restarts("stargazer-web.service") == 1 })
	queued := r.send(OpRestart, "web")
	waiting := r.send(OpRestart, "gateway")
	r.await("both to be accepted", func() bool { return len(r.acks(queued.ID))+len(r.acks(waiting.ID)) == 2 })
	d.cancel()
	close(restarted)
	<-d.ended
	if d.err != nil {
		t.Errorf("Run: got %v, want nil", d.err)
	}
	if a := r.finals(running.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("running op: got %+v, want ok", a)
	}
	for id, inst := range map[string]string{queued.ID: "web@h1", waiting.ID: "gateway@h1"} {
		if a := r.finals(id, 1)[inst]; a.Phase != Refused || a.Status != Busy {
			t.Errorf("op that waited, %s: got %+v, want refused as busy", inst, a)
		}
	}
	if n := fake.restarts("stargazer-web.service") + fake.restarts("stargazer-gateway.service"); n != 1 {
		t.Errorf("got %d restarts, want 1", n)
	}
}

// TestIdle: a daemon is idle when what it has accepted has ended: the running,
// the queued, and the gateway that waits for its release.
func TestIdle(t *testing.T) {
	t.Parallel()
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		f.unit("stargazer-web.service").takes = 200 * time.Millisecond
	})
	<-d.Idle()
	ops := []Op{r.send(OpRestart, "web"), r.send(OpRestart, "web"), r.send(OpRestart, "gateway")}
	r.await("all to be accepted", func() bool {
		return len(r.acks(ops[0].ID)) > 0 && len(r.acks(ops[1].ID)) > 0 && len(r.acks(ops[2].ID)) > 0
	})
	idle := d.Idle()
	r.finals(ops[1].ID, 1)
	select {
	case <-idle:
		t.Error("idle while the gateway waits")
	default:
	}
	r.release(ops[2].ID, "go")
	<-idle
	if n := fake.restarts("stargazer-web.service") + fake.restarts("stargazer-gateway.service"); n != 3 {
		t.Errorf("idle after %d restarts, want 3", n)
	}
	<-d.Idle()
}

// TestStartsOutliveDaemon: the daemon that a reload begins knows of the starts
// that the one before it made.
func TestStartsOutliveDaemon(t *testing.T) {
	t.Parallel()
	starts := &opsexec.StartBudget{}
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		u := f.unit("stargazer-web.service")
		u.StartLimitBurst, u.StartLimitInterval = 2, time.Hour
		d.Starts = starts
	})
	if a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]; a.Status != OK {
		t.Fatalf("got %+v, want ok", a)
	}
	d.stop()
	next := r.daemon("h1", fake)
	next.Starts = starts
	r.start(next)
	if a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]; a.Status != Busy || !strings.Contains(a.Detail, "would stop it for good") {
		t.Errorf("got %+v, want busy: the budget is spent", a)
	}
}

// TestCooldownOutlivesDaemon: so does what is to be done again only later.
func TestCooldownOutlivesDaemon(t *testing.T) {
	t.Parallel()
	cooldown := &opsexec.Cooldown{}
	r, d, fake := startOne(t, func(d *rigDaemon, _ *fakeHost) {
		d.Config.Cooldown = fleet.Duration(time.Hour)
		d.Cooldown = cooldown
	})
	if a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]; a.Status != OK {
		t.Fatalf("got %+v, want ok", a)
	}
	d.stop()
	next := r.daemon("h1", fake)
	next.Config.Cooldown = fleet.Duration(time.Hour)
	next.Cooldown = cooldown
	r.start(next)
	if a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]; a.Status != InCooldown {
		t.Errorf("got %+v, want cooldown", a)
	}
	if n := fake.restarts("stargazer-web.service"); n != 1 {
		t.Errorf("%d restarts, want 1", n)
	}
}

// TestStopDoesNotWaitForEver: an op that outlasts the grace is cut off and
// reported.
func TestStopDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		f.checkout("/srv/app").takes = time.Hour
		d.Tuning.StopGrace = 200 * time.Millisecond
	})
	op := r.send(OpPull, "web")
	r.await("the fetch", func() bool { return fake.fetches("/srv/app") == 1 })
	began := time.Now()
	d.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != Failed {
		t.Errorf("got %+v, want failed", a)
	}
}

// TestDownAtPublish: whoever is not there when an op is published never
// executes it, however it went away.
func TestDownAtPublish(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fakes := map[string]*fakeHost{"h1": newFakeHost(), "h2": newFakeHost(), "h3": newFakeHost()}
	ds := map[string]*rigDaemon{}
	for _, h := range []string{"h1", "h2", "h3"} {
		ds[h] = r.start(r.daemon(h, fakes[h]))
	}
	ds["h2"].stop()
	// h3 dies: the connection is gone, the process with it, no goodbye.
	ds["h3"].Client.Close()
	ds["h3"].cancel()
	<-ds["h3"].ended
	op := r.send(OpRestart, "web")
	if got := r.finals(op.ID, 1); len(got) != 1 || got["web@h1"].Status != OK {
		t.Errorf("got %+v, want web@h1 only", got)
	}
	for _, h := range []string{"h2", "h3"} {
		r.start(r.daemon(h, fakes[h]))
	}
	after := r.send(OpPing, "web")
	r.finals(after.ID, 3)
	if got := r.finals(op.ID, 1); len(got) != 1 {
		t.Errorf("after they are back: got %+v, want web@h1 only", got)
	}
	for h, want := range map[string]int{"h1": 1, "h2": 0, "h3": 0} {
		if n := fakes[h].restarts("stargazer-web.service"); n != want {
			t.Errorf("%s: got %d restarts, want %d", h, n, want)
		}
	}
	// They are still in the registry, and so still expected.
	if n := len(r.registry()); n != 3*4 {
		t.Errorf("got %d instances in the registry, want 12", n)
	}
}

// TestTwoHostsOfOneName: the second is refused while the first is alive.
func TestTwoHostsOfOneName(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	first := r.start(r.daemon("h1", newFakeHost()))
	second := func() *rigDaemon {
		d := r.daemon("h1", newFakeHost())
		d.Identity.MachineID = "another"
		return d
	}
	d := second()
	d.begin(r)
	<-d.ended
	if !errors.Is(d.err, errTwoHosts) || !strings.Contains(d.err.Error(), "machine-h1") {
		t.Errorf("got %v, want an error that names the other machine", d.err)
	}
	first.stop()
	for name, h := range r.registry() { // time passes
		h.At = h.At.Add(-time.Hour)
		b, _ := json.Marshal(h)
		r.op.HSet(t.Context(), r.cfg.Keys().Live(), name, b)
	}
	r.start(second())
}

// TestTwoControllers of one unit on one machine are shown as DEGRADED.
func TestTwoControllers(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	for pid := range 2 {
		d := r.daemon("h1", newFakeHost())
		d.Identity.PID = 100 + pid
		d.Config.HeartbeatInterval = fleet.Duration(200 * time.Millisecond)
		r.start(d)
	}
	r.await("the registry to say so", func() bool {
		return strings.Contains(r.registry()["web@h1"].Degraded, "another daemon controls it")
	})
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		d.Config.HeartbeatInterval = fleet.Duration(200 * time.Millisecond)
		f.unit("stargazer-agents.service").LoadState = "masked"
	})
	if _, err := fleet.SetHold(t.Context(), r.op, r.cfg.Keys(), fleet.Hold{Target: "agents", By: "me", Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	r.await("the hold to show", func() bool { return strings.Contains(r.registry()["agents@h1"].Held, "why") })
	h := r.registry()["web@h1"]
	want := fleet.Heartbeat{
		Instance: "web@h1", Service: "web", Tier: "web", Host: "h1", MachineID: "machine-h1", Unit: "stargazer-web.service",
		Version: "v-test", PID: 100, InvocationID: fake.unit("stargazer-web.service").InvocationID, ActiveState: "active",
		Result: "success", RunningRevision: rev(1), Checkout: "/srv/app", CheckoutRevision: rev(1),
		Started: h.Started, SubscribedSince: h.SubscribedSince, ControlledBy: "host", Mode: "act",
		DoneTimeoutMS: 183_010, IntervalMS: 200, At: h.At,
	}
	if h != want || h.Started == 0 || h.SubscribedSince == 0 || h.At == 0 {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	if got := r.registry()["agents@h1"].Degraded; !strings.Contains(got, "masked") {
		t.Errorf("masked unit: got degraded %q", got)
	}
	// What ran on which revision is remembered across daemons.
	app := fake.checkout("/srv/app")
	fake.set(func() { app.head = 1 })
	d.stop()
	next := r.daemon("h1", fake)
	next.Config.HeartbeatInterval = d.Config.HeartbeatInterval
	r.start(next)
	if h := r.registry()["web@h1"]; h.RunningRevision != rev(1) || h.CheckoutRevision != rev(2) {
		t.Errorf("got running %s, checkout %s, want %s and %s", h.RunningRevision, h.CheckoutRevision, rev(1), rev(2))
	}
}

// While a daemon ends its ops nobody reads, and systemd's watchdog is fed all
// the same: on a reload the unit goes on being watched.
func TestWatchdogIsFedWhileStopping(t *testing.T) {
	t.Parallel()
	var fed atomic.Int64
	r, d, fake := startOne(t, func(d *rigDaemon, f *fakeHost) {
		f.checkout("/srv/app").takes = 2*watchdogEvery + watchdogEvery/2
		d.Notify = func(state string) {
			if state == "WATCHDOG=1" {
				fed.Add(1)
			}
		}
	})
	op := r.send(OpPull, "web")
	r.await("the fetch", func() bool { return fake.fetches("/srv/app") == 1 })
	before := fed.Load()
	began := time.Now()
	d.stop()
	took := time.Since(began)
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("got %+v, want ok", a)
	}
	if n := fed.Load() - before; n < int64(took/watchdogEvery) || took < watchdogEvery {
		t.Errorf("fed %d times in the %v that stopping took; want every %v", n, took, watchdogEvery)
	}
}
