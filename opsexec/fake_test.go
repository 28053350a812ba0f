package opsexec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// The revisions of fakes: rev(n) is commit n of a straight line.
func rev(n int) string { return fmt.Sprintf("%040x", n) }

// fakeGit is an Exec that knows the git commands of a pull, on a straight line
// of commits, in the bubble's time.
type fakeGit struct {
	mu       sync.Mutex
	head     int // commit of the checkout
	upstream int // commit of the remote
	tracked  int // commit of the tracking ref
	running  int
	ran      []string // subcommands, in order

	fetch   time.Duration // how long it takes
	fails   string        // subcommand that fails
	overlap bool          // two commands that write ran at once
}

func (f *fakeGit) exec(ctx context.Context, cmd Cmd) (Result, error) {
	argv := cmd.Argv[1:]
	for len(argv) > 1 && argv[0] == "-c" {
		argv = argv[2:]
	}
	name := cmd.Argv[0]
	if name == "git" {
		name = argv[0]
	}
	f.mu.Lock()
	f.ran = append(f.ran, name)
	f.running++
	f.overlap = f.overlap || f.running > 1
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.running--; f.mu.Unlock() }()
	if name == "fetch" && !pause(ctx, f.fetch) {
		return Result{ExitCode: -1}, fmt.Errorf("git fetch: %w", context.Cause(ctx))
	}
	if name == f.fails {
		return Result{ExitCode: 128}, fmt.Errorf("git %s: exit status 128: fatal: it fails", name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runLocked(name, argv)
}

func (f *fakeGit) runLocked(name string, argv []string) (Result, error) {
	switch name {
	case "status":
		return Result{Output: "# branch.oid " + rev(f.head) + "\x00# branch.head main\x00# branch.upstream origin/main\x00"}, nil
	case "fetch":
		f.tracked = f.upstream
	case "rev-parse":
		return Result{Output: rev(f.tracked) + "\n"}, nil
	case "rev-list":
		return Result{Output: fmt.Sprintf("0\t%d\n", f.tracked-f.head)}, nil
	case "merge", "reset":
		if _, err := fmt.Sscanf(argv[len(argv)-1], "%x", &f.head); err != nil {
			return Result{ExitCode: 1}, err
		}
	}
	return Result{}, nil
}

func (f *fakeGit) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.ran {
		if r == name {
			n++
		}
	}
	return n
}

// fakeTree is a Tree in memory whose exclusive lock is a channel.
type fakeTree struct {
	lock    chan struct{} // holds a token while free
	marker  *Marker
	foreign time.Time // until when a foreign git is at work
}

func newFakeTree() *fakeTree {
	t := &fakeTree{lock: make(chan struct{}, 1)}
	t.lock <- struct{}{}
	return t
}

type fakeLock struct{ t *fakeTree }

func (l fakeLock) Unlock() error { l.t.lock <- struct{}{}; return nil }

func (t *fakeTree) Resolve(dir string) (Checkout, error) {
	if !strings.HasPrefix(dir, "/") {
		return Checkout{}, errors.New("not absolute")
	}
	return Checkout{Dir: dir, Real: dir, GitDir: dir + "/.git"}, nil
}

func (t *fakeTree) Lock(ctx context.Context, _ Checkout, _ LockMode) (Lock, error) {
	select {
	case <-t.lock:
		return fakeLock{t}, nil
	default:
	}
	select {
	case <-t.lock:
		return fakeLock{t}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: git (pid 1)", ErrLocked)
	}
}

func (t *fakeTree) Marker(Checkout) (*Marker, error)      { return t.marker, nil }
func (t *fakeTree) SetMarker(_ Checkout, m *Marker) error { t.marker = m; return nil }

func (t *fakeTree) RemoveIndexLock(Checkout) (bool, error) {
	if time.Now().Before(t.foreign) {
		return false, fmt.Errorf("%w: git (pid 7)", ErrForeignGit)
	}
	return false, nil
}
