package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// Options says how a plan is run, beside what happens in it.
type Options struct {
	// RedisURL, when set, runs in real time against the server there.
	RedisURL string
	// OwnServer says that the server at RedisURL is this run's alone: the
	// plan's key prefix stays as it is. Otherwise the run gets one of its own.
	OwnServer bool

	Commands bool        // log every Redis command (EvCommand)
	OnEvent  func(Event) // called with every event as it is recorded, may be nil
}

// Result is what a run leaves behind.
type Result struct {
	Seed     int64
	Events   []Event
	Hash     string        // of the events and, in virtual time, of every byte sent to Redis
	Commands int           // Redis commands
	Virtual  time.Duration // how long the run was in its own time
	Real     time.Duration // and in ours
}

// World is a running fleet: what actions act on.
type World struct {
	plan   *Plan
	seed   int64
	opts   Options
	trace  *Trace
	dir    *director
	net    *network
	redis  *redisServer // nil in real time
	facts  *facts
	remote *remote
	hash   *runHash
	real   *realNetwork // nil in virtual time

	hosts   []*host // of the plan, in its order
	control *host   // where operators' commands run
	members []*service

	ctx     context.Context // of every process
	running sync.WaitGroup  // lives of processes
	over    chan struct{}   // closed at the end of the run

	mu      sync.Mutex
	procs   []*process
	byName  map[string]*process
	faults  []*fault
	cause   Ref // of what the present action does
	err     error
	cmds    int
	reports map[string]*control.Report // by the op's name
}

// service is one instance of the fleet.
type service struct {
	fleet.Member
	unit *unit
	h    *host
}

// operatorPlaces is how many operators' processes can be alive at once.
const operatorPlaces = 64

// Run runs plan once from seed, in virtual time unless opts name a server. In
// virtual time the caller must be in a bubble; see [Pool]. The error is one of
// the simulator or of the plan: what the fleet did wrong is in the events.
func Run(ctx context.Context, plan *Plan, seed int64, opts Options) (*Result, error) {
	w, err := NewWorld(ctx, plan, seed, opts)
	if err != nil {
		return nil, err
	}
	w.schedule()
	select {
	case <-w.over:
	case <-ctx.Done():
	}
	return w.Close()
}

// NewWorld builds the fleet of plan and boots it. Nothing of the plan's
// timeline happens by itself; [Run] does that. Close it.
func NewWorld(ctx context.Context, plan *Plan, seed int64, opts Options) (*World, error) {
	p, cfg := *plan, *plan.Config
	p.Config = &cfg
	if opts.RedisURL != "" && !opts.OwnServer {
		// Runs that share a server do not share keys.
		cfg.KeyPrefix = fmt.Sprintf("sgsim-%d-%d:", os.Getpid(), seed)
	}
	w := &World{
		plan: &p, seed: seed, opts: opts, dir: newDirector(), remote: newRemote(seed),
		over: make(chan struct{}), byName: map[string]*process{}, reports: map[string]*control.Report{}, hash: &runHash{h: sha256.New(), began: time.Now()},
	}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.hash.cancel = cancel
	w.trace = NewTrace(opts.OnEvent)
	w.facts = newFacts(w)
	w.hash.real = realNow()

	if err := w.build(); err != nil {
		cancel()
		return nil, err
	}
	if opts.RedisURL != "" {
		w.real = newRealNetwork(w)
	} else {
		var err error
		if w.net, err = newNetwork(w, len(w.procs)+operatorPlaces); err != nil {
			cancel()
			return nil, err
		}
		w.redis = newRedisServer(w)
	}
	dctx, stop := context.WithCancel(context.Background())
	w.hash.stop = stop
	w.hash.directing.Go(func() { w.dir.run(dctx) })
	w.begin()
	return w, nil
}

// build makes hosts, units, checkouts and processes from the plan.
func (w *World) build() error {
	if len(w.plan.Hosts) == 0 {
		return errors.New("the fleet has no hosts")
	}
	for i := range w.plan.Hosts {
		hp := &w.plan.Hosts[i]
		h := &host{w: w, name: hp.Name, plan: hp, cfg: w.reach(w.plan.HostConfig(hp)), present: !hp.Absent, skewed: hp.ClockSkew}
		w.hosts = append(w.hosts, h)
		for _, l := range h.cfg.LocalServices(h.name) {
			u := w.newUnit(h, l.Unit)
			u.instance, u.tier = l.Instance.String(), l.Tier
			if l.Checkout != "" {
				u.tree = w.newCheckout(h, l.Checkout)
			}
			w.members = append(w.members, &service{Member: l.Member(), unit: u, h: h})
		}
		w.shape(h)
	}
	w.control = &host{w: w, name: "operator", plan: &HostPlan{Name: "operator"}, cfg: w.reach(w.plan.OperatorConfig()), present: true}
	return nil
}

// shape adds the processes that a host runs.
func (w *World) shape(h *host) {
	switch h.plan.Shape {
	case DaemonEmbedded, DaemonLegacy:
		for _, u := range h.units {
			u.proc = w.newProcess(h, u.instance, u, u.instance)
			u.proc.instance, u.proc.run = u.instance, runDaemon
			if h.plan.Shape == DaemonLegacy {
				u.proc.run = runLegacy
			}
		}
	default:
		var serves []string
		for _, u := range h.units {
			serves = append(serves, u.instance)
		}
		u := w.newUnit(h, fleet.ServiceUnit(h.cfg.SelfUnit))
		u.proc = w.newProcess(h, h.name, u, serves...)
		u.proc.run = runDaemon
	}
}

// reach points a config at the world's Redis.
func (w *World) reach(c *fleet.Config) *fleet.Config {
	if w.opts.RedisURL != "" {
		c.Redis = fleet.RedisConfig{URL: w.opts.RedisURL}
	} else {
		// A literal address: a resolver has no place in a bubble.
		c.Redis = fleet.RedisConfig{URL: "redis://10.0.0.1:6379/0"}
	}
	return c
}

func (w *World) newUnit(h *host, name string) *unit {
	u := &unit{w: w, h: h, name: name, rnd: stream(w.seed, "unit", h.name, name), state: "inactive", sub: "dead"}
	h.units = append(h.units, u)
	return u
}

func (w *World) newCheckout(h *host, path string) *checkout {
	if c := h.checkout(path); c != nil {
		return c
	}
	c := &checkout{w: w, h: h, path: path, rnds: map[string]*rand.Rand{}}
	if c.head = h.plan.Revision[path]; c.head == "" {
		c.head = w.remote.tip()
	} else {
		w.remote.add(c.head)
	}
	c.tracking = c.head
	h.trees = append(h.trees, c)
	return c
}

func (w *World) newProcess(h *host, name string, u *unit, serves ...string) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &process{w: w, name: name, host: h, unit: u, serves: serves, idx: len(w.procs)}
	w.procs = append(w.procs, p)
	w.byName[name] = p
	h.procs = append(h.procs, p)
	return p
}

// operate runs an operator's command as a process of its own until it ends.
func (w *World) operate(name, opName string, run func(ctx context.Context, inc *incarnation) error) *process {
	w.mu.Lock()
	p := &process{w: w, name: name, host: w.control, opName: opName, idx: len(w.procs)}
	for i, old := range w.procs {
		if old.unit == nil && old.current() == nil && len(old.openLinks()) == 0 {
			p.idx = old.idx
			w.procs[i] = p
			break
		}
	}
	if p.idx == len(w.procs) {
		w.procs = append(w.procs, p)
	}
	for n := 2; w.byName[p.name] != nil; n++ {
		p.name = name + "." + strconv.Itoa(n)
	}
	w.byName[p.name] = p
	w.control.procs = append(w.control.procs, p)
	w.mu.Unlock()
	p.run = run
	p.boot("")
	return p
}

// processes returns every process, in a stable order.
func (w *World) processes() []*process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.procs)
}

// process finds a process by its name.
func (w *World) process(name string) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byName[name]
}

func (w *World) host(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// dial connects a process to the world's Redis.
func (w *World) dial(ctx context.Context, inc *incarnation) (net.Conn, error) {
	if w.real != nil {
		return w.real.dial(ctx, inc)
	}
	return w.net.dial(ctx, inc)
}

// begin records who is there and boots them, spread by the seed.
func (w *World) begin() {
	w.trace.Add(Event{Actor: "sim", Kind: EvRunStarted, Attrs: map[string]string{
		"seed": strconv.FormatInt(w.seed, 10), "hosts": strconv.Itoa(len(w.hosts)), "services": strconv.Itoa(len(w.members)),
	}}, 0)
	for _, h := range w.hosts {
		if h.present {
			w.populate(h)
		}
	}
}

// populate brings a host into the world as it is when it has been running for
// a while: its units active, its daemon about to boot.
func (w *World) populate(h *host) {
	rnd := stream(w.seed, "populate", h.name)
	for _, u := range h.units {
		state := ""
		if i, err := fleet.ParseInstance(u.instance); err == nil {
			state = cmp.Or(h.plan.State[u.instance], h.plan.State[i.Service])
		}
		if state == "inactive" || state == "failed" {
			u.wasDown(state)
		} else {
			u.alreadyUp(w.plan.Models.Boot.draw(rnd) + time.Duration(rnd.Int64N(int64(time.Second))))
		}
	}
	for _, m := range w.members {
		if m.h == h {
			w.trace.Add(m.event(), 0)
		}
	}
}

func (m *service) event() Event {
	u := m.unit
	s := u.show()
	u.mu.Lock()
	revision := u.revision
	u.mu.Unlock()
	e := Event{Actor: m.h.name, Kind: EvMember, Host: m.h.name, Instance: u.instance, Attrs: map[string]string{
		"tier": m.Tier, "unit": u.name, "state": s.ActiveState, "revision": revision, "process": m.servedBy().name,
		"done_timeout_ms": strconv.FormatInt((s.TimeoutStart + s.TimeoutStop + 5*time.Second).Milliseconds(), 10),
	}}
	if u.tree != nil {
		e.Attrs["checkout"] = u.tree.path
	}
	return e
}

// servedBy is the process that answers for the instance.
func (m *service) servedBy() *process {
	if m.unit.proc != nil {
		return m.unit.proc
	}
	return m.h.procs[0]
}

// expected lists the instances that a target selects and, of those, the ones
// that are active and whose process is subscribed. subs counts subscriptions
// by process; it is facts' own, whose lock is held.
func (w *World) expected(target string, subs map[string]int) (expected, live []string) {
	t, err := fleet.ParseTarget(target, nil)
	if err != nil {
		return nil, nil
	}
	for _, m := range w.members {
		if !m.h.isPresent() || !t.Match(m.Member) {
			continue
		}
		expected = append(expected, m.unit.instance)
		if m.unit.isActive() && subs[m.servedBy().name] > 0 {
			live = append(live, m.unit.instance)
		}
	}
	return expected, live
}

func (h *host) isPresent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.present
}

// sinceStart is a Redis time as milliseconds since the start of the run; "0"
// when it is unset.
func (w *World) sinceStart(t fleet.Time) string {
	if t == 0 {
		return "0"
	}
	return strconv.FormatInt(t.Time().Sub(w.hash.began).Milliseconds(), 10)
}

// splay is a name's own duration below a millisecond.
func (w *World) splay(name ...string) time.Duration {
	return time.Duration(w.rand(name...).Int64N(int64(time.Millisecond)))
}

// id is a name's own 32 hex digits.
func (w *World) id(parts ...string) string { return hexID(32, w.seed, parts...) }

func hexID(digits int, seed int64, parts ...string) string {
	s := sha256.Sum256([]byte(strconv.FormatInt(seed, 10) + "\x00" + strings.Join(parts, "\x00")))
	return hex.EncodeToString(s[:])[:digits]
}

// internal records an error of the simulator itself: the run's verdict is void.
func (w *World) internal(msg string) {
	w.mu.Lock()
	w.err = cmp.Or(w.err, errors.New("simulator: "+msg))
	w.mu.Unlock()
	w.trace.Add(Event{Actor: "sim", Kind: EvInternal, Detail: msg}, 0)
}

// fault is the Ref of the fault or action that is being carried out.
func (w *World) fault() Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

func (w *World) commandSeen(c *connInfo, cmd []string) {
	w.mu.Lock()
	w.cmds++
	w.mu.Unlock()
	if !w.opts.Commands {
		return
	}
	e := Event{Actor: c.proc.proc.name, Kind: EvCommand, Host: c.proc.proc.host.name, Attrs: map[string]string{"link": c.name}}
	text := strings.Join(cmd, " ")
	e.Attrs["cmd"] = text[:min(len(text), 2000)]
	w.trace.Add(e, 0)
}

// rand is the stream of a thing that actions choose at random.
func (w *World) rand(name ...string) *rand.Rand {
	return stream(w.seed, append([]string{"action"}, name...)...)
}
