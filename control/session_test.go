package control

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// TestMain finds what is left behind: every goroutine has an owner, and ends
// before its Run returns. go-redis leaves nothing when its clients are closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ping publishes an op that is answered at once, and says whether anybody was
// subscribed.
func (r *rig) ping() (id string, sent bool) {
	r.t.Helper()
	op := r.makeOp(OpPing, "web")
	b, err := op.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	n, err := r.op.Publish(context.Background(), r.cfg.Keys().Channel(), b).Result()
	return op.ID, err == nil && n > 0
}

func (r *rig) answered(id string) bool {
	n, err := r.op.LLen(context.Background(), r.cfg.Keys().Reply(id)).Result()
	return err == nil && n > 0
}

// hears reports whether an op gets through to the daemon just now: whoever is
// subscribed has to answer.
func (r *rig) hears() bool {
	r.t.Helper()
	id, sent := r.ping()
	if sent {
		r.await("an answer to a ping that was delivered", func() bool { return r.answered(id) })
	}
	return sent
}

// hearsAgain waits until an op gets through; those that are lost meanwhile are
// lost. How soon that has to be is tested in virtual time.
func (r *rig) hearsAgain() time.Duration {
	r.t.Helper()
	began := time.Now()
	var sent []string
	r.await("an op to get through", func() bool {
		if len(sent) == 0 || time.Since(began) > time.Duration(len(sent))*20*time.Millisecond {
			if id, ok := r.ping(); ok {
				sent = append(sent, id)
			}
		}
		return slices.ContainsFunc(sent, r.answered)
	})
	return time.Since(began)
}

func TestRedisKillsSubscribers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := newRig(t, s.Addr, nil)
	d := r.start(r.daemon("h1", newFakeHost()))
	for range 5 {
		s.Do("client", "kill", "type", "pubsub")
		r.hearsAgain()
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
	r.hearsAgain()
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
	var status atomic.Value
	d.Notify = func(s string) {
		if text, ok := strings.CutPrefix(s, "STATUS="); ok {
			status.Store(text)
		}
	}
	r.start(d)

	s.Do("acl", "setuser", "daemon", "resetchannels")
	r.await("the registry to show it deaf", func() bool {
		h := r.registry()["web@h1"]
		return h.DeafSince != 0 && h.SubscribedSince == 0
	})
	if r.hears() {
		t.Fatal("hears although it may not subscribe")
	}
	r.await("systemctl status to say so", func() bool { return status.Load() == "not subscribed, trying again" })
	s.Do("acl", "setuser", "daemon", "&sg:channel:control")
	t.Logf("back after %v", r.hearsAgain())
	r.await("systemctl status to say so", func() bool { return status.Load() == "subscribed, serving 3 services" })
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
	case <-time.After(patience):
		t.Fatal("not ready although it may subscribe")
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
	r.hearsAgain()
	before := descriptors(t)
	for n := int64(1); n <= 50; n++ {
		s.Do("client", "kill", "type", "pubsub")
		r.await("a new subscription", func() bool { return d.Metrics.get(metricSubscribed) > n })
	}
	r.hearsAgain()
	// s.Do keeps a client open for each call until the test ends: 50 of them. The
	// pools may hold a few more connections than before, but not one for each time.
	r.await("the descriptors of 50 reconnects to be closed", func() bool { return descriptors(t) <= before+50+10 })
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(fds)
}
