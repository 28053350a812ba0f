// Sgsim runs sgfleet's production code on fake hosts in virtual time: it checks
// scenarios over many seeds, rehearses an op on a twin of a live fleet, and
// shows a demo in real time.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sgfleet/sgfleet/sim"
)

func main() {
	sim.WorkerMain(sim.Work) // runs a seed and exits when a pool has started this process
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	return a.exit(root.ExecuteContext(ctx))
}
