package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// fakeHost is a machine's systemd and checkouts, true to what the daemon sees
// of them and nothing more.
type fakeHost struct {
	mu        sync.Mutex
	units     map[string]*fakeUnit
	checkouts map[string]*fakeCheckout
	serial    int
}

type fakeUnit struct {
	opsexec.Unit
	takes    time.Duration // of a restart
	until    chan struct{} // when not nil, a restart takes until it is closed
	then     string        // ActiveState afterwards; "" means active
	restarts int
	queueErr error
	onQueue  func() // called, unlocked, when a restart is queued
}

type fakeCheckout struct {
	history  []string // oldest first; the last is the upstream's tip
	head     int
	takes    time.Duration // of a fetch
	until    chan struct{} // when not nil, a fetch takes until it is closed
	fetchErr error
	fetches  int
	running  int // gits in the checkout
	overlap  bool
	marker   *opsexec.Marker

	shared    int
	exclusive bool
	changed   chan struct{} // closed and replaced at every unlock
}

func newFakeHost() *fakeHost {
	return &fakeHost{units: map[string]*fakeUnit{}, checkouts: map[string]*fakeCheckout{}}
}

func rev(n int) string { return fmt.Sprintf("%040x", 0xabc000+n) }

// set changes a unit or a checkout that a daemon may be looking at: its
// heartbeats do, whenever they are due.
func (h *fakeHost) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func (h *fakeHost) unit(name string) *fakeUnit {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.units[name]
	if u == nil {
		h.serial++
		u = &fakeUnit{takes: 50 * time.Millisecond, Unit: opsexec.Unit{
			Name: name, LoadState: "loaded", ActiveState: "active", SubState: "running", Result: "success",
			InvocationID: fmt.Sprintf("%032x", h.serial), TimeoutStart: 90 * time.Second, TimeoutStop: 90 * time.Second,
		}}
		h.units[name] = u
	}
	return u
}

func (h *fakeHost) checkout(dir string) *fakeCheckout {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.checkouts[dir]
	if c == nil {
		c = &fakeCheckout{history: []string{rev(1), rev(2)}, takes: 20 * time.Millisecond, changed: make(chan struct{})}
		h.checkouts[dir] = c
	}
	return c
}

func (h *fakeHost) restarts(unit string) int {
	u := h.unit(unit)
	h.mu.Lock()
	defer h.mu.Unlock()
	return u.restarts
}

func (h *fakeHost) fetches(dir string) int {
	c := h.checkout(dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	return c.fetches
}

// Restart implements opsexec.Units.
func (h *fakeHost) Restart(_ context.Context, name string, try bool) (<-chan string, error) {
	u := h.unit(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.queueErr != nil {
		return nil, u.queueErr
	}
	ch := make(chan string, 1)
	if try && u.ActiveState != "active" {
		ch <- "done"
		return ch, nil
	}
	u.restarts++
	u.Job = 7
	if u.onQueue != nil {
		go u.onQueue()
		return ch, nil
	}
	over := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.serial++
		u.Job, u.InvocationID, u.ActiveState = 0, fmt.Sprintf("%032x", h.serial), "active"
		if u.then != "" {
			u.ActiveState, u.Result = u.then, "exit-code"
		}
		ch <- "done"
	}
	if until := u.until; until != nil {
		go func() { <-until; over() }()
	} else {
		time.AfterFunc(u.takes, over)
	}
	return ch, nil
}

// Show implements opsexec.Units.
func (h *fakeHost) Show(_ context.Context, name string) (opsexec.Unit, error) {
	u := h.unit(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	return u.Unit, nil
}

// exec is an opsexec.Exec that knows the git commands of a pull.
func (h *fakeHost) exec(ctx context.Context, cmd opsexec.Cmd) (opsexec.Result, error) {
	c := h.checkout(cmd.Dir)
	args := cmd.Argv[1:]
	for len(args) > 1 && args[0] == "-c" {
		args = args[2:]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if cmd.Lock != nil {
		c.running++
		c.overlap = c.overlap || c.running > 1
		defer func() { c.running-- }()
	}
	ok := func(format string, a ...any) (opsexec.Result, error) {
		return opsexec.Result{Output: fmt.Sprintf(format, a...)}, nil
	}
	switch args[0] {
	case "rev-parse":
		name := strings.TrimSuffix(args[len(args)-1], "^{commit}")
		switch i := slices.Index(c.history, name); {
		case name == "HEAD":
			return ok("%s\n", c.history[c.head])
		case i >= 0:
			return ok("%s\n", c.history[i])
		}
		return ok("%s\n", c.history[len(c.history)-1])
	case "status":
		return ok("# branch.oid %s\x00# branch.head main\x00# branch.upstream origin/main\x00", c.history[c.head])
	case "fetch":
		c.fetches++
		takes, until, err := c.takes, c.until, c.fetchErr
		h.mu.Unlock()
		var passed <-chan time.Time
		if until == nil {
			passed = time.After(takes)
		}
		select {
		case <-until:
		case <-passed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		h.mu.Lock()
		if err != nil {
			return opsexec.Result{ExitCode: -1}, err
		}
		return ok("")
	case "rev-list":
		from, to, _ := strings.Cut(args[3], "...")
		d := slices.Index(c.history, to) - slices.Index(c.history, from)
		return ok("%d\t%d\n", max(0, -d), max(0, d))
	case "merge", "reset":
		c.head = slices.Index(c.history, args[len(args)-1])
		return ok("")
	case "read-tree":
		return ok("")
	}
	return opsexec.Result{ExitCode: 1}, fmt.Errorf("fake git does not know %v", args)
}

// The fake's Tree.

func (h *fakeHost) Resolve(dir string) (opsexec.Checkout, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checkouts[dir] == nil {
		return opsexec.Checkout{}, errors.New("no checkout at " + dir)
	}
	return opsexec.Checkout{Dir: dir, Real: dir, GitDir: dir + "/.git"}, nil
}

type fakeLock struct{ unlock func() }

func (l fakeLock) Unlock() error { l.unlock(); return nil }

func (h *fakeHost) Lock(ctx context.Context, co opsexec.Checkout, mode opsexec.LockMode) (opsexec.Lock, error) {
	c := h.checkout(co.Dir)
	for {
		h.mu.Lock()
		if !c.exclusive && (mode == opsexec.Shared || c.shared == 0) {
			if mode == opsexec.Shared {
				c.shared++
			} else {
				c.exclusive = true
			}
			h.mu.Unlock()
			return fakeLock{sync.OnceFunc(func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				if mode == opsexec.Shared {
					c.shared--
				} else {
					c.exclusive = false
				}
				close(c.changed)
				c.changed = make(chan struct{})
			})}, nil
		}
		changed := c.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, opsexec.ErrLocked
		}
	}
}

func (h *fakeHost) Marker(co opsexec.Checkout) (*opsexec.Marker, error) {
	c := h.checkout(co.Dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	return c.marker, nil
}

func (h *fakeHost) SetMarker(co opsexec.Checkout, m *opsexec.Marker) error {
	c := h.checkout(co.Dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	c.marker = m
	return nil
}

func (h *fakeHost) RemoveIndexLock(opsexec.Checkout) (bool, error) { return false, nil }
