package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// fakeUnits is a systemd whose units behave as a script says: ok (the default),
// stopped, failed, dies (at every restart) or hangs (its jobs never end).
type fakeUnits struct {
	mu    sync.Mutex
	units map[string]*opsexec.Unit
	acts  map[string]string
	count int
}

func (f *fakeUnits) unitLocked(name string) *opsexec.Unit {
	u := f.units[name]
	if u == nil {
		f.count++
		u = &opsexec.Unit{
			Name: name, LoadState: "loaded", ActiveState: "active", SubState: "running", Result: "success",
			InvocationID: fmt.Sprintf("%032x", f.count), MainPID: 1000 + f.count,
			TimeoutStart: time.Second, TimeoutStop: time.Second,
		}
		switch f.acts[name] {
		case "stopped":
			u.ActiveState, u.SubState = "inactive", "dead"
		case "failed":
			u.ActiveState, u.SubState, u.Result = "failed", "failed", "exit-code"
		}
		f.units[name] = u
	}
	return u
}

func (f *fakeUnits) Show(_ context.Context, unit string) (opsexec.Unit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.unitLocked(unit), nil
}

func (f *fakeUnits) Restart(_ context.Context, unit string, try bool) (<-chan string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.unitLocked(unit)
	ch := make(chan string, 1)
	switch {
	case f.acts[unit] == "hangs":
		u.Job = 7
		return ch, nil
	case f.acts[unit] == "dies":
		f.count++
		u.InvocationID = fmt.Sprintf("%032x", f.count)
		u.ActiveState, u.SubState, u.Result, u.Exit = "failed", "failed", "exit-code", "exit status 1"
	case try && u.ActiveState == "inactive":
	default:
		f.count++
		u.InvocationID = fmt.Sprintf("%032x", f.count)
		u.ActiveState, u.SubState, u.Result = "active", "running", "success"
	}
	ch <- "done"
	return ch, nil
}

// scriptDaemon is a daemon that a script started in this process.
type scriptDaemon struct {
	cancel context.CancelFunc
	done   chan struct{}
	client *control.Client
}

// cmdDaemon starts a real daemon on fake units: daemon HOST [SERVICE=BEHAVIOUR…].
// Its config is the script's fleet.yaml.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: daemon HOST [SERVICE=BEHAVIOUR…]")
	}
	h := ts.Value(scriptKey{}).(*scriptHosts)
	host := args[0]
	cfg, _, err := fleet.Load(fleet.LoadOptions{
		Path: ts.MkAbs("fleet.yaml"), Hostname: host,
		Overrides: []fleet.Override{
			{Key: "redis.url", Value: "redis://" + h.addr + "/0", Flag: "test"},
			{Key: "key_prefix", Value: h.prefix, Flag: "test"},
		},
	})
	ts.Check(err)
	units := &fakeUnits{units: map[string]*opsexec.Unit{}, acts: map[string]string{}}
	for _, a := range args[1:] {
		service, act, _ := strings.Cut(a, "=")
		units.acts[fleet.ServiceUnit(fleet.UnitName(cfg, service))] = act
	}
	client, err := control.Connect(cfg, control.ConnectOptions{})
	ts.Check(err)
	id := identity()
	id.Host, id.MachineID = host, "machine-of-"+host
	d := &control.Daemon{
		Config: cfg, Client: client, Identity: id, Version: "v9.9.9",
		Exec: opsexec.OSExec, Tree: opsexec.OSTree{}, Units: units,
		GitEnv: opsexec.GitEnv{AllowFile: true, Home: os.TempDir()},
		Journal: func(_ context.Context, unit, _ string) []string {
			return []string{strings.TrimSuffix(unit, ".service") + ": no module named llama"}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &scriptDaemon{cancel: cancel, done: make(chan struct{}), client: client}
	h.daemons[host] = s
	failed := make(chan error, 1)
	go func() {
		defer close(s.done)
		failed <- d.Run(ctx)
	}()
	select {
	case <-d.Ready():
	case err := <-failed:
		ts.Fatalf("daemon of %s: %v", host, err)
	case <-time.After(30 * time.Second):
		ts.Fatalf("daemon of %s is not ready after 30 s", host)
	}
}

// cmdStopDaemon ends the daemon of a host; its services stay in the registry.
func cmdStopDaemon(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value(scriptKey{}).(*scriptHosts)
	if neg || len(args) != 1 || h.daemons[args[0]] == nil {
		ts.Fatalf("usage: stopdaemon HOST")
	}
	h.daemons[args[0]].stop()
	delete(h.daemons, args[0])
}

func (d *scriptDaemon) stop() {
	d.cancel()
	<-d.done
	d.client.Close()
}
