package opsexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lockFile is the file in the git directory whose flock fences pulls and
// restarts of a checkout. The kernel frees it when the last process that holds
// a descriptor of it has ended: no time limit, no clock.
const lockFile = "sgfleet.lock"

// flock is a held lock: an open file description. It is only ever closed, never
// unlocked: LOCK_UN would take it from a command that inherited it as well.
type flock struct{ f *os.File }

func (l *flock) Unlock() error { return l.f.Close() }

// Lock implements [Tree]. A waiting lock polls, since a blocked flock(2) could
// not be called off.
func (t OSTree) Lock(ctx context.Context, c Checkout, mode LockMode) (Lock, error) {
	path := filepath.Join(commonDir(c.GitDir), lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking checkout %s: %w", c.Dir, err)
	}
	how := syscall.LOCK_SH
	if mode == Exclusive {
		how = syscall.LOCK_EX
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return &flock{f}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking checkout %s: flock %s: %w", c.Dir, path, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			f.Close()
			if who := holdersOf(path); len(who) > 0 {
				return nil, fmt.Errorf("%w: %s", ErrLocked, strings.Join(who, ", "))
			}
			return nil, ErrLocked
		}
	}
}

// commonDir is where the refs and the configuration of a git directory live:
// itself, except for a linked worktree (gitrepository-layout(5)). The flock is
// there, since worktrees share refs that a pull changes.
func commonDir(gitDir string) string {
	b, err := os.ReadFile(filepath.Join(gitDir, "commondir"))
	if err != nil {
		return gitDir
	}
	dir := strings.TrimSpace(string(b))
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(gitDir, dir)
	}
	return filepath.Clean(dir)
}
