package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// Daemon obeys ops, in one of two shapes.
//
// A host daemon (Self empty) serves every service of its host whose config says
// controlled_by: host, and itself as sgfleet@HOST. A daemon embedded in a Go
// service (Self its instance) serves that service only, and restarts it by
// restarting its own process.
//
// Fill the exported fields and call Run once. Config, Client, Identity.Host,
// Identity.Token, Exec, Tree and Units must be set.
type Daemon struct {
	Config   *fleet.Config
	Client   *Client
	Identity Identity
	Version  string // of sgfleet, shown by pings and in the roster

	Exec   opsexec.Exec
	Tree   opsexec.Tree
	Units  opsexec.Units
	GitEnv opsexec.GitEnv // Home and Pass; the config's git section is added to it

	// Journal reads the last lines that an invocation of a unit logged, for the
	// ack of a failed restart; nil: none.
	Journal func(ctx context.Context, unit, invocation string) []string

	Self     string   // the instance that is this very process; "" for a host daemon
	Services []string // serve only these of the host's services; nil: all

	Notify  func(state string) // sd_notify; nil: none
	Log     *slog.Logger       // nil: discarded
	Metrics *Metrics           // nil: counted for nobody
	Verify  Verifier           // checks an op's auth; nil: none can be trusted

	// BeforeSelfRestart, when set, is called before the daemon restarts its own
	// process: after the release, when it is a gateway. It may block, for
	// example until a report that this process is about to make is complete,
	// and what it returns is handed to the next process's OnReturn.
	BeforeSelfRestart func(ctx context.Context, op Op) (note string)
	// OnReturn, when set, is called in the process that a self restart started,
	// once its final ack is delivered.
	OnReturn func(ctx context.Context, r Return)

	Tuning Tuning

	mu    sync.Mutex
	ready chan struct{}
}

// Ready is closed once the daemon is subscribed and in the registry.
func (d *Daemon) Ready() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready == nil {
		d.ready = make(chan struct{})
	}
	return d.ready
}

// instance is one instance that the daemon serves.
type instance struct {
	fleet.LocalService
	name string // Instance.String()
	self bool   // restarting it ends this process

	queue chan *job
	left  []*job // not begun when the daemon stopped; read after the worker has ended

	mu       sync.Mutex
	lastOp   string
	degraded string
}

// run is one Run of a daemon.
type run struct {
	*Daemon
	keys      fleet.Keys
	name      string // names this process where one instance must: its jitter, its connections
	host      string
	tuning    Tuning
	log       *slog.Logger
	metrics   *Metrics
	nonce     string
	instances []*instance
	clock     *clock
	session   *session
	intake    chan message
	waiting   atomic.Int64 // bytes in the intake
	seen      recent
	cooldowns cooldowns
	budget    opsexec.StartBudget
	heads     heads
	beat      beat

	stopping context.Context // ended when no op may begin any more
	ops      context.Context // ended when running ops must end, too
	last     context.Context // ended when no ack is sent any more

	subscribed chan struct{} // closed by the first confirmed subscription
	lastFed    time.Time     // of the systemd watchdog; the session's goroutine only
}

// Run serves until ctx ends, and returns when everything that it started has
// ended: at most Tuning.StopGrace and what it takes to end the processes and
// send the acks of running ops. Losing Redis is no reason to return.
func (d *Daemon) Run(ctx context.Context) error {
	r, err := d.newRun()
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	return r.run(ctx)
}

func (d *Daemon) newRun() (*run, error) {
	switch {
	case d.Config == nil, d.Client == nil, d.Exec == nil, d.Tree == nil, d.Units == nil, d.Identity.Token == nil:
		return nil, errors.New("a Daemon needs Config, Client, Exec, Tree, Units and Identity.Token")
	case d.Identity.Host == "":
		return nil, errors.New("the Identity has no Host")
	}
	r := &run{
		Daemon: d, keys: d.Config.Keys(), host: d.Config.Host, tuning: d.Tuning.withDefaults(),
		log: d.Log, metrics: d.Metrics, nonce: d.Identity.Token(), clock: &clock{},
		subscribed: make(chan struct{}),
	}
	if r.host == "" {
		r.host = d.Identity.Host
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.metrics == nil {
		r.metrics = &Metrics{}
	}
	if err := r.chooseInstances(); err != nil {
		return nil, err
	}
	r.name = r.instances[len(r.instances)-1].name
	r.intake = make(chan message, r.tuning.IntakeSize)
	r.beat = newBeat(len(r.instances))
	r.cooldowns.cooldown.Every = d.Config.Cooldown.D()
	r.session = &session{
		client: d.Client, channel: r.keys.Channel(), name: r.name, clock: r.clock, log: r.log, tuning: r.tuning,
		deliver: r.receive, confirmed: r.confirmed, progress: r.alive,
		lost: func() { r.metrics.set(metricListening, 0) },
	}
	return r, nil
}

// chooseInstances finds out what this daemon serves.
func (r *run) chooseInstances() error {
	local := r.Config.LocalServices(r.host)
	if r.Self != "" {
		for _, l := range local {
			if l.Instance.String() != r.Self {
				continue
			}
			if l.ControlledBy != fleet.BySelf {
				return fmt.Errorf("%s restarts itself, but its config says controlled_by: %s; set services.%s.controlled_by to self", r.Self, l.ControlledBy, l.Instance.Service)
			}
			r.add(l, true)
			return nil
		}
		return fmt.Errorf("%s is no service of host %s: add it to services in the config", r.Self, r.host)
	}
	for _, name := range r.Services {
		i := slices.IndexFunc(local, func(l fleet.LocalService) bool { return l.Instance.Service == name })
		switch {
		case i < 0:
			return fmt.Errorf("%s is no service of host %s: add it to services in the config", name, r.host)
		case local[i].ControlledBy != fleet.ByHost:
			return fmt.Errorf("service %s is controlled_by: %s, not by a host daemon", name, local[i].ControlledBy)
		}
	}
	for _, l := range local {
		if l.ControlledBy == fleet.ByHost && (r.Services == nil || slices.Contains(r.Services, l.Instance.Service)) {
			r.add(l, false)
		}
	}
	if r.Services == nil {
		r.add(fleet.LocalService{
			Instance: fleet.Instance{Service: fleet.DaemonService, Host: r.host},
			Unit:     fleet.ServiceUnit(r.Config.SelfUnit), ControlledBy: fleet.BySelf,
		}, true)
	}
	if len(r.instances) == 0 {
		return errors.New("no service to serve")
	}
	return nil
}

func (r *run) add(l fleet.LocalService, self bool) {
	r.instances = append(r.instances, &instance{
		LocalService: l, name: l.Instance.String(), self: self,
		queue: make(chan *job, r.tuning.QueueLength),
	})
}

func (r *run) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.stopping = ctx
	ops, endOps := context.WithCancel(context.WithoutCancel(ctx))
	defer endOps()
	last, endAcks := context.WithCancel(context.WithoutCancel(ctx))
	defer endAcks()
	r.ops, r.last = ops, last

	r.status("starting")
	r.repair(ctx)

	var listening, working sync.WaitGroup
	listening.Go(func() { r.session.run(ctx) })
	r.status("waiting for redis")
	if err := r.join(ctx); err != nil {
		fail(err)
	} else if ctx.Err() == nil {
		listening.Go(func() { r.decideAll(ctx) })
		listening.Go(func() { r.heartbeats(ctx) })
		listening.Go(func() { r.reportReturn(ctx) })
		for _, i := range r.instances {
			working.Go(func() { r.work(i) })
		}
		close(r.readyChan())
		r.notify("READY=1")
		r.status("subscribed, serving %d services", len(r.instances))
		<-ctx.Done()
	}

	r.notify("STOPPING=1")
	listening.Wait()
	done := make(chan struct{})
	go func() { defer close(done); working.Wait() }()
	if !waitFor(done, r.tuning.StopGrace) {
		r.log.Warn("running ops take too long, ending them", "grace", r.tuning.StopGrace)
		endOps()
		if !waitFor(done, stopAcks) {
			endAcks()
		}
	}
	<-done
	r.reportLeft()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stopAcks is what the ends of killed ops may take to be reported: less than
// what is left of a TimeoutStopSec of 90 s after the stop grace and 10 s for
// the processes to die.
const stopAcks = 15 * time.Second

// join waits for the first subscription and enters the registry. It fails only
// for what no patience mends.
func (r *run) join(ctx context.Context) error {
	select {
	case <-r.subscribed:
	case <-ctx.Done():
		return nil
	}
	lastErr := ""
	for n := 0; ; n++ {
		err := r.enter(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errTwoHosts) {
			return err
		}
		if err.Error() != lastErr {
			lastErr = err.Error()
			r.log.Warn("cannot enter the registry, trying again", "err", err)
		}
		if !sleep(ctx, backoff(r.tuning.BackoffFirst, r.tuning.BackoffMost, n, r.name, n)) {
			return nil
		}
	}
}

func (r *run) readyChan() chan struct{} {
	r.Ready()
	return r.ready
}

// receive takes a message from the session's reader, which must not wait.
func (r *run) receive(m message) {
	r.metrics.add(metricReceived, 1)
	if len(m.payload) > MaxOpBytes {
		// Counted here, so that not even one waits in the intake.
		r.metrics.refused(RejectTooLarge)
		r.log.Warn("message is too large, ignored", "bytes", len(m.payload), "limit", MaxOpBytes)
		return
	}
	size := int64(len(m.payload))
	if r.waiting.Add(size) <= intakeBytes {
		select {
		case r.intake <- m:
			return
		default:
		}
	}
	r.waiting.Add(-size)
	r.metrics.add(metricOverflow, 1)
}

// intakeBytes bounds what waits to be decided on, whatever the size of each.
const intakeBytes = 4 << 20

// confirmed is called by the session's reader at each confirmed subscription.
func (r *run) confirmed(first bool) {
	r.metrics.add(metricSubscribed, 1)
	r.metrics.set(metricListening, 1)
	if first {
		close(r.subscribed)
		return
	}
	r.beat.soon()
}

// alive feeds systemd's watchdog: the reader's loop is getting on, whether
// Redis is there or not.
func (r *run) alive() {
	if now := time.Now(); now.Sub(r.lastFed) >= watchdogEvery {
		r.lastFed = now
		r.notify("WATCHDOG=1")
		select {
		case <-r.subscribed:
		default:
			// READY is only said when subscribed, and Redis may be long in
			// coming after a power failure: that is no failed start.
			r.notify("EXTEND_TIMEOUT_USEC=60000000")
		}
	}
}

// watchdogEvery suits a WatchdogSec of 30 s: the reader gets on at least every
// SilenceClose (12 s) and a failing attempt takes less.
const watchdogEvery = 4 * time.Second

func (r *run) notify(state string) {
	if r.Notify != nil {
		r.Notify(state)
	}
}

func (r *run) status(format string, args ...any) {
	r.notify("STATUS=" + fmt.Sprintf(format, args...))
}

// waitFor waits until done is closed, for at most d.
func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
