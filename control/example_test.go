package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// A Go service that carries its own daemon: an op that targets it restarts its
// process. It acks "accepted", leaves a note in Redis, and has systemd restart
// the unit; the new process finds the note and acks "done" with its own
// invocation id.
//
// The config says controlled_by: self for the service, so that the host's
// daemon leaves it alone.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	cfg := fleet.Default()
	cfg.Services["web"] = fleet.Service{Tier: "web", Checkout: "/srv/app", ControlledBy: fleet.BySelf}
	host, err := os.Hostname()
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := control.Connect(cfg, control.ConnectOptions{Name: "web", ReadFile: os.ReadFile})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	d := &control.Daemon{
		Config: cfg, Client: client,
		Self: "web@" + host,
		Identity: control.Identity{
			Host: host, PID: os.Getpid(), InvocationID: os.Getenv("INVOCATION_ID"), Token: newToken,
		},
		Exec: opsexec.OSExec, Tree: opsexec.OSTree{}, Units: &opsexec.Systemctl{},
		Log: slog.Default(),
		OnReturn: func(_ context.Context, r control.Return) {
			slog.Info("this process was started by an op", "op", r.Op, "status", r.Ack.Status)
		},
	}
	// Run serves ops beside the service's own work, until SIGTERM.
	if err := d.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

func newToken() string { return "at least 128 random bits, from crypto/rand" }
