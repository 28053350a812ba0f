package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// Shares of a pull's duration, and what git's small commands take.
const (
	fetchShare  = 0.85
	smallGit    = 4 * time.Millisecond
	afterPull   = 500 * time.Millisecond
	termLatency = 30 * time.Millisecond // from SIGTERM to a git's end
)

// gitJob is a running command in a checkout. It outlives the process that
// started it, unless the power fails.
type gitJob struct {
	c     *checkout
	inc   *incarnation
	lock  *treeLock // inherited; nil for none
	args  []string  // without git and its options
	began time.Time
	done  chan struct{} // closed when it has ended
	res   opsexec.Result
	over  bool
	undo  func() // takes its end back
	// effect is applied when it ends by itself; it returns output and exit code.
	effect func() (string, int)
	writes bool // it changes the tree: killing it tears that
}

// exec implements [opsexec.Exec].
func (inc *incarnation) exec(ctx context.Context, cmd opsexec.Cmd) (opsexec.Result, error) {
	if err := inc.gate(ctx); err != nil {
		return opsexec.Result{ExitCode: -1}, err
	}
	c := inc.proc.host.checkout(cmd.Dir)
	if c == nil || len(cmd.Argv) == 0 {
		inc.proc.w.internal(fmt.Sprintf("command %q in %q: not a command that the simulated hosts know", cmd.Argv, cmd.Dir))
		return opsexec.Result{ExitCode: -1}, errors.New("no such command")
	}
	by, op, cause := c.actor(inc)
	c.mu.Lock()
	j := c.startLocked(inc, cmd, by, op, cause)
	c.mu.Unlock()
	return j.wait(ctx, cmd)
}

// actor finds out for which instance, and on behalf of which op, a process is
// at work in the checkout: the holder of the pull lock, else the first instance
// on the checkout that has an op to do.
func (c *checkout) actor(inc *incarnation) (by, op string, cause Ref) {
	by = c.w.facts.lockHolder(c.h.name, c.path)
	for _, u := range c.h.units {
		if u.tree != c || u.instance == "" || !slices.Contains(inc.proc.serves, u.instance) {
			continue
		}
		if by != "" && u.instance != by {
			continue
		}
		if o, ref := c.w.facts.runningOp(u.instance); o != "" {
			return u.instance, o, ref
		}
	}
	return by, "", 0
}

// gitArgs strips git and its options from an argument vector; nil when it is
// no git command.
func gitArgs(argv []string) []string {
	if argv[0] != "git" && !strings.HasSuffix(argv[0], "/git") {
		return nil
	}
	a := argv[1:]
	for len(a) > 1 && (a[0] == "-c" || a[0] == "-C") {
		a = a[2:]
	}
	return a
}

func (c *checkout) startLocked(inc *incarnation, cmd opsexec.Cmd, by, op string, cause Ref) *gitJob {
	j := &gitJob{c: c, inc: inc, began: time.Now(), done: make(chan struct{})}
	if l, ok := cmd.Lock.(*treeLock); ok {
		j.lock = l
		l.gits++
	}
	rnd := c.rndLocked(inc.proc)
	took := smallGit/2 + time.Duration(rnd.Int64N(int64(smallGit)))
	j.args = gitArgs(cmd.Argv)
	if j.args == nil {
		took = afterPull + time.Duration(rnd.Int64N(int64(afterPull)))
		j.effect = func() (string, int) { return "", 0 }
	} else {
		took = c.planLocked(j, took)
		if j.args[0] == "fetch" {
			c.pull = &pullRun{inc: inc, op: op, by: by, old: c.head}
			e := c.event(inc.proc.name, EvPullStarted, "old", c.head, "by", by)
			e.Op, e.Instance = op, by
			c.pull.started = c.w.trace.Add(e, cause)
		}
	}
	c.jobs = append(c.jobs, j)
	j.undo = c.w.dir.after(took, "git "+c.h.name+":"+c.path+" "+inc.proc.name, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !j.over {
			out, code := j.effect()
			j.endLocked(out, code)
		}
	})
	return j
}

// planLocked decides what a git command does and how long it takes.
func (c *checkout) planLocked(j *gitJob, took time.Duration) time.Duration {
	slow := 1.0
	for _, f := range c.slow {
		slow *= f
	}
	model, rnd := c.w.plan.Models.GitPull, c.rndLocked(j.inc.proc)
	switch j.args[0] {
	case "status":
		j.effect = func() (string, int) { return c.statusLocked(), 0 }
	case "diff-tree": // what a pull changes
		j.effect = func() (string, int) { return strings.Join(pulledFiles, "\x00") + "\x00", 0 }
	case "diff-index": // what differs from HEAD
		j.effect = func() (string, int) { return strings.Join(c.changedLocked(), "\x00"), 0 }
	case "rev-parse":
		name := strings.TrimSuffix(j.args[len(j.args)-1], "^{commit}")
		j.effect = func() (string, int) { return c.revParseLocked(name) }
	case "rev-list":
		i := slices.IndexFunc(j.args, func(a string) bool { return strings.Contains(a, "...") })
		j.effect = func() (string, int) { return c.distanceLocked(j.args[max(i, 0)]) }
	case "fetch":
		took = time.Duration(float64(model.draw(rnd)) * fetchShare * slow)
		fails := model.fails(rnd)
		j.effect = func() (string, int) { return c.fetchLocked(fails) }
	case "read-tree":
		j.effect = func() (string, int) {
			if c.indexLock || c.foreign {
				return c.lockedIndex()
			}
			return "", 0
		}
	case "merge", "reset":
		took = time.Duration(float64(model.draw(rnd)) * (1 - fetchShare) * slow)
		j.writes = true
		to := j.args[len(j.args)-1]
		j.effect = func() (string, int) { return c.moveLocked(j.args[0], to) }
	default:
		c.w.internal(fmt.Sprintf("git %q: not a command that the simulated git knows", j.args))
		j.effect = func() (string, int) { return "git: '" + j.args[0] + "' is not a git command", 1 }
	}
	return took
}

func (c *checkout) lockedIndex() (string, int) {
	return "fatal: Unable to create '" + c.path + "/.git/index.lock': File exists.", 128
}

func (c *checkout) revParseLocked(name string) (string, int) {
	switch {
	case name == "HEAD":
		return c.head + "\n", 0
	case strings.HasPrefix(name, "refs/remotes/") && c.tracking != "":
		return c.tracking + "\n", 0
	}
	// Only what was fetched is known.
	if i := c.w.remote.find(name); i >= 0 && i <= max(c.w.remote.find(c.tracking), c.w.remote.find(c.head)) {
		return c.w.remote.at(i) + "\n", 0
	}
	return "fatal: Needed a single revision", 128
}

func (c *checkout) distanceLocked(arg string) (string, int) {
	from, to, ok := strings.Cut(arg, "...")
	a, b := c.w.remote.find(from), c.w.remote.find(to)
	if !ok || a < 0 || b < 0 {
		return "fatal: bad revision '" + arg + "'", 128
	}
	return fmt.Sprintf("%d\t%d\n", max(0, a-b), max(0, b-a)), 0
}

func (c *checkout) fetchLocked(fails bool) (string, int) {
	switch {
	case len(c.fail) > 0:
		return c.fail[len(c.fail)-1], 128
	case fails:
		return "fatal: unable to access the remote: Could not resolve host", 128
	}
	c.tracking = c.w.remote.tip()
	if c.pull != nil {
		c.pull.ok = true
	}
	return "", 0
}

// moveLocked is merge --ff-only, or reset --hard, which also heals a torn
// tree.
func (c *checkout) moveLocked(how, to string) (string, int) {
	if c.indexLock || c.foreign {
		c.spoilLocked()
		return c.lockedIndex()
	}
	i := c.w.remote.find(to)
	if i < 0 {
		c.spoilLocked()
		return "fatal: " + to + " - not something we can " + how, 128
	}
	if how == "merge" && len(c.changedLocked()) > 0 {
		c.spoilLocked()
		return "error: Your local changes to the following files would be overwritten by merge:\n\tapp/main.py\nAborting", 1
	}
	if how == "reset" {
		if c.torn {
			c.w.trace.Add(c.event("git@"+c.h.name, EvMended), 0)
		}
		c.torn, c.dirty = false, nil
	}
	if old := c.head; old != c.w.remote.at(i) {
		c.head = c.w.remote.at(i)
		e := c.event("git@"+c.h.name, EvRevision, "old", old, "new", c.head)
		if c.pull != nil {
			e.Op = c.pull.op
			c.w.trace.Add(e, c.pull.started)
		} else {
			c.w.trace.Add(e, 0)
		}
	}
	return "", 0
}

func (c *checkout) spoilLocked() {
	if c.pull != nil {
		c.pull.ok = false
	}
}

// endLocked ends a command.
func (j *gitJob) endLocked(out string, code int) {
	c := j.c
	j.over = true
	j.res = opsexec.Result{Output: out, ExitCode: code, Duration: time.Since(j.began)}
	c.jobs = slices.DeleteFunc(c.jobs, func(x *gitJob) bool { return x == j })
	if len(j.args) == 0 {
		c.w.trace.Add(c.event(j.inc.proc.name, EvAfterPull, "exit", strconv.Itoa(code)), 0)
	} else if j.args[0] == "fetch" || j.writes {
		if code != 0 {
			c.spoilLocked()
		}
		c.w.trace.Add(c.event(j.inc.proc.name, EvGit, "argv", strings.Join(j.args, " "), "exit", strconv.Itoa(code),
			"ms", strconv.FormatInt(j.res.Duration.Milliseconds(), 10)), 0)
	}
	close(j.done)
	if j.lock != nil {
		j.lock.gits--
		c.freeLocked(j.lock, "orphan_ended")
		c.grantLocked()
	}
}

// killLocked is SIGKILL: git cleans nothing up.
func (j *gitJob) killLocked() {
	if j.over {
		return
	}
	j.undo()
	if j.writes {
		j.tearLocked()
		j.c.indexLock = true
	}
	j.endLocked("", -1)
}

// tearLocked leaves the tree somewhere between two revisions.
func (j *gitJob) tearLocked() {
	j.c.torn = true
	j.c.w.trace.Add(j.c.event("git@"+j.c.h.name, EvTorn), 0)
}

// terminate is SIGTERM: git removes its lock files, but a tree that it was
// changing stays torn.
func (j *gitJob) terminate() {
	c := j.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if j.over {
		return
	}
	j.undo()
	latency := termLatency + time.Duration(c.rndLocked(j.inc.proc).Int64N(int64(termLatency)))
	j.undo = c.w.dir.after(latency, "git term "+c.h.name+":"+c.path+" "+j.inc.proc.name, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if j.over {
			return
		}
		if j.writes {
			j.tearLocked()
		}
		j.endLocked("", -1)
	})
}

// wait is the caller's side of a command.
func (j *gitJob) wait(ctx context.Context, cmd opsexec.Cmd) (opsexec.Result, error) {
	var expired <-chan time.Time
	if cmd.Timeout > 0 {
		t := time.NewTimer(cmd.Timeout)
		defer t.Stop()
		expired = t.C
	}
	var cause error
	select {
	case <-j.done:
	case <-j.inc.dead:
		return opsexec.Result{ExitCode: -1}, errFenced
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-expired:
		cause = fmt.Errorf("timed out after %v", cmd.Timeout)
	}
	if cause != nil {
		j.terminate()
		select {
		case <-j.done:
		case <-j.inc.dead:
			return opsexec.Result{ExitCode: -1}, errFenced
		}
	}
	if err := j.inc.gate(context.Background()); err != nil {
		return opsexec.Result{ExitCode: -1}, err
	}
	j.c.mu.Lock()
	res := j.res
	j.c.mu.Unlock()
	name := "git"
	if len(j.args) > 0 {
		name += " " + j.args[0]
	} else {
		name = cmd.Argv[0]
	}
	switch {
	case cause != nil && res.ExitCode != 0:
		res.TimedOut = ctx.Err() == nil
		return res, fmt.Errorf("%s: %w", name, cause)
	case res.ExitCode < 0:
		return res, fmt.Errorf("%s: killed", name)
	case res.ExitCode > 0:
		return res, fmt.Errorf("%s: exit status %d: %s", name, res.ExitCode, strings.ReplaceAll(res.Output, "\n", " "))
	}
	return res, nil
}
