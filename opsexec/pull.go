package opsexec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// puller is one call of [RunGitPull].
type puller struct {
	o    PullOptions // defaults filled in
	tree Tree
	c    Checkout
	git  git
}

func newPuller(dir string, o PullOptions) (*puller, error) {
	if o.Exec == nil {
		o.Exec = OSExec
	}
	if o.Tree == nil {
		o.Tree = OSTree{}
	}
	o.LockTTL = cmp.Or(o.LockTTL, DefaultLockTTL)
	o.Timeout = cmp.Or(o.Timeout, DefaultPullTimeout)
	if err := errors.Join(checkName("remote", o.Remote), checkName("branch", o.Branch), checkRevision(o.Revision)); err != nil {
		return nil, err
	}
	c, err := o.Tree.Resolve(dir)
	if err != nil {
		return nil, err
	}
	g, err := newGit(c, o.Exec, o.Env)
	if err != nil {
		return nil, err
	}
	return &puller{o: o, tree: o.Tree, c: c, git: g}, nil
}

// target is where a pull goes from and to.
type target struct {
	old, next     string
	remote, ref   string // ref is the tracking ref of the upstream
	ahead, behind int
}

// locked pulls, under the exclusive flock fl.
func (p *puller) locked(ctx context.Context, fl Lock) PullResult {
	g := p.git.under(fl, p.o.Timeout)
	st, mended, err := p.clean(ctx, g)
	if err != nil {
		return p.failed(PullResult{Ran: true, Old: st.head, New: st.head}, err)
	}
	r := PullResult{Ran: true, Old: st.head, New: st.head}
	t, err := p.aim(ctx, g, st)
	if err != nil {
		return p.failed(r, err)
	}
	if err := p.move(ctx, g, fl, t); err != nil {
		return p.failed(r, err)
	}
	r.New, r.OK, r.Summary = t.next, true, t.summary()
	if mended != "" {
		r.Summary += " (" + mended + ")"
	}
	if len(p.o.AfterPull) > 0 {
		if _, err := g.command(ctx, p.o.AfterPull); err != nil {
			r.OK = false
			r.Summary = fmt.Sprintf("%s, but after_pull failed: %v", t.summary(), err)
		}
	}
	return r
}

// failed fills in a result that err ended.
func (p *puller) failed(r PullResult, err error) PullResult {
	r.OK, r.Summary = false, err.Error()
	r.Busy = errors.Is(err, ErrLocked) || errors.Is(err, ErrForeignGit)
	if r.Busy {
		r.Ran, r.Summary = false, "busy: "+err.Error()
	}
	return r
}

// remoteAdvice adds to an error of fetch what to look at.
func remoteAdvice(err error) error {
	says := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch {
	case says("Host key verification failed"):
		return fmt.Errorf("%w: put the remote's host key into the file of git.known_hosts", err)
	case says("error in libcrypto"), says("invalid format"):
		return fmt.Errorf("%w: the file of git.ssh_key is no private key that ssh can read", err)
	case says("Permission denied (publickey"):
		return fmt.Errorf("%w: the remote wants another deploy key (git.ssh_key)", err)
	}
	return err
}

// aim fetches and decides where to go; t.next == t.old means nowhere.
func (p *puller) aim(ctx context.Context, g git, st gitStatus) (target, error) {
	t := target{old: st.head, next: st.head}
	if p.o.Revision == st.head {
		return t, nil // nothing to ask the remote for
	}
	branch, err := t.upstream(st, p.o)
	if err != nil {
		return t, err
	}
	refspec := "+refs/heads/" + branch + ":" + t.ref
	if _, err := g.run(ctx, "fetch", "-q", "--no-tags", "--no-recurse-submodules", "--", t.remote, refspec); err != nil {
		return t, remoteAdvice(err)
	}
	name := cmp.Or(p.o.Revision, t.ref)
	next, err := g.revision(ctx, name)
	if err != nil {
		if p.o.Revision != "" {
			return t, fmt.Errorf("revision %s is not in %s/%s: %w", p.o.Revision, t.remote, branch, err)
		}
		return t, err
	}
	if next == t.old {
		return t, nil
	}
	if t.ahead, t.behind, err = g.distance(ctx, t.old, next); err != nil {
		return t, err
	}
	switch {
	case t.ahead > 0 && t.behind > 0:
		return t, fmt.Errorf("refused: %s and %s have diverged (%s here, %s there): only fast-forwards are made",
			shortRev(t.old), shortRev(next), commits(t.ahead), commits(t.behind))
	case t.ahead > 0 && p.o.Revision == "":
		return t, nil // local commits on top of the upstream: up to date
	case t.ahead > 0 && !p.o.AllowBackward:
		return t, fmt.Errorf("refused: %s is %s behind the checkout's %s, and going backward was not asked for",
			shortRev(next), commits(t.ahead), shortRev(t.old))
	}
	t.next = next
	return t, nil
}

// upstream finds what to fetch: what the caller named, else what the
// checked-out branch follows.
func (t *target) upstream(st gitStatus, o PullOptions) (branch string, err error) {
	remote, followed, _ := strings.Cut(st.upstream, "/")
	t.remote = cmp.Or(o.Remote, remote, "origin")
	if t.remote != remote {
		followed = ""
	}
	branch = cmp.Or(o.Branch, followed, st.branch)
	if branch == "" {
		return "", errors.New("refused: HEAD is detached: set the checkout's branch in the config, or check one out")
	}
	if err := errors.Join(checkName("remote", t.remote), checkName("branch", branch)); err != nil {
		return "", err
	}
	t.ref = "refs/remotes/" + t.remote + "/" + branch
	return branch, nil
}

// move changes the tree, between setting and removing the marker.
func (p *puller) move(ctx context.Context, g git, fl Lock, t target) error {
	if t.next == t.old {
		return nil
	}
	args := []string{"merge", "--ff-only", "--no-stat", "-q", t.next}
	if t.ahead > 0 { // back to an ancestor; the tree was found clean
		args = []string{"reset", "--hard", "-q", t.next}
	}
	// A dry run: an untracked file in the way is found before the marker is
	// set, so that whatever is in the way after an interruption is our own.
	if _, err := g.run(ctx, "read-tree", "-n", "-m", "-u", t.old, t.next); err != nil {
		return blockedByIndexLock(err)
	}
	if err := p.tree.SetMarker(p.c, &Marker{Old: t.old, Next: t.next, OpID: p.o.OpID, By: p.o.InstanceID}); err != nil {
		return fmt.Errorf("nothing changed: %w", err)
	}
	if _, err := g.run(ctx, args...); err != nil {
		if err = blockedByIndexLock(err); errors.Is(err, ErrForeignGit) {
			return errors.Join(err, p.tree.SetMarker(p.c, nil)) // it had not begun
		}
		// The daemon may be ending (ctx), the tree must be whole all the same.
		g = p.git.under(fl, repairTimeout)
		if uerr := p.undo(context.WithoutCancel(ctx), g, t.old, t.next); uerr != nil {
			return fmt.Errorf("%w; going back to %s failed too, the next pull tries again: %w", err, shortRev(t.old), uerr)
		}
		return err
	}
	return p.tree.SetMarker(p.c, nil)
}

// blockedByIndexLock marks the error of a git that found the index locked: a
// git that is not ours has begun since we looked.
func blockedByIndexLock(err error) error {
	if s := err.Error(); strings.Contains(s, "index.lock") && strings.Contains(s, "File exists") {
		return fmt.Errorf("%w: %w", ErrForeignGit, err)
	}
	return err
}

// summary says what the pull did.
func (t target) summary() string {
	switch {
	case t.next == t.old && t.ahead > 0:
		return fmt.Sprintf("up to date at %s, %s ahead of the upstream", shortRev(t.old), commits(t.ahead))
	case t.next == t.old:
		return "up to date at " + shortRev(t.old)
	case t.ahead > 0:
		return fmt.Sprintf("%s..%s, back %s", shortRev(t.old), shortRev(t.next), commits(t.ahead))
	}
	return fmt.Sprintf("%s..%s, %s", shortRev(t.old), shortRev(t.next), commits(t.behind))
}

func commits(n int) string {
	if n == 1 {
		return "1 commit"
	}
	return fmt.Sprintf("%d commits", n)
}

// shortRev is a revision as people write it.
func shortRev(rev string) string { return rev[:min(len(rev), 10)] }

// pause sleeps for d, less when ctx ends first; false then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
