package opsexec

import (
	"context"
	"errors"
)

// Checkout is a git checkout with its aliases resolved.
type Checkout struct {
	Dir    string // absolute path as configured: what the Redis lock is named by (seed)
	Real   string // the same, free of symbolic links
	GitDir string // absolute, resolved git directory: where the flock and the marker live
}

// LockMode says how a checkout's flock is taken.
type LockMode int

const (
	Shared    LockMode = iota // a restart: waits for a running pull, and holds off the next
	Exclusive                 // a pull
)

// Lock is a held lock on a checkout.
type Lock interface {
	// Unlock closes this holder's descriptor. The lock is free once every
	// process that inherited it has ended as well.
	Unlock() error
}

// ErrLocked is returned by [Tree.Lock] when the context ended while another
// process held the lock.
var ErrLocked = errors.New("checkout is locked by another process")

// ErrForeignGit is returned by [Tree.RemoveIndexLock] when a lock file of git
// belongs to a git that is alive and not ours (one started by hand, or by a
// service of the original system).
var ErrForeignGit = errors.New("another git is at work in the checkout")

// Marker is the note left in the git directory while a pull changes the tree:
// whoever finds it knows that the pull was interrupted, and what to go back to.
type Marker struct {
	Old  string `json:"old"`  // revision before the pull
	OpID string `json:"op"`   // op that pulled, may be empty
	By   string `json:"by"`   // instance that pulled
	Next string `json:"next"` // revision the pull was going to, when known
}

// Tree is the file system side of a checkout. [OSTree] is the real one.
type Tree interface {
	// Resolve finds the checkout at dir. It fails when dir is no git checkout
	// or is not owned by the calling user; the error names the way out.
	Resolve(dir string) (Checkout, error)

	// Lock takes the checkout's flock, waiting until ctx ends ([ErrLocked]
	// then). A free lock is taken at once, however short the wait.
	Lock(ctx context.Context, c Checkout, mode LockMode) (Lock, error)

	// Marker reads the marker; nil when there is none.
	Marker(c Checkout) (*Marker, error)
	// SetMarker writes the marker durably before the tree is touched, or with
	// nil removes it.
	SetMarker(c Checkout, m *Marker) error

	// RemoveIndexLock removes a stale index.lock (and other dead lock files of
	// git) and says whether there was one. Only the holder of the exclusive
	// flock may call it: no git of ours is at work then. One that is alive and
	// not ours makes it [ErrForeignGit], and nothing is removed.
	RemoveIndexLock(c Checkout) (removed bool, err error)
}
