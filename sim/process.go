package sim

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/opsexec"
)

// process is something that runs production code: a host daemon, a service
// that embeds one, an operator's command. It lives through restarts; each of
// its lives is an incarnation.
type process struct {
	w        *World
	name     string
	host     *host
	unit     *unit    // whose main process it is; nil for an operator's
	instance string   // when it is one, "" else
	serves   []string // instances
	opName   string   // of the op that an operator's process dispatches
	idx      int      // place among the processes, for its links' instants
	run      func(ctx context.Context, inc *incarnation) error

	dials int // guarded by network.mu

	mu    sync.Mutex
	boots int
	cur   *incarnation // nil while down
	links []wire       // open ones of every incarnation, in the order of dialling
}

// incarnation is one life of a process. Everything it does passes through its
// gate, so that death is one instant.
type incarnation struct {
	proc       *process
	invocation string
	pid        int
	tokens     *rand.Rand
	dead       chan struct{} // closed by the fence
	done       chan struct{} // closed when its goroutines have ended
	cancel     context.CancelFunc

	mu       sync.Mutex
	fenced   bool
	stopping bool          // SIGTERM was sent
	thaw     chan struct{} // not nil while frozen; closed to go on
	own      map[wire]bool
	waiters  int // at the gate so far
}

// boot starts a life of p. It runs in the director.
func (p *process) boot(invocation string) *incarnation {
	ctx, cancel := context.WithCancel(p.w.ctx)
	p.mu.Lock()
	p.boots++
	inc := &incarnation{
		proc: p, invocation: invocation, pid: 1000 + p.idx*100 + p.boots,
		tokens: shared(stream(p.w.seed, "token", p.name, strconv.Itoa(p.boots))),
		dead:   make(chan struct{}), done: make(chan struct{}), cancel: cancel, own: map[wire]bool{},
	}
	p.cur = inc
	p.mu.Unlock()
	if p.unit != nil {
		p.w.trace.Add(p.event(EvBoot, "invocation", invocation, "instances", strings.Join(p.serves, ",")), 0)
	}
	p.w.running.Go(func() {
		err := p.run(ctx, inc)
		cancel()
		close(inc.done)
		p.w.dir.after(0, "exit "+p.name, func() { inc.ended(err) })
	})
	return inc
}

// ended follows a Run that has returned.
func (inc *incarnation) ended(err error) {
	if !inc.fence(deathExit) {
		return // it was dead already
	}
	p := inc.proc
	if p.unit == nil {
		return
	}
	e := p.event(EvExit, "why", "stopped")
	if err != nil {
		e.Attrs["why"], e.Detail = "error", err.Error()
	}
	p.w.trace.Add(e, 0)
	p.unit.mainExited(inc, err)
}

func (p *process) event(kind string, attrs ...string) Event {
	e := Event{Actor: p.name, Kind: kind, Instance: p.instance, Host: p.host.name, Attrs: map[string]string{}}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Attrs[attrs[i]] = attrs[i+1]
	}
	return e
}

// current is the present life, nil while p is down.
func (p *process) current() *incarnation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur
}

func (p *process) openLinks() []wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.links)
}

// death says what happens to what a process leaves behind.
type death int

const (
	deathExit  death = iota // it has cleaned up
	deathCrash              // the kernel closes its connections and descriptors; a git of its goes on
	deathPower              // nothing is sent any more, and its gits die too
)

// fence ends a life at this instant: whatever its goroutines still do has no
// effect and is not heard of. It reports false when it was dead already.
func (inc *incarnation) fence(d death) bool {
	inc.mu.Lock()
	if inc.fenced {
		inc.mu.Unlock()
		return false
	}
	inc.fenced = true
	thaw := inc.thaw
	inc.thaw = nil
	inc.mu.Unlock()

	p := inc.proc
	for _, l := range p.openLinks() {
		inc.mu.Lock()
		mine := inc.own[l]
		inc.mu.Unlock()
		if !mine {
			continue
		}
		p.w.facts.lost(l.info(), [...]string{"exit", "crash", "power"}[d])
		l.end(d != deathPower)
	}
	p.w.facts.gone(inc)
	p.host.died(inc, d)
	p.mu.Lock()
	if p.cur == inc {
		p.cur = nil
	}
	p.mu.Unlock()
	// Only now may its goroutines learn of it: nothing is left for them to do
	// harm with.
	close(inc.dead)
	if thaw != nil {
		close(thaw)
	}
	inc.cancel()
	return true
}

// gate is passed by every call out of the process: it waits while the process
// is frozen and fails once it is dead.
func (inc *incarnation) gate(ctx context.Context) error {
	for {
		inc.mu.Lock()
		dead, thaw := inc.fenced, inc.thaw
		inc.mu.Unlock()
		if dead {
			return errFenced
		}
		if thaw == nil {
			return nil
		}
		inc.mu.Lock()
		inc.waiters++
		turn := inc.waiters
		inc.mu.Unlock()
		select {
		case <-thaw:
			// One after the other, in the order in which they came, and no two
			// processes together: those of one host share its checkouts.
			time.Sleep(time.Duration(turn)*100*time.Microsecond + time.Duration(inc.proc.idx)*7)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// alive reports whether inc has not been fenced.
func (inc *incarnation) alive() bool {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	return !inc.fenced
}

// freeze holds every call and connection of inc; its timers go on.
func (inc *incarnation) freeze() {
	inc.mu.Lock()
	if inc.fenced || inc.thaw != nil {
		inc.mu.Unlock()
		return
	}
	inc.thaw = make(chan struct{})
	inc.mu.Unlock()
	for _, l := range inc.proc.openLinks() {
		l.hold(true, true)
	}
	inc.proc.w.trace.Add(inc.proc.event(EvFrozen), 0)
}

func (inc *incarnation) unfreeze() {
	inc.mu.Lock()
	if inc.fenced || inc.thaw == nil {
		inc.mu.Unlock()
		return
	}
	close(inc.thaw)
	inc.thaw = nil
	inc.mu.Unlock()
	for _, l := range inc.proc.openLinks() {
		l.release(true, true, 0)
	}
	inc.proc.w.trace.Add(inc.proc.event(EvThawed), 0)
}

// adopt makes a new link the process's own, unless it died meanwhile.
func (inc *incarnation) adopt(l wire) bool {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if inc.fenced {
		return false
	}
	inc.own[l] = true
	p := inc.proc
	p.mu.Lock()
	p.links = append(p.links, l)
	p.mu.Unlock()
	return true
}

// forget drops a link that both ends have closed.
func (inc *incarnation) forget(l wire) {
	inc.mu.Lock()
	delete(inc.own, l)
	inc.mu.Unlock()
	p := inc.proc
	p.mu.Lock()
	p.links = slices.DeleteFunc(p.links, func(x wire) bool { return x == l })
	p.mu.Unlock()
}

// dialer is what production code dials Redis with.
func (inc *incarnation) dialer(ctx context.Context, _, _ string) (net.Conn, error) {
	return inc.proc.w.dial(ctx, inc)
}

// identity is who the production code believes to be.
func (inc *incarnation) identity() control.Identity {
	p := inc.proc
	return control.Identity{
		Host: p.host.name, PID: inc.pid, MachineID: p.w.id("machine", p.host.name), BootID: p.w.id("boot", p.host.name),
		InvocationID: inc.invocation,
		Token: func() string {
			b := make([]byte, 16)
			for i := range b {
				b[i] = byte(inc.tokens.Uint32())
			}
			return hex.EncodeToString(b)
		},
		Wall: func() time.Time { return time.Now().Add(p.host.skew()) },
	}
}

// runDaemon is a life of a host daemon, or of one embedded in a service.
func runDaemon(ctx context.Context, inc *incarnation) error {
	p := inc.proc
	client, err := control.Connect(p.host.cfg, control.ConnectOptions{Dialer: inc.dialer, Name: "sgfleet"})
	if err != nil {
		return err
	}
	defer client.Close()
	d := &control.Daemon{
		Config: p.host.cfg, Client: client, Identity: inc.identity(), Version: "sim",
		Exec: inc.exec, Tree: simTree{inc}, Units: simUnits{inc}, Self: p.instance,
		Journal: inc.journal, Log: inc.logger(),
		Notify: func(state string) {
			if state == "READY=1" && inc.alive() {
				p.w.trace.Add(p.event(EvReady), 0)
			}
		},
	}
	return d.Run(ctx)
}

// journal is the end of a unit's journal.
func (inc *incarnation) journal(_ context.Context, unit, invocation string) []string {
	if !inc.alive() {
		return nil
	}
	return []string{unit + ": invocation " + invocation[:min(8, len(invocation))] + " ended"}
}

var _ opsexec.Exec = (*incarnation)(nil).exec

// logger records warnings and errors of production code.
func (inc *incarnation) logger() *slog.Logger { return slog.New(&logHandler{inc: inc}) }

type logHandler struct {
	inc   *incarnation
	attrs string
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.inc.alive() {
		return nil
	}
	text := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	e := h.inc.proc.event(EvLog, "level", r.Level.String())
	e.Detail = text
	h.inc.proc.w.trace.Add(e, 0)
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	for _, a := range attrs {
		n.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &n
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
