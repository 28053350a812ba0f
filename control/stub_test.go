package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// stubFleet is a fleet of instances that answer as a test tells them to, on a
// Redis of its own. It speaks the protocol without any of the daemon's code.
type stubFleet struct {
	t      *testing.T
	srv    *redistest.Server
	cfg    *fleet.Config
	client *redis.Client // of the stubs
	d      *Dispatcher

	mu  sync.Mutex
	ops []Op // every op that was delivered
}

// newStubFleet starts a redis-server and a dispatcher on it. Reply window and
// done timeout are long, for the stubs of a slow machine; a test in which
// somebody stays silent sets shorter ones, and waits for them.
func newStubFleet(t *testing.T, instances ...string) *stubFleet {
	t.Helper()
	srv := redistest.Start(t)
	cfg := fleet.Default()
	cfg.Redis.URL = "redis://" + srv.Addr
	cfg.ControlReplyTimeout = fleet.Seconds(20 * time.Second)
	cfg.Splay, cfg.Settle = 0, 0
	f := &stubFleet{t: t, srv: srv, cfg: cfg, client: srv.Client()}
	f.d = f.dispatcher(srv.Addr)
	for _, name := range instances {
		f.beat(name, nil)
	}
	return f
}

func (f *stubFleet) dispatcher(addr string) *Dispatcher {
	f.t.Helper()
	cfg := *f.cfg
	cfg.Redis.URL = "redis://" + addr
	c, err := Connect(&cfg, ConnectOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	n := 0
	return &Dispatcher{
		Config: f.cfg, Client: c, Log: slog.New(slog.DiscardHandler),
		Identity: Identity{Token: func() string { n++; return f.t.Name() + strings.Repeat("x", n) }},
	}
}

func (f *stubFleet) now() fleet.Time {
	f.t.Helper()
	// Not the test's context: a stub may still answer when the test is over.
	now, err := f.client.Time(context.Background()).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return fleet.TimeOf(now)
}

// beat writes a healthy heartbeat, or what change makes of it.
func (f *stubFleet) beat(instance string, change func(*fleet.Heartbeat)) {
	f.t.Helper()
	i, err := fleet.ParseInstance(instance)
	if err != nil {
		f.t.Fatal(err)
	}
	now := f.now()
	h := fleet.Heartbeat{
		Instance: instance, Service: i.Service, Host: i.Host, Tier: f.cfg.TierOf(i.Service), Unit: "stargazer-" + i.Service + ".service",
		InvocationID: "before", ActiveState: "active", ControlledBy: fleet.ByHost, Mode: fleet.ModeAct,
		SubscribedSince: now.Add(-time.Minute), Started: now.Add(-time.Hour), DoneTimeoutMS: 20_000, IntervalMS: 10_000, At: now,
	}
	if change != nil {
		change(&h)
	}
	b, _ := json.Marshal(h)
	if err := f.client.HSet(context.Background(), f.cfg.Keys().Live(), instance, b).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// serve subscribes and calls respond, in one goroutine, for each op that is
// delivered. It returns when the subscription is confirmed.
func (f *stubFleet) serve(respond func(op Op)) {
	f.t.Helper()
	sub := f.client.Subscribe(f.t.Context(), f.cfg.Keys().Channel())
	if _, err := sub.Receive(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := sub.ReceiveMessage(context.Background())
			if err != nil {
				return
			}
			op, err := Decode([]byte(m.Payload), f.cfg)
			if err != nil {
				f.t.Errorf("the dispatcher published %s: %v", m.Payload, err)
				continue
			}
			f.mu.Lock()
			f.ops = append(f.ops, op)
			f.mu.Unlock()
			respond(op)
		}
	}()
	f.t.Cleanup(func() { sub.Close(); <-done })
}

// op waits for the op that was published.
func (f *stubFleet) op() Op {
	f.t.Helper()
	for began := time.Now(); f.delivered() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			f.t.Fatal("no op was delivered")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops[0]
}

// delivered returns how many ops have reached the stubs.
func (f *stubFleet) delivered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

func (f *stubFleet) push(op Op, a Ack) {
	a.ID = op.ID
	if a.At == 0 {
		a.At = f.now()
	}
	b, _ := json.Marshal(a)
	f.pushRaw(f.cfg.Keys().Reply(op.ID), string(b))
}

func (f *stubFleet) pushRaw(key, raw string) {
	_, err := f.client.TxPipelined(context.Background(), func(p redis.Pipeliner) error {
		p.RPush(context.Background(), key, raw)
		p.Expire(context.Background(), key, ReplyLife)
		return nil
	})
	if err != nil && !errors.Is(err, redis.ErrClosed) {
		f.t.Errorf("pushing %s: %v", raw, err)
	}
}

func (f *stubFleet) accept(op Op, instances ...string) {
	for _, i := range instances {
		f.push(op, Ack{Instance: i, Phase: Accepted, Status: Pending})
	}
}

func (f *stubFleet) done(op Op, status Status, instances ...string) {
	for _, i := range instances {
		f.push(op, Ack{Instance: i, Phase: Done, Status: status, Revision: "0123456789abcdef"})
	}
}

// awaitRelease polls for the op's release as a gateway does. It looks at least
// once, also when the time is over before it gets to that.
func (f *stubFleet) awaitRelease(op Op, timeout time.Duration) string {
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		if v, err := f.client.Get(context.Background(), f.cfg.Keys().Release(op.ID)).Result(); err == nil {
			return v
		}
		if time.Now().After(deadline) {
			return ""
		}
	}
}

// messages is a send that keeps what it was given.
type messages struct {
	mu  sync.Mutex
	all []string
}

func (m *messages) send(_ context.Context, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, text)
	return nil
}

func (m *messages) list() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

// want compares the classes of a report's instances, written "class: a, b".
func wantClasses(t *testing.T, r *Report, want map[Class][]string) {
	t.Helper()
	if r == nil {
		t.Fatal("no report")
	}
	seen := map[string]int{}
	for _, i := range r.Instances {
		seen[i.Instance]++
	}
	total := 0
	for _, class := range Classes {
		var got []string
		for _, i := range r.Instances {
			if i.Class == class {
				got = append(got, i.Instance)
			}
		}
		slices.Sort(got)
		w := slices.Sorted(slices.Values(want[class]))
		if !slices.Equal(got, w) {
			t.Errorf("%s: got %v; want %v\n%s", class, got, w, strings.Join(r.Text(), "\n---\n"))
		}
		if n := r.Counts.Of(class); n != len(w) {
			t.Errorf("count of %s: got %d; want %d", class, n, len(w))
		}
		total += len(got)
	}
	if total != len(r.Instances) || len(seen) != len(r.Instances) {
		t.Errorf("%d instances in classes, %d names, %d in the report: want each exactly once", total, len(seen), len(r.Instances))
	}
}

// resultOf returns an instance's result.
func resultOf(t *testing.T, r *Report, instance string) Result {
	t.Helper()
	for _, i := range r.Instances {
		if i.Instance == instance {
			return i
		}
	}
	t.Fatalf("%s is not in the report", instance)
	return Result{}
}
