package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// remote is the fleet's git remote: one branch, every commit on top of the one
// before.
type remote struct {
	mu   sync.Mutex
	revs []string
	seed int64
}

// initialRevisions is how much history a remote starts with: enough to go back.
const initialRevisions = 3

func newRemote(seed int64) *remote {
	r := &remote{seed: seed}
	for range initialRevisions {
		r.push()
	}
	return r
}

// push adds a commit and returns it.
func (r *remote) push() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	rev := hexID(40, r.seed, "revision", strconv.Itoa(len(r.revs)))
	r.revs = append(r.revs, rev)
	return rev
}

func (r *remote) tip() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revs[len(r.revs)-1]
}

// find returns the place of a revision (or an abbreviation of it) in the
// history, −1 when it is not there.
func (r *remote) find(rev string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(rev) < 7 {
		return -1
	}
	return slices.IndexFunc(r.revs, func(x string) bool { return strings.HasPrefix(x, rev) })
}

func (r *remote) at(i int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revs[i]
}

// add makes a revision known that the history does not have, as its oldest.
func (r *remote) add(rev string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.revs, rev) {
		r.revs = slices.Insert(r.revs, 0, rev)
	}
}

// checkout is one git checkout on one host.
type checkout struct {
	w    *World
	h    *host
	path string

	mu        sync.Mutex
	rnds      map[string]*rand.Rand // by process: what one draws does not shift another's
	head      string
	tracking  string   // where the remote's branch was when it was last fetched
	dirty     []string // tracked files with local changes
	torn      bool     // a git was killed while it changed the tree
	indexLock bool     // left behind by a git that was killed
	foreign   bool     // an index.lock of a git that is alive and not ours
	marker    *opsexec.Marker
	locks     []*treeLock // that hold the flock
	waiting   []*lockWait // for the flock, first come first served
	pull      *pullRun    // under way
	jobs      []*gitJob

	slow []float64 // factors of the slow_git faults in force
	fail []string  // what git says, by the fail_git faults in force
}

// pullRun is one pull as an event pair: from the fetch to the flock's release.
type pullRun struct {
	inc     *incarnation
	op, by  string
	old     string
	ok      bool
	started Ref
}

// rndLocked is the stream that p's commands in the checkout draw from.
func (c *checkout) rndLocked(p *process) *rand.Rand {
	r := c.rnds[p.name]
	if r == nil {
		r = stream(c.w.seed, "checkout", c.h.name, c.path, p.name)
		c.rnds[p.name] = r
	}
	return r
}

func (c *checkout) headNow() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

func (c *checkout) event(actor, kind string, attrs ...string) Event {
	e := Event{Actor: actor, Kind: kind, Host: c.h.name, Attrs: map[string]string{"path": c.path}}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Attrs[attrs[i]] = attrs[i+1]
	}
	return e
}

// statusLocked is what git status --porcelain=v2 -z says.
func (c *checkout) statusLocked() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# branch.oid %s\x00# branch.head main\x00# branch.upstream origin/main\x00# branch.ab +0 -0\x00", c.head)
	for _, f := range c.changedLocked() {
		fmt.Fprintf(&b, "1 .M N... 100644 100644 100644 %s %s %s\x00", c.head, c.head, f)
	}
	return b.String()
}

// pulledFiles are what every pull changes.
var pulledFiles = []string{"app/main.py", "app/settings.py"}

func (c *checkout) changedLocked() []string {
	if c.torn {
		return slices.Concat(c.dirty, pulledFiles)
	}
	return c.dirty
}

// died frees what a dead process held, except what a git of its still holds.
func (c *checkout) died(inc *incarnation, d death) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.DeleteFunc(c.waiting, func(w *lockWait) bool { return w.inc == inc })
	if d == deathPower {
		for _, j := range c.jobs {
			if j.inc == inc {
				j.killLocked()
			}
		}
	}
	for _, l := range slices.Clone(c.locks) {
		if l.inc == inc && l.own {
			l.own = false
			c.freeLocked(l, "crash")
		}
	}
	c.grantLocked()
}

// powerFails ends every git on the checkout at once.
func (c *checkout) powerFails() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range slices.Clone(c.jobs) {
		j.killLocked()
	}
	c.locks, c.waiting, c.foreign = nil, nil, false
}

// simTree is the file system as a process sees it.
type simTree struct{ inc *incarnation }

var _ opsexec.Tree = simTree{}

func (t simTree) checkout(dir string) (*checkout, error) {
	if !t.inc.alive() {
		return nil, errFenced
	}
	c := t.inc.proc.host.checkout(dir)
	if c == nil {
		return nil, fmt.Errorf("%s is no git checkout (it has no .git): clone it there, or correct its path in the config", dir)
	}
	return c, nil
}

// Resolve implements [opsexec.Tree].
func (t simTree) Resolve(dir string) (opsexec.Checkout, error) {
	if _, err := t.checkout(dir); err != nil {
		return opsexec.Checkout{}, err
	}
	return opsexec.Checkout{Dir: dir, Real: dir, GitDir: dir + "/.git"}, nil
}

// Marker implements [opsexec.Tree].
func (t simTree) Marker(oc opsexec.Checkout) (*opsexec.Marker, error) {
	c, err := t.checkout(oc.Real)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.marker == nil {
		return nil, nil
	}
	m := *c.marker
	return &m, nil
}

// SetMarker implements [opsexec.Tree].
func (t simTree) SetMarker(oc opsexec.Checkout, m *opsexec.Marker) error {
	c, err := t.checkout(oc.Real)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m == nil {
		c.marker = nil
		return nil
	}
	kept := *m
	c.marker = &kept
	return nil
}

// RemoveIndexLock implements [opsexec.Tree].
func (t simTree) RemoveIndexLock(oc opsexec.Checkout) (removed bool, err error) {
	c, err := t.checkout(oc.Real)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign {
		return false, fmt.Errorf("%s/index.lock: %w", oc.GitDir, opsexec.ErrForeignGit)
	}
	if !slices.ContainsFunc(c.locks, func(l *treeLock) bool { return l.inc == t.inc && l.mode == opsexec.Exclusive }) {
		c.w.internal("index.lock of " + c.path + " on " + c.h.name + " removed without the exclusive flock")
	}
	removed, c.indexLock = c.indexLock, false
	return removed, nil
}

// treeLock is a held flock.
type treeLock struct {
	c    *checkout
	inc  *incarnation
	mode opsexec.LockMode
	own  bool // the process's own descriptor is open
	gits int  // children that inherited it
}

type lockWait struct {
	inc     *incarnation
	mode    opsexec.LockMode
	granted *treeLock
	told    chan struct{} // closed a moment after granted was set
}

// lockPoll is how late a process notices at most that a flock has become free:
// it has to ask for it again and again.
const lockPoll = 20 * time.Millisecond

func modeName(m opsexec.LockMode) string {
	if m == opsexec.Exclusive {
		return "exclusive"
	}
	return "shared"
}

// Lock implements [opsexec.Tree].
func (t simTree) Lock(ctx context.Context, oc opsexec.Checkout, mode opsexec.LockMode) (opsexec.Lock, error) {
	if err := t.inc.gate(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	c, err := t.checkout(oc.Real)
	if err != nil {
		return nil, err
	}
	w := &lockWait{inc: t.inc, mode: mode, told: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, w)
	c.grantLocked()
	if w.granted != nil { // a free lock is taken at once, whatever ctx says
		c.mu.Unlock()
		return w.granted, nil
	}
	c.mu.Unlock()
	select {
	case <-w.told:
	case <-t.inc.dead:
		return nil, errFenced
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.granted != nil {
		return w.granted, nil
	}
	c.waiting = slices.DeleteFunc(c.waiting, func(x *lockWait) bool { return x == w })
	return nil, fmt.Errorf("%s: %w", oc.Dir, opsexec.ErrLocked)
}

// grantLocked gives the flock to whoever can have it.
func (c *checkout) grantLocked() {
	for len(c.waiting) > 0 {
		w := c.waiting[0]
		for _, l := range c.locks {
			if l.mode == opsexec.Exclusive || w.mode == opsexec.Exclusive {
				return
			}
		}
		c.waiting = c.waiting[1:]
		l := &treeLock{c: c, inc: w.inc, mode: w.mode, own: true}
		c.locks = append(c.locks, l)
		c.w.trace.Add(c.event(w.inc.proc.name, EvFlock, "mode", modeName(w.mode)), 0)
		w.granted = l
		c.w.dir.after(time.Duration(c.rndLocked(w.inc.proc).Int64N(int64(lockPoll))), "flock "+c.h.name+":"+c.path, func() { close(w.told) })
	}
}

// Unlock implements [opsexec.Lock].
func (l *treeLock) Unlock() error {
	if !l.inc.alive() {
		return errFenced // its descriptor was closed at its death
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if !l.own {
		return errors.New("unlocked twice")
	}
	l.own = false
	l.c.freeLocked(l, "unlock")
	l.c.grantLocked()
	return nil
}

// freeLocked lets go of l once nobody holds a descriptor of it any more.
func (c *checkout) freeLocked(l *treeLock, why string) {
	if l.own || l.gits > 0 || !slices.Contains(c.locks, l) {
		return
	}
	c.locks = slices.DeleteFunc(c.locks, func(x *treeLock) bool { return x == l })
	if p := c.pull; p != nil && p.inc == l.inc && l.mode == opsexec.Exclusive {
		c.pull = nil
		ok := p.ok && why == "unlock" && c.marker == nil && !c.torn
		e := c.event(l.inc.proc.name, EvPullEnded, "old", p.old, "new", c.head, "ok", strconv.FormatBool(ok), "by", p.by)
		e.Op, e.Instance = p.op, p.by
		c.w.trace.Add(e, p.started)
	}
	c.w.trace.Add(c.event(l.inc.proc.name, EvFunlock, "mode", modeName(l.mode), "why", why), 0)
}

// interrupted is the marker of a pull that was killed on its way to the tip.
func (c *checkout) interrupted() *opsexec.Marker {
	return &opsexec.Marker{Old: c.head, Next: c.w.remote.tip(), By: "unknown"}
}
