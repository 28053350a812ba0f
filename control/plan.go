package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// The exit codes of an op's outcome.
const (
	ExitOK      = 0 // every expected instance did it
	ExitError   = 1 // an error before anything was sent
	ExitUsage   = 2 // a bad target or request
	ExitFailed  = 3 // some failed or refused
	ExitSilent  = 4 // some silent or unfinished
	ExitNobody  = 5 // nobody matched or nobody answered
	ExitRefused = 6 // refused as a whole before anything was sent
)

// NotSentError is an error that [Dispatcher] met before anything was published,
// with the exit code that it stands for.
type NotSentError struct {
	Code int
	Err  error
}

func (e *NotSentError) Error() string { return e.Err.Error() }
func (e *NotSentError) Unwrap() error { return e.Err }

func notSentf(code int, format string, args ...any) error {
	return &NotSentError{code, fmt.Errorf(format, args...)}
}

// Request is what an operator asks for.
type Request struct {
	Op          string // one of [OpNames]
	Target      string // see [fleet.ParseTarget]
	RequestedBy string // shown to everybody; empty means "unknown"
	TraceID     string // carried along, for the caller's own logs
	Args        Args   // GatewayDeadline is filled in by the Dispatcher

	// ExpectVersion, when not empty, makes a failure of every ok answer by
	// another version of sgfleet. Only a ping's answers carry one.
	ExpectVersion string

	// Only, when not empty, narrows Target to these instances and addresses
	// each by name: a retry of those that did not succeed.
	Only []string

	// NoWait ends the collection when every instance has accepted or refused.
	// Nobody is left then to release the gateways: they restart at the op's
	// gateway deadline, by which all others must be done.
	NoWait bool

	// Timeout bounds the whole collection; zero means that each instance's own
	// deadline does. When it strikes before the gateways were released, they
	// are told not to restart.
	Timeout time.Duration

	// Watch, when set, is called while acks arrive, by the goroutine that runs
	// Dispatch: a slow Watch slows the collection, not the fleet.
	Watch func(Update)
}

// Plan is what an op would reach, before anything is sent.
type Plan struct {
	Op        string
	Target    fleet.Target // as published
	Instances []Expected   // in tier order
	Registry  fleet.Registry

	broadcast bool // legacy peers will understand the target
}

// Expected is one instance that an op is expected to reach.
type Expected struct {
	fleet.Member
	Beat    fleet.Heartbeat // zero for a legacy instance that sends none
	Legacy  bool
	Gateway bool   // restarts last, after the publisher's release
	Down    bool   // no heartbeat for three intervals
	Held    string // who holds it and why; "" when not held

	restarts bool          // the op restarts it
	timeout  time.Duration // from accepted to done
}

// Plan finds out which instances a request is about: every known one that the
// target selects, DOWN ones included. Its errors are *[NotSentError].
func (d *Dispatcher) Plan(ctx context.Context, req Request) (*Plan, error) {
	spec, ok := opSpecs[req.Op]
	if !ok {
		return nil, notSentf(ExitUsage, "unknown op %q; known: %s", req.Op, strings.Join(OpNames(), ", "))
	}
	legacy, err := legacyMembers(d.Config)
	if err != nil {
		return nil, &NotSentError{ExitUsage, err}
	}
	reg, err := fleet.ReadRegistry(ctx, d.Client, d.Config.Keys())
	if err != nil {
		return nil, &NotSentError{ExitError, clusterAdvice(err)}
	}
	reg.Arrange(d.Config)
	p := &Plan{Op: req.Op, Registry: reg}
	known := p.known(d.Config, legacy)
	members := make([]fleet.Member, len(known))
	for i, e := range known {
		members[i] = e.Member
	}
	if p.Target, err = fleet.ParseTarget(req.Target, d.Config, members...); err != nil {
		return nil, &NotSentError{ExitUsage, err}
	}
	if err := p.Target.Check(members); err != nil {
		return nil, &NotSentError{ExitNobody, err}
	}
	p.broadcast = p.Target.Broadcast(d.Config)
	for _, e := range known {
		if p.Target.Match(e.Member) {
			p.Instances = append(p.Instances, e.with(d.Config, spec))
		}
	}
	if err := p.narrow(req.Only); err != nil {
		return nil, err
	}
	return p, p.checkLegacy(spec)
}

// with fills in what depends on the op.
func (e Expected) with(cfg *fleet.Config, spec opSpec) Expected {
	e.restarts = spec.Restarts
	e.Gateway = spec.Restarts && !e.Legacy && cfg.IsGateway(e.Tier)
	e.timeout = doneTimeout(cfg, spec, e)
	return e
}

// known lists every instance that anybody has heard of, in tier order.
func (p *Plan) known(cfg *fleet.Config, legacy []fleet.Member) []Expected {
	var out []Expected
	for _, b := range p.Registry.Beats {
		m, err := b.Member()
		if err != nil {
			continue // ReadRegistry has listed it as malformed
		}
		e := Expected{Member: m, Beat: b, Legacy: b.ControlledBy == fleet.ByLegacy}
		e.Down = b.Down(p.Registry.Now, cfg.HeartbeatInterval.D())
		if h, ok := p.Registry.Held(m); ok {
			e.Held = oneLine(h.String(), maxDetail)
		}
		out = append(out, e)
	}
	for _, m := range legacy {
		// A heartbeat knows better: it says by whom the instance is controlled.
		if !slices.ContainsFunc(out, func(e Expected) bool { return e.Instance == m.Instance }) {
			out = append(out, Expected{Member: m, Legacy: true})
		}
	}
	rank := func(e Expected) int {
		if i := slices.Index(cfg.TierNames(), e.Tier); i >= 0 {
			return i
		}
		return len(cfg.Tiers)
	}
	slices.SortStableFunc(out, func(a, b Expected) int { return rank(a) - rank(b) })
	return out
}

// narrow keeps only the named instances and addresses each by name.
func (p *Plan) narrow(only []string) error {
	if len(only) == 0 {
		return nil
	}
	var names []fleet.Instance
	for _, s := range only {
		i, err := fleet.ParseInstance(s)
		if err != nil {
			return &NotSentError{ExitUsage, err}
		}
		if !slices.ContainsFunc(p.Instances, func(e Expected) bool { return e.Instance == i }) {
			return notSentf(ExitNobody, "%s is not known any more, or target %q does not select it: %w", i, p.Target, fleet.ErrNoMatch)
		}
		names = append(names, i)
	}
	p.Instances = slices.DeleteFunc(p.Instances, func(e Expected) bool { return !slices.Contains(names, e.Instance) })
	t, err := fleet.ParseTarget(strings.Join(fleet.FoldInstances(names), ","), nil)
	if err != nil {
		return &NotSentError{ExitUsage, err}
	}
	p.Target, p.broadcast = t, false
	return nil
}

// checkLegacy refuses what services of the original system would not do: they
// know only "all" and single tiers, and no update.
func (p *Plan) checkLegacy(spec opSpec) error {
	var names, exclude []string
	for _, e := range p.Instances {
		if e.Legacy {
			names = append(names, e.Instance.String())
			exclude = append(exclude, "!"+e.Service)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(exclude)
	without := p.Target.String() + "," + strings.Join(slices.Compact(exclude), ",")
	who := strings.Join(names, ", ")
	switch {
	case spec.Pulls && spec.Restarts:
		return notSentf(ExitRefused, "legacy services do not know %s: %s; leave them out (%s %s), then pull and restart their tier", spec.Name, who, spec.Name, without)
	case !p.broadcast:
		return notSentf(ExitRefused, "legacy services cannot be addressed singly: %s; name all or their whole tier, or leave them out (%s)", who, without)
	}
	return nil
}

// Limits of a done deadline.
const (
	// defaultDoneTimeout is systemd's default stop and start timeouts (90 s
	// each) and 5 s, for an instance whose heartbeat does not tell.
	defaultDoneTimeout = 185 * time.Second
	// maxDoneTimeout keeps the gateways' deadline inside the hour that the
	// release key lives, even for a unit without any timeout of its own.
	maxDoneTimeout = 50 * time.Minute
	// pingTimeout is generous: a ping is answered without doing anything.
	pingTimeout = 5 * time.Second
	// killGrace is how long a git that has timed out is given to end.
	killGrace = 15 * time.Second
	// restartWait is how long a restart waits for a running pull of its
	// checkout: a pull timeout, the kill grace and slack.
	restartWait = 80 * time.Second
)

// doneTimeout is how long after its "accepted" an instance may take: the
// splay, then what the op does.
func doneTimeout(cfg *fleet.Config, spec opSpec, e Expected) time.Duration {
	d := cfg.Splay.D()
	if !spec.Pulls && !spec.Restarts {
		d += pingTimeout
	}
	if spec.Pulls {
		// The worst case joins a holder that dies, waits for its lock to run
		// out, and then pulls by itself.
		d += cfg.LockTTL.D() + cfg.PullTimeout.D() + killGrace
		if len(cfg.Checkouts[e.Beat.Checkout].AfterPull) > 0 {
			d += cfg.PullTimeout.D() + killGrace
		}
	}
	if spec.Restarts {
		d += restartTimeout(cfg, e)
	}
	return min(d, maxDoneTimeout)
}

// restartTimeout is how long a restart may take, the wait for a running pull of
// the checkout included. A tier's own done_timeout is the whole of it: the
// daemon takes that wait from it, too.
func restartTimeout(cfg *fleet.Config, e Expected) time.Duration {
	if d := cfg.TierDoneTimeout(e.Tier); d > 0 {
		return d
	}
	d := defaultDoneTimeout
	if e.Beat.DoneTimeoutMS > 0 {
		d = time.Duration(min(e.Beat.DoneTimeoutMS, maxDoneTimeout.Milliseconds())) * time.Millisecond
	}
	if e.Beat.Checkout != "" {
		d += restartWait
	}
	return d + cfg.TierSettle(e.Tier)
}

// gatewayDeadline is when a gateway stops waiting for this publisher: after
// the reply window and the slowest of the others, so that it never gives up on
// a publisher that lives and waits.
func (p *Plan) gatewayDeadline(cfg *fleet.Config, issued fleet.Time, noWait bool) fleet.Time {
	var slowest time.Duration
	gateways := false
	for _, e := range p.Instances {
		gateways = gateways || e.Gateway
		if !e.Gateway && !e.Legacy {
			slowest = max(slowest, e.timeout)
		}
	}
	if !gateways {
		return 0
	}
	wait := cfg.ControlReplyTimeout.D() + slowest
	if !noWait {
		wait += cfg.GatewayGrace.D()
	}
	return issued.Add(min(wait, maxGatewayWait))
}
