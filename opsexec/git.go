package opsexec

import (
	"cmp"
	"context"
	"fmt"
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
	Timeout    time.Duration // of fetch, merge and AfterPull together; 0 means 60 s (seed)
	InstanceID string        // service@host, named as the lock's holder

	// An outcome of the same op is joined, and so is one whose pull started at
	// or after IssuedAt (Redis TIME, µs) for the same Revision. A caller that
	// gives neither joins the pull that it finds running, as the original did.
	OpID     string
	IssuedAt int64

	Revision string // commit id (7 or more hex digits) to move to; "" means the upstream's tip

	// AllowBackward lets Revision be an ancestor of HEAD (an explicit
	// rollback); otherwise only fast-forwards are made.
	AllowBackward bool

	Remote string // "" means that of the branch's upstream, else "origin"
	Branch string // "" means the upstream of the checked-out branch, else its namesake

	// AfterPull is an argument vector run in the checkout, under the flock, in
	// git's environment, after every pull that worked, be there news or not: one
	// that failed, or that another puller did not run, is made up for that way.
	// A program named by a relative path with a slash is one of the checkout's.
	// It must leave no process behind: one that lives on in a session of its own
	// keeps the flock.
	AfterPull []string

	Env  GitEnv
	Exec Exec // nil means OSExec
	Tree Tree // nil means OSTree
}

// GitEnv is what may be added to the environment allowlist of git.
type GitEnv struct {
	Pass       []string // "NAME=value" pairs passed on as they are (proxy, CA, agent)
	Home       string   // HOME of git and AfterPull; "" means one that does not exist
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

// RunGitPull fast-forwards the checkout at dir to its upstream, or moves it to
// o.Revision.
//
// Callers that share a checkout and a [PullLock] pull it once between them: the
// others wait for that pull and report its revisions, or its error, as their
// own. The lock in Redis only dedupes. What keeps two gits out of one checkout
// is its flock, which every git inherits, so that it outlives a daemon that is
// killed.
//
// It is not a bare "git pull": one killed at a random moment leaves a torn tree
// that every later pull refuses. Here a dirty tree is refused before anything
// is touched, the fetch touches no file, a marker is on the disk while the tree
// changes, and whoever finds a marker under the flock puts the tree right first.
func RunGitPull(ctx context.Context, dir string, o PullOptions) PullResult {
	p, err := newPuller(dir, o)
	if err != nil {
		return PullResult{Summary: ChatLine(err.Error(), secretsOf(o.Env.Pass)...)}
	}
	var r PullResult
	if o.Lock == nil || o.NoDedupe {
		r = p.alone(ctx, nil)
	} else {
		r = p.deduped(ctx)
	}
	r.Summary = ChatLine(r.Summary, p.git.secrets()...)
	return r
}

// Head returns the revision that the checkout at dir is on.
func Head(ctx context.Context, exec Exec, tree Tree, dir string) (string, error) {
	c, err := tree.Resolve(dir)
	if err != nil {
		return "", err
	}
	g, err := newGit(c, exec, GitEnv{})
	if err != nil {
		return "", err
	}
	return g.revision(ctx, "HEAD")
}

// pullSlack is what a pull may take beyond its timeout and the kill grace until
// its lock is released: Redis round trips, a stalled host.
const pullSlack = 10 * time.Second

// ValidatePullTimes checks that the pull lock outlives the longest pull, which
// ends with its timeout, the grace of SIGTERM and the wait after SIGKILL.
func ValidatePullTimes(timeout, lockTTL time.Duration) error {
	timeout, lockTTL = cmp.Or(timeout, DefaultPullTimeout), cmp.Or(lockTTL, DefaultLockTTL)
	if timeout < 0 {
		return fmt.Errorf("pull timeout %v is negative", timeout)
	}
	if least := timeout + DefaultGrace + reapWait + pullSlack; lockTTL < least {
		return fmt.Errorf("lock_ttl %v is shorter than a pull may take: pull timeout %v + kill grace %v + slack %v: set lock_ttl to at least %v",
			lockTTL, timeout, DefaultGrace, reapWait+pullSlack, least)
	}
	return nil
}
