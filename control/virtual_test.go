package control

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// TestInVirtualTime plays the long faults with the production intervals, in one
// bubble: go-redis keeps timers in a global pool, so a process can run only one.
func TestInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		defer n.m.Close()
		r := newRig(t, "127.0.0.1:6379", n.dial)
		defer r.close()
		fake := newFakeHost()
		d := r.daemon("h1", fake)
		d.Log = nil
		r.start(d)
		reset(t, r, n, d)
		blackHole(t, r, n, d)
		outage(t, r, n, d)
		lockRunsOut(t, r, n, fake)
		holderDies(t, r, fake)
		late(t, r, fake)
		dispatched(t, r, fake)
	})
}

// reset: a connection that is reset, as by a restart of Redis or CLIENT KILL, is
// replaced within 2 s, time and again.
func reset(t *testing.T, r *rig, n *memnet, d *rigDaemon) {
	for range 5 {
		subs, began := d.Metrics.get(metricSubscribed), time.Now()
		n.cut()
		for d.Metrics.get(metricSubscribed) == subs {
			time.Sleep(10 * time.Millisecond)
		}
		if back := time.Since(began); back > 2*time.Second {
			t.Errorf("reset: subscribed after %v, want at most 2 s", back)
		}
	}
	if !r.hears() {
		t.Error("reset: deaf afterwards")
	}
}

// blackHole: noticed within 12 s of the last sign of life, subscribed again
// within 15 s, whether the network comes back at once or the first attempts
// fail.
func blackHole(t *testing.T, r *rig, n *memnet, d *rigDaemon) {
	time.Sleep(7 * time.Second) // somewhere between two pings
	subs := d.Metrics.get(metricSubscribed)
	began := time.Now()
	n.set(false, true)
	for d.Metrics.get(metricListening) == 1 {
		time.Sleep(10 * time.Millisecond)
	}
	noticed := time.Since(began)
	n.set(false, false)
	n.cut()
	for d.Metrics.get(metricSubscribed) == subs {
		time.Sleep(10 * time.Millisecond)
	}
	back := time.Since(began)
	t.Logf("black hole: noticed after %v, subscribed after %v", noticed, back)
	if noticed > 12*time.Second || back > 15*time.Second {
		t.Errorf("black hole: noticed after %v, subscribed after %v; want at most 12 s and 15 s", noticed, back)
	}
}

// outage: Redis is away for ten minutes; the daemon asks at most every 5 s and
// is back by itself.
func outage(t *testing.T, r *rig, n *memnet, d *rigDaemon) {
	subs := d.Metrics.get(metricSubscribed)
	n.set(true, false)
	n.cut()
	began := time.Now()
	n.mu.Lock()
	n.dials = nil
	n.mu.Unlock()
	time.Sleep(10 * time.Minute)
	n.mu.Lock()
	dials := len(n.dials)
	n.mu.Unlock()
	n.set(false, false)
	for d.Metrics.get(metricSubscribed) == subs {
		time.Sleep(10 * time.Millisecond)
	}
	back := time.Since(began) - 10*time.Minute
	t.Logf("outage: %d dials in 10 min, subscribed %v after redis was back", dials, back)
	if back > 5*time.Second {
		t.Errorf("subscribed %v after redis was back, want at most 5 s", back)
	}
	// 10 min / 2.5..5 s for the subscription; heartbeats dial, too, and from the
	// tenth failure on go-redis probes once a second.
	if dials < 100 || dials > 1500 {
		t.Errorf("got %d dials in ten minutes", dials)
	}
	r.await("the operator's pool to recover", func() bool { _, err := r.op.Now(t.Context()); return err == nil })
	if !r.hears() {
		t.Error("outage: deaf afterwards")
	}
}

// lockRunsOut: the pull takes longer than the life of its lock. The other
// service joins it all the same, since the flock is still held.
func lockRunsOut(t *testing.T, r *rig, n *memnet, fake *fakeHost) {
	c := fake.checkout("/srv/app")
	fake.set(func() { c.takes = 55 * time.Second })
	before := fake.fetches("/srv/app")
	op := r.send(OpPull, "web,agents")
	for fake.fetches("/srv/app") == before {
		time.Sleep(10 * time.Millisecond)
	}
	n.m.FastForward(2 * time.Minute) // every key of less life is gone
	got := r.finalsWithin(op.ID, 2, 3*time.Minute)
	if got["web@h1"].Status != Joined && got["agents@h1"].Status != Joined {
		t.Errorf("lock ran out: got %+v, want one joined", got)
	}
	if pulls := fake.fetches("/srv/app") - before; pulls != 1 || c.overlap {
		t.Errorf("lock ran out: got %d pulls (overlapping %v), want 1", pulls, c.overlap)
	}
	fake.set(func() { c.takes = time.Second })
}

// holderDies: a lock is there whose holder is not; its checkout is free. It is
// taken over, once, well before the lock's life ends.
func holderDies(t *testing.T, r *rig, fake *fakeHost) {
	dead := newPullLock(r.op, r.cfg.Keys(), "h1", "/srv/app", "agents@h1", "dead")
	if held, _, _, err := dead.TryLock(t.Context(), 90*time.Second); !held || err != nil {
		t.Fatalf("got %v, %v", held, err)
	}
	before := fake.fetches("/srv/app")
	began := time.Now()
	op := r.send(OpPull, "web,agents")
	got := r.finalsWithin(op.ID, 2, 3*time.Minute)
	t.Logf("dead holder: taken over after %v", time.Since(began))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("dead holder: taken over after %v", took)
	}
	for name, a := range got {
		if a.Status != OK && a.Status != Joined {
			t.Errorf("dead holder: %s: got %+v", name, a)
		}
	}
	if pulls := fake.fetches("/srv/app") - before; pulls != 1 {
		t.Errorf("dead holder: got %d pulls, want 1", pulls)
	}
}

// late: an op that reaches a second daemon of the host minutes after the first
// finds the pull done, and does not pull again.
func late(t *testing.T, r *rig, fake *fakeHost) {
	op := r.send(OpPull, "web")
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("first: got %+v", a)
	}
	before := fake.fetches("/srv/app")
	time.Sleep(4 * time.Second)
	again := r.makeOp(OpPull, "agents")
	again.IssuedAt = op.IssuedAt // the same broadcast, as it were
	again.ID = newID(again.IssuedAt, "late")
	r.publish(again)
	if a := r.finals(again.ID, 1)["agents@h1"]; a.Status != Joined {
		t.Errorf("late: got %+v, want joined", a)
	}
	if fake.fetches("/srv/app") != before {
		t.Error("late: pulled again")
	}
}

func TestBackoff(t *testing.T) {
	seen := map[time.Duration]bool{}
	for n := range 40 {
		d := backoff(100*time.Millisecond, 5*time.Second, n, "web@h1", n)
		if d < 50*time.Millisecond || d > 5*time.Second {
			t.Errorf("attempt %d: got %v, want 50 ms to 5 s", n, d)
		}
		seen[d] = true
	}
	if len(seen) < 38 {
		t.Errorf("got %d different waits in 40 attempts: no jitter", len(seen))
	}
	// Neighbours spread over the whole range.
	low := 0
	for n := range 1000 {
		if hashDuration(time.Second, fleet.Instance{Service: "web", Host: "h1", N: n + 1}.String()) < time.Second/2 {
			low++
		}
	}
	if low < 400 || low > 600 {
		t.Errorf("%d of 1000 in the lower half, want about 500", low)
	}
	if hashDuration(0, "x") != 0 {
		t.Error("a limit of zero: want zero")
	}
}

func TestOneOpPerName(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("registering an op twice: got no panic")
		}
	}()
	registerOp(opSpec{Name: OpPing})
}

func TestDaemonNeeds(t *testing.T) {
	if err := (&Daemon{}).Run(t.Context()); err == nil || errors.Is(err, errTwoHosts) {
		t.Errorf("an empty Daemon: got %v, want an error", err)
	}
}
