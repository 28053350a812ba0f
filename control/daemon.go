package control

import (
	"cmp"
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

	Notify  func(state string) // sd_notify, safe for concurrent use; nil: none
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

	// Starts keeps restarts below the units' start limits, Cooldown keeps an op
	// from being done again too soon (its Every is the config's). Daemons that
	// follow one another in one process share them; nil: one of its own.
	Starts   *opsexec.StartBudget
	Cooldown *opsexec.Cooldown

	underWay underWay

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
	finals    chan answer
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
	showing    sync.Mutex    // held while systemd is told the state
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
	r.finals = make(chan answer, batchSize)
	r.beat = newBeat(len(r.instances))
	r.cooldowns.cooldown = cmp.Or(d.Cooldown, &opsexec.Cooldown{})
	r.cooldowns.cooldown.Every = d.Config.Cooldown.D()
	r.session = &session{
		client: d.Client, channel: r.keys.Channel(), name: r.name, clock: r.clock, log: r.log, tuning: r.tuning,
		deliver: r.receive, confirmed: r.confirmed, progress: r.alive,
		lost: r.lost,
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
