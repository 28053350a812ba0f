// Package systemd is the side of [opsexec] that faces systemd: units over
// D-Bus, and the service's own word to its manager (sd_notify).
//
// [New] gives the [opsexec.Units] of this host; [Notify] speaks to the manager.
package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/sgfleet/sgfleet/opsexec"
)

const (
	dialTimeout = 5 * time.Second
	callTimeout = 10 * time.Second // PID 1 answers within milliseconds
	// PID 1 asks polkit first, and gives it the 25 s of any call on the bus
	// (sd-bus's default). Who does not wait for that does not know whether the
	// unit will be restarted after all.
	restartTimeout = 30 * time.Second
)

// Bus is the real [opsexec.Units]: systemd by way of the system bus. The
// connection is made when it is first needed, kept, and made again when it was
// lost (a restart of dbus-daemon closes it for good).
type Bus struct {
	address string
	// conn holds the connection, nil when there is none; whoever uses or
	// replaces it takes it out for as long as that takes.
	conn chan *connection
}

// connection is one connection with the context that keeps it: go-systemd ends
// a connection with the context it was dialled with, so that must not be one
// of a single call.
type connection struct {
	*sd.Conn
	end  context.CancelFunc
	lost <-chan struct{} // closed when signals come no more
}

// New returns the units behind the bus at address; "" means the system bus.
// It does not connect yet.
func New(address string) *Bus {
	b := &Bus{address: address, conn: make(chan *connection, 1)}
	b.conn <- nil
	return b
}

// Close ends the connection. The Bus can be used again: it connects anew.
func (b *Bus) Close() {
	c := <-b.conn
	c.close()
	b.conn <- nil
}

func (c *connection) close() {
	if c != nil {
		c.Conn.Close()
		c.end()
	}
}

// Restart implements [opsexec.Units].
//
// Each restart has a connection of its own: on a shared one, go-systemd holds
// back every other restart, and every result, until the one before is answered.
func (b *Bus) Restart(ctx context.Context, unit string, try bool) (<-chan string, error) {
	calling, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	c, err := dial(calling, b.address)
	if err != nil {
		// Nothing was sent, so this is not the ErrBusLost of an unknown outcome.
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	ended := make(chan string, 1)
	restart := c.RestartUnitContext
	if try {
		restart = c.TryRestartUnitContext
	}
	if _, err := restart(calling, serviceName(unit), "replace", ended); err != nil {
		c.close()
		return nil, jobError(err)
	}
	ch := make(chan string, 1)
	go func() {
		defer c.close()
		select {
		case result := <-ended:
			ch <- result
		case <-ctx.Done():
		case <-c.lost:
		}
	}()
	return ch, nil
}

// Show implements [opsexec.Units].
func (b *Bus) Show(ctx context.Context, unit string) (opsexec.Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := serviceName(unit)
	for retry := true; ; retry = false {
		c, err := b.connected(ctx)
		if err != nil {
			return opsexec.Unit{}, fmt.Errorf("%w: %w", opsexec.ErrBusLost, err)
		}
		// Every interface of the unit in one call: its own and the service's.
		p, err := c.GetAllPropertiesContext(ctx, name)
		switch {
		case err == nil:
			return unitOf(name, p), nil
		case retry && !c.Connected():
			continue
		}
		return opsexec.Unit{}, jobError(err)
	}
}

// connected returns a connection that was alive just now.
func (b *Bus) connected(ctx context.Context) (*connection, error) {
	var c *connection
	select {
	case c = <-b.conn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c == nil || !c.Connected() {
		c.close()
		var err error
		if c, err = dial(ctx, b.address); err != nil {
			b.conn <- nil
			return nil, err
		}
	}
	b.conn <- c
	return c, nil
}

func dial(ctx context.Context, address string) (*connection, error) {
	life, end := context.WithCancel(context.Background())
	dialing, dialed := context.WithTimeout(ctx, dialTimeout)
	defer dialed()
	stop := context.AfterFunc(dialing, end)
	var raw *dbus.Conn // the last one that go-systemd asks for: that of the signals
	conn, err := sd.NewConnection(func() (_ *dbus.Conn, err error) {
		opts := []dbus.ConnOption{
			dbus.WithContext(life),
			// By uid: other ways look up a user's name first.
			dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))),
		}
		if address == "" {
			raw, err = dbus.ConnectSystemBus(opts...)
		} else {
			raw, err = dbus.Connect(address, opts...)
		}
		return raw, err
	})
	if err != nil {
		stop()
		end()
		return nil, err
	}
	if !stop() {
		conn.Close()
		return nil, dialing.Err()
	}
	return &connection{conn, end, raw.Context().Done()}, nil
}

// jobError gives D-Bus's errors the names that [opsexec.Units] promises.
func jobError(err error) error {
	var e dbus.Error
	if !errors.As(err, &e) {
		// Not an answer: the connection ended, or ctx did.
		return fmt.Errorf("%w: %w", opsexec.ErrBusLost, err)
	}
	named := func(sentinel error) error { return fmt.Errorf("%w: %s", sentinel, strings.TrimSuffix(e.Error(), ".")) }
	switch e.Name {
	case "org.freedesktop.systemd1.NoSuchUnit":
		return named(opsexec.ErrNoSuchUnit)
	case "org.freedesktop.systemd1.UnitMasked":
		return named(opsexec.ErrUnitMasked)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		return named(opsexec.ErrNotAuthorized)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout",
		"org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Disconnected":
		// PID 1 went away with the question, as it does when it re-executes.
		return named(opsexec.ErrBusLost)
	}
	return e
}

// serviceName adds the suffix that systemctl would.
func serviceName(unit string) string {
	if i := strings.LastIndexByte(unit, '.'); i >= 0 {
		switch unit[i+1:] {
		case "service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope", "device":
			return unit
		}
	}
	return unit + ".service"
}

// unitOf reads a unit's properties. One that is missing (a target has no main
// process) leaves its field zero.
func unitOf(name string, p map[string]any) opsexec.Unit {
	u := opsexec.Unit{
		Name:               name,
		LoadState:          get[string](p, "LoadState"),
		ActiveState:        get[string](p, "ActiveState"),
		SubState:           get[string](p, "SubState"),
		Result:             get[string](p, "Result"),
		InvocationID:       hex.EncodeToString(get[[]byte](p, "InvocationID")),
		MainPID:            int(get[uint32](p, "MainPID")),
		NRestarts:          int(get[uint32](p, "NRestarts")),
		StartLimitBurst:    int(get[uint32](p, "StartLimitBurst")),
		StartLimitInterval: duration(p, "StartLimitIntervalUSec"),
		TimeoutStart:       duration(p, "TimeoutStartUSec"),
		TimeoutStop:        duration(p, "TimeoutStopUSec"),
		Exit:               exit(get[int32](p, "ExecMainCode"), get[int32](p, "ExecMainStatus")),
	}
	if job := get[[]any](p, "Job"); len(job) > 0 {
		u.Job, _ = job[0].(uint32)
	}
	u.ActiveEnter = opsexec.OfMonotonic(get[uint64](p, "ActiveEnterTimestampMonotonic"))
	return u
}

func get[T any](p map[string]any, name string) T {
	v, _ := p[name].(T)
	return v
}

// duration reads a time in µs; systemd's infinity is opsexec's 0.
func duration(p map[string]any, name string) time.Duration {
	µs := get[uint64](p, name)
	if µs > uint64(1<<63-1)/1000 {
		return 0
	}
	return time.Duration(µs) * time.Microsecond
}

// exit puts si_code and si_status of the main process's end into words.
func exit(code, status int32) string {
	switch code {
	case 1: // CLD_EXITED
		switch status {
		case 200:
			return "exit status 200: no such working directory"
		case 203:
			return "exit status 203: the program cannot be executed"
		case 217:
			return "exit status 217: no such user"
		}
		return fmt.Sprintf("exit status %d", status)
	case 2, 3: // CLD_KILLED, CLD_DUMPED
		return "killed by " + unix.SignalName(syscall.Signal(status))
	}
	return ""
}
