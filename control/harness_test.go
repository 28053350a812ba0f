package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// patience is how long a test waits for what must come, however slow the
// machine is. Nothing waits for it that passes.
const patience = time.Minute

// rig is a Redis, an operator's client and any number of daemons, for one test.
type rig struct {
	t    *testing.T
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	addr string
	cfg  *fleet.Config
	op   *Client // the operator's
	ids  int

	mu      sync.Mutex
	daemons []*rigDaemon
}

type rigDaemon struct {
	*Daemon
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// newRig prepares a fleet with the two services web and agents on one checkout
// and the gateway on its own.
func newRig(t *testing.T, addr string, dial func(context.Context, string, string) (net.Conn, error)) *rig {
	cfg := fleet.Default()
	cfg.Redis.URL = "redis://" + addr
	cfg.Services = map[string]fleet.Service{
		"web":     {Tier: "web", Checkout: "/srv/app"},
		"agents":  {Tier: "agents", Checkout: "/srv/app"},
		"gateway": {Tier: "gateway", Checkout: "/srv/gw"},
	}
	cfg.Splay = fleet.Duration(20 * time.Millisecond)
	cfg.Settle = fleet.Duration(10 * time.Millisecond)
	cfg.Cooldown = 0
	r := &rig{t: t, addr: addr, dial: dial, cfg: cfg}
	r.op = r.connect(cfg, "operator")
	t.Cleanup(r.close)
	return r
}

func (r *rig) connect(cfg *fleet.Config, name string) *Client {
	r.t.Helper()
	c, err := Connect(cfg, ConnectOptions{Dialer: r.dial, Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// close ends everything, in order; a second call does nothing.
func (r *rig) close() {
	r.mu.Lock()
	ds := r.daemons
	r.daemons = nil
	r.mu.Unlock()
	for _, d := range ds {
		d.stop()
	}
	if r.op != nil {
		r.op.Close()
		r.op = nil
	}
}

// daemon prepares the daemon of a host; start starts it.
func (r *rig) daemon(host string, fake *fakeHost) *rigDaemon {
	cfg := *r.cfg
	cfg.Host = host
	fake.checkout("/srv/app")
	fake.checkout("/srv/gw")
	var tokens atomic.Int64
	return &rigDaemon{
		Daemon: &Daemon{
			Config: &cfg, Version: "v-test", Exec: fake.exec, Tree: fake, Units: fake,
			Identity: Identity{
				Host: host, PID: 100, MachineID: "machine-" + host, InvocationID: "inv-" + host,
				Token: func() string { return fmt.Sprintf("%s%024d", host, tokens.Add(1)) },
				Wall:  time.Now,
			},
			Metrics: &Metrics{}, Log: slog.New(slog.NewTextHandler(logTo{r.t}, nil)),
		},
	}
}

type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (r *rig) start(d *rigDaemon) *rigDaemon {
	r.t.Helper()
	d.begin(r)
	select {
	case <-d.Ready():
	case <-d.ended:
		r.t.Fatalf("daemon of %s ended: %v", d.Identity.Host, d.err)
	case <-time.After(patience):
		r.t.Fatalf("daemon of %s not ready", d.Identity.Host)
	}
	return d
}

// begin starts the daemon without waiting for it.
func (d *rigDaemon) begin(r *rig) {
	d.Client = r.connect(d.Config, "daemon")
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.ended = cancel, make(chan struct{})
	go func() {
		defer close(d.ended)
		d.err = d.Run(ctx)
		d.Client.Close()
	}()
	r.mu.Lock()
	r.daemons = append(r.daemons, d)
	r.mu.Unlock()
}

func (d *rigDaemon) stop() {
	d.cancel()
	<-d.ended
}

// op makes an op as a publisher would.
func (r *rig) makeOp(name, target string) Op {
	r.t.Helper()
	now, err := r.op.Now(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	r.ids++
	return Op{
		V: Version, ID: newID(now, fmt.Sprint(r.t.Name(), r.ids)), Op: name, Target: target, RequestedBy: "test",
		IssuedAt: now, ExpiresAt: now.Add(30 * time.Second),
		Args: Args{GatewayDeadline: now.Add(60 * time.Second)},
	}
}

// publish sends an op as it is and returns how many received it.
func (r *rig) publish(op Op) int64 {
	r.t.Helper()
	b, err := op.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.publishRaw(b)
}

func (r *rig) publishRaw(b []byte) int64 {
	r.t.Helper()
	n, err := r.op.Publish(context.Background(), r.cfg.Keys().Channel(), b).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// send makes and publishes an op.
func (r *rig) send(name, target string) Op {
	r.t.Helper()
	op := r.makeOp(name, target)
	r.publish(op)
	return op
}

// acks reads what was answered so far.
func (r *rig) acks(id string) []Ack {
	r.t.Helper()
	raw, err := r.op.LRange(context.Background(), r.cfg.Keys().Reply(id), 0, -1).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	var acks []Ack
	for _, s := range raw {
		var a Ack
		if err := json.Unmarshal([]byte(s), &a); err != nil {
			r.t.Fatalf("ack %q: %v", s, err)
		}
		acks = append(acks, a)
	}
	return acks
}

// finals waits until n instances have given their final ack, and returns it by
// instance.
func (r *rig) finals(id string, n int) map[string]Ack {
	r.t.Helper()
	return r.finalsWithin(id, n, patience)
}

func (r *rig) finalsWithin(id string, n int, limit time.Duration) map[string]Ack {
	r.t.Helper()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		got := map[string]Ack{}
		for _, a := range r.acks(id) {
			if _, ok := got[a.Instance]; !ok && a.Phase != Accepted {
				got[a.Instance] = a
			}
		}
		if len(got) >= n {
			return got
		}
		if time.Since(began) > limit {
			r.t.Fatalf("op %s: got %d final acks after %v, want %d: %+v", id, len(got), limit, n, r.acks(id))
		}
	}
}

func (r *rig) release(id, word string) {
	r.t.Helper()
	if err := r.op.Set(context.Background(), r.cfg.Keys().Release(id), word, ReplyLife).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// await polls until what is true.
func (r *rig) await(what string, f func() bool) {
	r.t.Helper()
	for began := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			r.t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

func (r *rig) registry() map[string]fleet.Heartbeat {
	r.t.Helper()
	reg, err := fleet.ReadRegistry(context.Background(), r.op, r.cfg.Keys())
	if err != nil {
		r.t.Fatal(err)
	}
	got := map[string]fleet.Heartbeat{}
	for _, h := range reg.Beats {
		got[h.Instance] = h
	}
	return got
}

func (r *rig) listLength(key string) int64 {
	n, err := r.op.LLen(context.Background(), key).Result()
	if err != nil && err != redis.Nil {
		r.t.Fatal(err)
	}
	return n
}
