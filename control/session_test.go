package control

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// TestMain finds what is left behind: every goroutine has an owner, and ends
// before its Run returns. go-redis leaves nothing when its clients are closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hears reports whether an op gets through to the daemon just now.
func (r *rig) hears() bool {
	r.t.Helper()
	op := r.makeOp(OpPing, "web")
	b, err := op.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if n, err := r.op.Publish(ctx, r.cfg.Keys().Channel(), b).Result(); err != nil || n == 0 {
		return false
	}
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; time.Sleep(2 * time.Millisecond) {
		if n, err := r.op.LLen(ctx, r.cfg.Keys().Reply(op.ID)).Result(); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// hearsAgain measures how long it takes until an op gets through.
func (r *rig) hearsAgain(limit time.Duration) time.Duration {
	r.t.Helper()
	began := time.Now()
	for !r.hears() {
		if time.Since(began) > limit+10*time.Second {
			r.t.Fatalf("still deaf after %v", time.Since(began))
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(began)
	if took > limit {
		r.t.Errorf("hears again after %v, want at most %v", took, limit)
	}
	return took
}

func TestRedisKillsSubscribers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := newRig(t, s.Addr, nil)
	d := r.start(r.daemon("h1", newFakeHost()))
	for range 5 {
		s.Do("client", "kill", "type", "pubsub")
		r.hearsAgain(2 * time.Second)
	}
	if got := d.Metrics.get(metricSubscribed); got < 6 {
		t.Errorf("got %d subscriptions, want at least 6", got)
	}
	r.await("the registry shows a subscription", func() bool { return r.registry()["web@h1"].SubscribedSince != 0 })
}

func TestRedisRestartsAndIsFlushed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	d.Config.HeartbeatInterval = 1e9
	r.start(d)
	s.Restart()
	r.hearsAgain(6 * time.Second)
	s.Do("flushall")
	if !r.hears() {
		t.Error("deaf after FLUSHALL")
	}
	r.await("a heartbeat after FLUSHALL", func() bool { _, ok := r.registry()["web@h1"]; return ok })
	op := r.send(OpRestart, "web")
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("restart after FLUSHALL: got %+v", a)
	}
}

// TestSubscribeRefused revokes the channel from a daemon's ACL user: Redis then
// answers SUBSCRIBE with NOPERM and leaves the connection open, which go-redis
// takes for a good subscription.
func TestSubscribeRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("acl", "setuser", "daemon", "on", ">pw", "~*", "resetchannels", "&sg:channel:control", "+@all")
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	d.Config.Redis.Username, d.Config.Redis.Password = "daemon", "pw"
	d.Config.HeartbeatInterval = 300e6
	r.start(d)

	s.Do("acl", "setuser", "daemon", "resetchannels")
	r.await("the registry to show it deaf", func() bool {
		h := r.registry()["web@h1"]
		return h.DeafSince != 0 && h.SubscribedSince == 0
	})
	if r.hears() {
		t.Fatal("hears although it may not subscribe")
	}
	s.Do("acl", "setuser", "daemon", "&sg:channel:control")
	t.Logf("back after %v", r.hearsAgain(10*time.Second))
}

// TestNotReadyWhileRefused: a daemon that never could subscribe is not ready.
func TestNotReadyWhileRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("acl", "setuser", "default", "resetchannels")
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	var mu sync.Mutex
	var states []string
	d.Notify = func(s string) { mu.Lock(); defer mu.Unlock(); states = append(states, s) }
	d.begin(r)
	select {
	case <-d.Ready():
		t.Fatal("ready without a subscription")
	case <-time.After(700 * time.Millisecond):
	}
	if n := len(r.registry()); n != 0 {
		t.Errorf("%d instances in the registry, want none before the subscription", n)
	}
	s.Do("acl", "setuser", "default", "allchannels")
	select {
	case <-d.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("not ready 10 s after it may subscribe")
	}
	d.stop()
	for _, want := range []string{"READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=waiting for redis"} {
		found := false
		for _, s := range states {
			found = found || s == want
		}
		if !found {
			t.Errorf("systemd was not told %s, got %q", want, states)
		}
	}
}

// TestFiftyReconnects compares descriptors; goleak watches the goroutines.
func TestFiftyReconnects(t *testing.T) {
	s := redistest.Start(t)
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	d.Tuning = Tuning{BackoffFirst: 2 * time.Millisecond, BackoffMost: 10 * time.Millisecond}
	r.start(d)
	r.hearsAgain(2 * time.Second)
	before := descriptors(t)
	for n := int64(1); n <= 50; n++ {
		s.Do("client", "kill", "type", "pubsub")
		r.await("a new subscription", func() bool { return d.Metrics.get(metricSubscribed) > n })
	}
	r.hearsAgain(2 * time.Second)
	// s.Do keeps a client open for each call until the test ends: 50 of them.
	if after := descriptors(t); after > before+50+2 {
		t.Errorf("got %d descriptors after 50 reconnects, want at most %d", after, before+52)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(fds)
}
