package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sgfleet/sgfleet/opsexec"
)

// wraps is errors.Is with no error being wrapped by any.
func wraps(err, target error) bool { return target == nil || errors.Is(err, target) }

func TestJobError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want error // nil: none of the named ones
	}{
		{dbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit", Body: []any{"Unit x.service not found."}}, opsexec.ErrNoSuchUnit},
		{dbus.Error{Name: "org.freedesktop.systemd1.UnitMasked"}, opsexec.ErrUnitMasked},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied"}, opsexec.ErrNotAuthorized},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"}, opsexec.ErrNotAuthorized},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}, opsexec.ErrBusLost},
		{dbus.Error{Name: "org.freedesktop.systemd1.TransactionIsDestructive"}, nil},
		{fmt.Errorf("read: %w", io.EOF), opsexec.ErrBusLost},
		{dbus.ErrClosed, opsexec.ErrBusLost},
		{context.DeadlineExceeded, opsexec.ErrBusLost},
	} {
		got := jobError(tt.err)
		for _, named := range []error{opsexec.ErrNoSuchUnit, opsexec.ErrUnitMasked, opsexec.ErrNotAuthorized, opsexec.ErrBusLost} {
			if errors.Is(got, named) != (named == tt.want) {
				t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
			}
		}
	}
}

func TestBusAway(t *testing.T) {
	b := New("unix:path=" + filepath.Join(t.TempDir(), "none"))
	defer b.Close()
	if _, err := b.Show(t.Context(), "web.service"); !errors.Is(err, opsexec.ErrBusLost) {
		t.Errorf("show: %v, want %v", err, opsexec.ErrBusLost)
	}
	// Here ErrBusLost would mean that a job may have been queued.
	if _, err := b.Restart(t.Context(), "web.service", true); err == nil || errors.Is(err, opsexec.ErrBusLost) {
		t.Errorf("restart: %v, want a definite failure", err)
	}
}

// A bus that accepts and says nothing does not hang its callers.
func TestBusSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := New("unix:path=" + path)
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Show(ctx, "web.service"); !errors.Is(err, opsexec.ErrBusLost) {
		t.Errorf("got %v, want %v", err, opsexec.ErrBusLost)
	}
}

// manager is a PID 1 that waits, for some units, until it may answer.
type manager struct {
	c     *dbus.Conn
	asked chan string // units that must wait, as they are asked for
	waits map[string]chan struct{}
}

func (m manager) TryRestartUnit(unit, _ string) (dbus.ObjectPath, *dbus.Error) {
	if until, ok := m.waits[unit]; ok {
		m.asked <- unit
		<-until
	}
	job := dbus.ObjectPath("/org/freedesktop/systemd1/job/1")
	if unit != "slow.service" {
		job = "/org/freedesktop/systemd1/job/2"
	}
	if err := m.c.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", uint32(1), job, unit, "done"); err != nil {
		return "", dbus.MakeFailedError(err)
	}
	return job, nil
}

// A restart that systemd is slow to answer, since it asks polkit first, holds
// back no other.
func TestRestartsDoNotWaitForEachOther(t *testing.T) {
	b := New(privateBus(t))
	c, err := dbus.Connect(b.address, dbus.WithContext(t.Context()), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m := manager{c, make(chan string), map[string]chan struct{}{"slow.service": make(chan struct{})}}
	reply, nameErr := c.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue)
	err = c.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
	if err := errors.Join(nameErr, err); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("cannot be systemd: %v, %v", reply, err)
	}
	result := func(unit string) string {
		ch, err := b.Restart(t.Context(), unit, true)
		if err != nil {
			return err.Error()
		}
		select {
		case r := <-ch:
			return r
		case <-time.After(time.Minute):
			return "no result"
		}
	}
	slow := make(chan string)
	go func() { slow <- result("slow") }()
	<-m.asked
	if got := result("quick"); got != "done" {
		t.Errorf("beside a slow one: %s", got)
	}
	close(m.waits["slow.service"])
	if got := <-slow; got != "done" {
		t.Errorf("the slow one: %s", got)
	}
}

func TestUnitOf(t *testing.T) {
	got := unitOf("web.service", map[string]any{
		"LoadState": "loaded", "ActiveState": "failed", "InvocationID": []byte{0xab, 1}, "Job": []any{uint32(7), dbus.ObjectPath("/job/7")},
		"TimeoutStartUSec": uint64(1<<64 - 1), "TimeoutStopUSec": uint64(1500000), "ActiveEnterTimestampMonotonic": uint64(1),
		"ExecMainCode": int32(2), "ExecMainStatus": int32(9), "NRestarts": uint32(2),
	})
	want := opsexec.Unit{
		Name: "web.service", LoadState: "loaded", ActiveState: "failed", InvocationID: "ab01", Job: 7,
		TimeoutStop: 1500 * time.Millisecond, ActiveEnter: got.ActiveEnter, Exit: "killed by SIGKILL", NRestarts: 2,
	}
	if early := opsexec.OfMonotonic(1); got.ActiveEnter.Sub(early).Abs() > time.Minute || got.ActiveEnter.IsZero() {
		t.Errorf("active since %v; want %v", got.ActiveEnter, early)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, want := unitOf("x.target", nil), (opsexec.Unit{Name: "x.target"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestServiceName(t *testing.T) {
	for in, want := range map[string]string{
		"web": "web.service", "web.service": "web.service", "a.b": "a.b.service", "x.socket": "x.socket", "t@1.2": "t@1.2.service",
	} {
		if got := serviceName(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for _, tt := range []struct {
		states []string
		want   string // a pattern
	}{
		{[]string{Ready, "STATUS=3 instances"}, `^READY=1\nSTATUS=3 instances$`},
		{[]string{Stopping}, `^STOPPING=1$`},
		{[]string{Reloading()}, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`},
	} {
		if err := Notify(tt.states...); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := l.Read(buf)
		if got := string(buf[:n]); err != nil || !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("got %q, %v, want %s", got, err, tt.want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", path+".gone")
	if err := Notify(Ready); err == nil {
		t.Error("no error without a manager at the socket")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Errorf("outside a unit: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
		err       bool
	}{
		{"", "", 0, false},
		{"30000000", "", 15 * time.Second, false},
		{"30000000", fmt.Sprint(os.Getpid()), 15 * time.Second, false},
		{"30000000", "1", 0, false}, // meant for another process
		{"soon", "", 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got, err := WatchdogInterval(); got != tt.want || (err != nil) != tt.err {
			t.Errorf("%+v: got %v, %v", tt, got, err)
		}
	}
}
