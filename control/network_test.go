package control

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// TestBlackHole is the half-open connection: it stays open and nothing passes.
// go-redis's own reader does not notice for 15 minutes.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.NewProxy(t, s.Addr)
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	d.Config.Redis.URL = "redis://" + p.Addr
	if os.Getenv("SGFLEET_SOAK") == "" {
		// The real numbers are tested in virtual time.
		d.Tuning = Tuning{SilencePing: 500 * time.Millisecond, SilenceClose: 1200 * time.Millisecond}
	}
	r.start(d)
	p.Silence(true)
	began := time.Now()
	// Soon enough for this test's patience; how soon is tested in virtual time.
	r.await("the daemon to notice", func() bool { return d.Metrics.get(metricListening) == 0 })
	noticed := time.Since(began)
	p.Silence(false)
	p.Cut()
	t.Logf("noticed after %v, back %v after the network was", noticed, r.hearsAgain())
}

// TestMasterChanges: after a failover the old master is still there, and still
// answers PING. The daemon subscribes where its pool connects to by now.
func TestMasterChanges(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	var master atomic.Value
	master.Store(a.Addr)
	r := newRig(t, a.Addr, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, master.Load().(string))
	})
	d := r.daemon("h1", newFakeHost())
	d.Config.HeartbeatInterval = fleet.Duration(200 * time.Millisecond)
	r.start(d)
	master.Store(b.Addr)
	a.Do("client", "kill", "type", "normal") // as go-redis does with its pool
	r.hearsAgain()
}

// delayed hands on what a subscription hears late by its own delay.
type delayed struct {
	net.Conn
	by time.Duration
}

func (d delayed) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if bytes.Contains(b[:n], []byte("message")) {
		time.Sleep(d.by)
	}
	return n, err
}

// TestDeliveredLate: 40 instances on 8 hosts hear of a pull 0 to 5 s late, each
// in its own process, five to a checkout. Every checkout is pulled once.
func TestDeliveredLate(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := newRig(t, s.Addr, nil)
	services := []string{"a", "b", "c", "d", "e"}
	r.cfg.Services = map[string]fleet.Service{}
	for _, name := range services {
		r.cfg.Services[name] = fleet.Service{Tier: "web", Checkout: "/srv/app"}
	}
	r.cfg.Splay = fleet.Duration(2 * time.Second)
	fakes := map[string]*fakeHost{}
	for h := range 8 {
		host := fmt.Sprintf("h%d", h+1)
		fakes[host] = newFakeHost()
		for _, service := range services {
			d := r.daemon(host, fakes[host])
			d.Services, d.Log = []string{service}, nil
			by := hashDuration(5*time.Second, host, service)
			r.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return delayed{c, by}, nil
			}
			r.start(d)
		}
	}
	op := r.send(OpPull, "all")
	ok := 0
	for name, a := range r.finals(op.ID, 40) {
		switch {
		case a.Revision != rev(2):
			t.Errorf("%s: got %+v, want revision %s", name, a, rev(2))
		case a.Status == OK:
			ok++
		case a.Status != Joined:
			t.Errorf("%s: got %+v, want ok or joined", name, a)
		}
	}
	if ok != 8 {
		t.Errorf("got %d pulls reported, want one for each of 8 hosts", ok)
	}
	for host, f := range fakes {
		if n := f.fetches("/srv/app"); n != 1 {
			t.Errorf("%s: got %d pulls, want 1", host, n)
		}
	}
}
