package opsexec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// repairTimeout is how long putting a tree right may take. It is not part
	// of the pull's own time: a torn tree is worse than a late answer.
	repairTimeout = 60 * time.Second
	// foreignWait is how long a git that is not ours is waited for.
	foreignWait = 10 * time.Second
	foreignPoll = 500 * time.Millisecond
)

// RepairOptions are what [Repair] needs; the zero value is the real machine.
type RepairOptions struct {
	Env  GitEnv
	Exec Exec // nil means OSExec
	Tree Tree // nil means OSTree
}

// Repair puts a checkout right whose pull was interrupted (the daemon was
// killed, the power failed): dead lock files are removed and the tree goes back
// to the revision before that pull. Call it when a daemon starts. It waits for
// a running pull until ctx ends; a repair that it has begun it also ends, within
// a minute. done says what it did, "" when nothing was wrong.
func Repair(ctx context.Context, dir string, o RepairOptions) (done string, err error) {
	p, err := newPuller(dir, PullOptions{Env: o.Env, Exec: o.Exec, Tree: o.Tree})
	if err != nil {
		return "", err
	}
	fl, err := p.tree.Lock(ctx, p.c, Exclusive)
	if err != nil {
		return "", fmt.Errorf("repairing %s: %w", dir, err)
	}
	defer fl.Unlock()
	removed, err := p.tree.RemoveIndexLock(p.c)
	if err != nil {
		return "", fmt.Errorf("repairing %s: %w", dir, err)
	}
	m, err := p.tree.Marker(p.c)
	if err != nil {
		return "", fmt.Errorf("repairing %s: %w", dir, err)
	}
	if m != nil {
		ctx = context.WithoutCancel(ctx)
		g := p.git.under(fl, repairTimeout)
		st, err := g.status(ctx)
		if err == nil {
			_, done, err = p.mend(ctx, g, st, m)
		}
		if err != nil {
			return "", fmt.Errorf("repairing %s: %w", dir, err)
		}
	} else if removed {
		done = "removed what a killed git left behind"
	}
	return ChatLine(done, p.git.secrets()...), nil
}

// clean makes the tree fit for a pull: dead locks gone, an interrupted pull
// undone, no local changes. mended says what was put right, "" for nothing.
func (p *puller) clean(ctx context.Context, g git) (st gitStatus, mended string, err error) {
	if err := p.removeLocks(ctx); err != nil {
		return st, "", err
	}
	m, err := p.tree.Marker(p.c)
	if err != nil {
		return st, "", err
	}
	if st, err = g.status(ctx); err != nil {
		return st, "", err
	}
	if m != nil {
		if st, mended, err = p.mend(ctx, p.git.under(g.lock, repairTimeout), st, m); err != nil {
			return st, "", err
		}
	}
	if len(st.changed) > 0 {
		return st, "", st.dirtyError(p.c.Dir)
	}
	return st, mended, nil
}

// removeLocks removes dead lock files, giving a foreign git time to end.
func (p *puller) removeLocks(ctx context.Context) error {
	for end := time.Now().Add(foreignWait); ; {
		_, err := p.tree.RemoveIndexLock(p.c)
		if !errors.Is(err, ErrForeignGit) || time.Now().After(end) {
			return err
		}
		if !pause(ctx, foreignPoll) {
			return err
		}
	}
}

// mend undoes the interrupted pull that m tells of. It only does so when HEAD
// is where that pull left it: if somebody has moved it since, they have seen to
// the tree, and what they committed must not be lost.
func (p *puller) mend(ctx context.Context, g git, st gitStatus, m *Marker) (gitStatus, string, error) {
	switch {
	case !objectName.MatchString(m.Old): // an unreadable marker: HEAD moves last, so it is whole
		m = &Marker{Old: st.head}
	case st.head != m.Old && st.head != m.Next:
		if len(st.changed) > 0 {
			return st, "", fmt.Errorf("an interrupted pull of %s, after which HEAD was moved by hand: %w", shortRev(m.Old), st.dirtyError(p.c.Dir))
		}
		return st, "the marker of an interrupted pull was out of date", p.tree.SetMarker(p.c, nil)
	}
	if err := p.keepEdits(ctx, g, st, m); err != nil {
		return st, "", err
	}
	if err := p.undo(ctx, g, m.Old, m.Next); err != nil {
		return st, "", fmt.Errorf("undoing an interrupted pull: %w", err)
	}
	st.head, st.changed = m.Old, nil
	return st, "repaired an interrupted pull, back to " + shortRev(m.Old), nil
}

// keepEdits refuses to undo an interrupted pull when files have been changed that
// it did not touch: somebody has worked here since, and going back would throw
// that away. A file that is merely missing comes back and loses nothing.
func (p *puller) keepEdits(ctx context.Context, g git, st gitStatus, m *Marker) error {
	if len(st.changed) == 0 || !objectName.MatchString(m.Next) {
		return nil
	}
	// Should the new revision never have reached the disk, or the list be too
	// long to be read whole, they cannot be told apart, and the tree is torn.
	touched, err := g.run(ctx, "diff-tree", "-r", "-z", "--name-only", "--no-renames", m.Old, m.Next)
	if err != nil || len(touched.Output) >= keepHead {
		return nil
	}
	there, err := g.run(ctx, "diff-index", "-z", "--name-only", "--no-renames", "--diff-filter=d", "--ignore-submodules=all", "HEAD")
	if err != nil || len(there.Output) >= keepHead {
		return nil
	}
	pulled := strings.Split(touched.Output, "\x00")
	var edits []string
	for _, name := range strings.Split(there.Output, "\x00") {
		if slices.Contains(st.changed, name) && !slices.Contains(pulled, name) {
			edits = append(edits, name)
		}
	}
	if len(edits) == 0 {
		return nil
	}
	st.changed = edits
	return fmt.Errorf("an interrupted pull of %s, after which files that it did not touch were changed: %w", shortRev(m.Next), st.dirtyError(p.c.Dir))
}

// undo takes a tree that stopped somewhere between old and next back to old.
// The index is told of next first: files that only next has are untracked as
// long as it is old's, and going straight back would leave them lying in the way
// of the next pull for ever.
func (p *puller) undo(ctx context.Context, g git, old, next string) error {
	if _, err := p.tree.RemoveIndexLock(p.c); err != nil {
		return err
	}
	if objectName.MatchString(next) {
		// Not needed for old itself, and next may never have reached the disk.
		_, _ = g.run(ctx, "read-tree", "--reset", next)
	}
	if _, err := g.run(ctx, "reset", "--hard", "-q", old); err != nil {
		return err
	}
	return p.tree.SetMarker(p.c, nil)
}
