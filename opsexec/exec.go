// Package opsexec runs what an op asks for on one host: hardened commands, git
// pulls of shared checkouts, restarts of systemd units whose outcome is
// reported truthfully.
//
// It imports the standard library only, so that anything may import it: what it
// needs from outside (a lock in Redis, the D-Bus side of systemd) is an
// argument. Its seams to the operating system are [Exec], [Units] and [Tree];
// every judgement (did the restart really work, is the tree torn, whose pull is
// it) is made above them and so is the same in production and in the simulator.
//
// Call [RunGitPull] to pull a checkout and [RestartUnit] to restart a unit.
package opsexec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cmd is one command to run: an argument vector, never a shell line.
type Cmd struct {
	Argv []string // Argv[0] is looked up in PATH of Env; with a slash in it, it is a path from Dir
	Dir  string   // working directory; "" means "/"

	// Env is the whole environment of the command; nothing is inherited from
	// the daemon, so no secret of it can leak into a hook or a log.
	Env []string

	// Timeout, when positive, ends the command's process group: SIGTERM, then
	// SIGKILL after Grace (zero means 10 s). A cancelled context does the same.
	Timeout time.Duration
	Grace   time.Duration

	// Lock, when set, is a lock from [Tree.Lock] that the command inherits: it
	// stays held until the command has ended too, even when the daemon that
	// took it is killed.
	Lock Lock

	// As, when set, is the user that root runs the command as.
	As *syscall.Credential
}

// Result is what a command that was started did.
type Result struct {
	Output   string        // stdout and stderr, capped while read: head and tail kept
	ExitCode int           // −1 when ended by a signal
	TimedOut bool          // ended because of Timeout
	Duration time.Duration // wall time
}

// Exec runs one command to its end. The error is nil only for exit code 0; a
// command that could not be started, timed out, was cancelled or exited
// otherwise is an error that says which and carries a one-line excerpt of the
// output. [OSExec] is the real one.
type Exec func(ctx context.Context, cmd Cmd) (Result, error)

const (
	// DefaultGrace is how long a command may take to end after SIGTERM: git
	// removes its lock files then, which SIGKILL does not let it do.
	DefaultGrace = 10 * time.Second
	// pipeWait is how long the output of a command is awaited after the command
	// has ended: a grandchild that holds the pipe must not hang us.
	pipeWait = 2 * time.Second
	// reapWait is how long a killed process may take to die. One in
	// uninterruptible sleep (a dead NFS server) may never do.
	reapWait = 5 * time.Second
)

// OSExec is the real [Exec]. The command leads a process group of its own,
// which is killed whole; when the command has ended, whatever is left of the
// group is killed too. Its standard input is empty.
//
// There is no parent-death signal: git has to outlive a daemon that was killed,
// since the orphan keeps the checkout's flock until it has ended.
func OSExec(ctx context.Context, cmd Cmd) (Result, error) {
	p, err := startProcess(ctx, cmd)
	if err != nil {
		return Result{ExitCode: -1}, fmt.Errorf("%s: not started: %w", commandName(cmd.Argv), err)
	}
	return p.wait(ctx, cmd)
}

// process is a started command and the goroutines that look after it.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	pipe    *os.File      // our end of its output
	out     *cappedOutput // filled by a goroutine until eof is closed
	eof     chan struct{}
	exited  chan struct{} // closed when the process has ended; it is not reaped yet
}

func startProcess(ctx context.Context, cmd Cmd) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := cmp.Or(cmd.Dir, "/")
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("working directory: %w", err) // Start would blame the program
	}
	path, err := lookPath(cmd.Argv, dir, cmd.Env)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	c := &exec.Cmd{
		Path: path, Args: cmd.Argv, Dir: dir,
		Env:    append([]string{}, cmd.Env...), // never nil, which would mean the daemon's own
		Stdout: w, Stderr: w,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Credential: cmd.As},
	}
	if l, ok := cmd.Lock.(*flock); ok {
		c.ExtraFiles = []*os.File{l.f}
	}
	p := &process{
		cmd: c, started: time.Now(), pipe: r, out: &cappedOutput{},
		eof: make(chan struct{}), exited: make(chan struct{}),
	}
	if err := c.Start(); err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		defer close(p.eof)
		_, _ = io.Copy(p.out, r) // never fails to write; a read ends with EOF or our deadline
	}()
	go func() {
		defer close(p.exited)
		awaitExit(c.Process.Pid)
	}()
	return p, nil
}

// wait sees the process to its end, by force if need be.
func (p *process) wait(ctx context.Context, cmd Cmd) (Result, error) {
	grace := cmd.Grace
	if grace <= 0 {
		grace = DefaultGrace
	}
	var timeout <-chan time.Time
	if cmd.Timeout > 0 {
		t := time.NewTimer(cmd.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	var why error
	timedOut := false
	select {
	case <-p.exited:
	case <-ctx.Done():
		why = context.Cause(ctx)
		timedOut = errors.Is(why, context.DeadlineExceeded)
	case <-timeout:
		why = fmt.Errorf("timed out after %v", cmd.Timeout)
		timedOut = true
	}
	if why != nil {
		p.signal(syscall.SIGTERM)
		if !p.exitedWithin(grace) {
			p.signal(syscall.SIGKILL)
			if !p.exitedWithin(reapWait) {
				return p.abandon(cmd, timedOut)
			}
		}
	}
	select {
	case <-p.eof:
	case <-time.After(pipeWait):
	}
	// The leader is a zombie until Wait below, so its group's number cannot
	// have gone to anybody else.
	p.signal(syscall.SIGKILL)
	_ = p.pipe.SetReadDeadline(time.Now().Add(pipeWait / 2))
	<-p.eof
	p.pipe.Close()
	err := p.cmd.Wait()

	res := Result{
		Output: p.out.String(), ExitCode: p.cmd.ProcessState.ExitCode(),
		TimedOut: timedOut, Duration: time.Since(p.started),
	}
	if why == nil {
		why = err
	}
	return res, commandError(cmd.Argv, why, res.Output)
}

func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

func (p *process) exitedWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.exited:
		return true
	case <-t.C:
		return false
	}
}

// abandon gives up on a process that even SIGKILL does not end. The goroutine
// that waits for it stays behind, there is no way to stop it.
func (p *process) abandon(cmd Cmd, timedOut bool) (Result, error) {
	_ = p.pipe.SetReadDeadline(time.Now())
	<-p.eof
	p.pipe.Close()
	res := Result{Output: p.out.String(), ExitCode: -1, TimedOut: timedOut, Duration: time.Since(p.started)}
	why := fmt.Errorf("process %d survives SIGKILL, it hangs in the kernel (a dead disk or network mount?)", p.cmd.Process.Pid)
	return res, commandError(cmd.Argv, why, res.Output)
}

// lookPath finds the program in the PATH of env, in absolute directories only:
// the daemon's own PATH and the working directory have no say.
func lookPath(argv []string, dir string, env []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", errors.New("empty command")
	}
	name := argv[0]
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.ContainsRune(name, '/') {
		return filepath.Join(dir, name), nil
	}
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%q is not installed in PATH=%s", name, path)
}

// commandError says which command failed, why, and what it last said.
func commandError(argv []string, why error, output string) error {
	if why == nil {
		return nil
	}
	if x := excerpt(output); x != "" {
		return fmt.Errorf("%s: %w: %s", commandName(argv), why, x)
	}
	return fmt.Errorf("%s: %w", commandName(argv), why)
}

// commandName names a command in an error: the program, and for git and
// systemctl the subcommand, without the options before it.
func commandName(argv []string) string {
	if len(argv) == 0 {
		return "command"
	}
	name := filepath.Base(argv[0])
	if name != "git" && name != "systemctl" {
		return name
	}
	for i := 1; i < len(argv); i++ {
		switch {
		case argv[i] == "-c" || argv[i] == "-C":
			i++
		case !strings.HasPrefix(argv[i], "-"):
			return name + " " + argv[i]
		}
	}
	return name
}
