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
	"context"
	"time"
)

// Cmd is one command to run: an argument vector, never a shell line.
type Cmd struct {
	Argv []string // Argv[0] is looked up in PATH of Env
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
