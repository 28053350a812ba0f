package opsexec

import (
	"context"
	"time"
)

// The original system's defaults of run_git_pull (seed).
const (
	DefaultLockTTL     = 90 * time.Second
	DefaultPullTimeout = 60 * time.Second
)

// PullLock is the fleet-visible lock that dedupes pulls of one checkout on one
// host, and the record of the newest pull's outcome. control implements it
// over Redis. It only dedupes; what fences is the checkout's flock.
type PullLock interface {
	// TryLock takes the lock for ttl. When another holds it, held is false and
	// holder names it. at is the lock's own clock (Redis TIME, µs since the
	// epoch) when it was asked.
	TryLock(ctx context.Context, ttl time.Duration) (held bool, holder PullHolder, at int64, err error)
	// Holder names the present holder; the zero value when the lock is free.
	Holder(ctx context.Context) (PullHolder, error)
	// Unlock releases the lock if, and only if, it is still ours.
	Unlock(ctx context.Context) error
	// Outcome reads the newest pull's outcome; nil when there is none.
	Outcome(ctx context.Context) (*PullOutcome, error)
	// SetOutcome records an outcome; the holder does so before Unlock.
	SetOutcome(ctx context.Context, o PullOutcome) error
}

// PullHolder is who holds a [PullLock].
type PullHolder struct {
	Instance string // service@host; "" when the lock is free
	// Foreign marks a holder that is no sgfleet, such as a service of the
	// original system (its value is not "instance:token" of our making): it
	// takes no flock and records no outcome, so its lock must be waited out.
	Foreign bool
}

// PullOutcome is what the newest pull of a checkout came to.
type PullOutcome struct {
	OpID    string `json:"op"`
	Holder  string `json:"holder"`           // instance that pulled
	Started int64  `json:"started"`          // Redis TIME, µs
	Pinned  string `json:"pinned,omitempty"` // the revision asked for, "" for the upstream's tip
	Old     string `json:"old,omitempty"`
	New     string `json:"new,omitempty"`
	Error   string `json:"error,omitempty"` // "" when it worked
}

// PullOptions are the arguments of [RunGitPull] beside the directory. The zero
// value pulls undeduped with the original's defaults.
type PullOptions struct {
	// Lock dedupes with the other services that share the checkout; nil (or
	// NoDedupe) always pulls, still under the flock.
	Lock     PullLock
	NoDedupe bool

	LockTTL    time.Duration // 0 means 90 s (seed)
	Timeout    time.Duration // of the whole pull; 0 means 60 s (seed)
	InstanceID string        // service@host, named as the lock's holder

	OpID     string // outcome of the same op is joined
	IssuedAt int64  // Redis TIME, µs: an outcome that started at or after it is joined
	Revision string // commit to move to; "" means the tip of the upstream branch

	// AllowBackward lets Revision be an ancestor of HEAD (an explicit
	// rollback); otherwise only fast-forwards are made.
	AllowBackward bool

	Remote    string   // "" means "origin"
	Branch    string   // "" means the checked-out branch
	AfterPull []string // argument vector run under the flock after a pull

	Env  GitEnv
	Exec Exec // nil means OSExec
	Tree Tree // nil means OSTree
}

// GitEnv is what may be added to the environment allowlist of git.
type GitEnv struct {
	Pass       []string // "NAME=value" pairs passed on as they are (proxy, CA, agent)
	Home       string   // HOME of git; "" means an empty directory of its own
	SSHKey     string   // deploy key file
	KnownHosts string
	AllowFile  bool // permit file remotes
}

// PullResult is the original's (ran, ok, summary) with what became of the
// checkout. Ran=false, OK=true means that another local service handled the
// pull: a clean dedupe skip.
type PullResult struct {
	Ran     bool
	OK      bool
	Summary string // one line, fit for chat

	Busy   bool   // nothing was tried or waited out: the checkout is in other hands
	Joined bool   // Old, New and the error are those of Holder's pull
	Holder string // who pulled, when Joined
	Old    string // HEAD before
	New    string // HEAD after
}

// RunGitPull is written in full below its helpers; its signature is fixed here
// so that control and the simulator build against it.
var _ = func(ctx context.Context, dir string, o PullOptions) (r PullResult) { return r }
