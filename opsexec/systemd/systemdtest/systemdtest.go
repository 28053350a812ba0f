// Package systemdtest boots a real systemd for tests: the machine's own
// program as PID 1 of new namespaces, with a hermetic set of units, in a
// fraction of a second and without a root tree or container engine.
//
// TestMain of the test package must be:
//
//	func TestMain(m *testing.M) { os.Exit(systemdtest.Main(m)) }
//
// because [Boot] runs the test binary again as the init that prepares the
// namespaces. Roles given to [Main] let the test binary also serve as the
// program of a unit; see [Service].
//
// # What is inside
//
// PID 1, dbus-daemon and systemd-journald, in their own mount, PID, IPC, UTS
// and cgroup namespaces. The network is the machine's: a unit reaches a Redis
// or a git remote of the test on loopback. Every file of the machine is there
// under its own path, read-only, so that a unit runs a binary that the test has
// built. Writable are [Host.Dir], at the same path inside and outside, the
// directories given to [Boot], /run, /var/lib and /var/log (private and empty).
// Inside, the system bus has its usual address; [Host.BusAddress] serves both
// inside and outside.
//
// A unit must not name a directory given to [Boot] in WorkingDirectory=,
// ReadWritePaths= or a socket's path: systemd would wait for the disk's device
// unit, and there is no udev. Host.Dir, a tmpfs, has no device: use it. /tmp is
// read-only too (PrivateTmp= does not work).
//
// # What it cannot do to the machine
//
// The kernel and its clock are shared, so the capabilities to set the clock,
// load modules, do raw I/O, read the kernel's log or load BPF are dropped for
// everything inside, /proc/sys is read-only, and the console and kernel log
// lead nowhere.
//
// Root and a cgroup2 mount are needed; without them the test is skipped, or
// fails when CI is set.
package systemdtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/sgfleet/sgfleet/opsexec"
)

// Hostname is the name of every booted host.
const Hostname = "systemdtest"

const (
	initEnv     = "SGFLEET_SYSTEMDTEST_INIT"
	roleEnv     = "SGFLEET_SYSTEMDTEST_ROLE"
	bootTimeout = 30 * time.Second
	markerUnit  = "systemdtest-marker.service"
)

// Role is a program that the test binary can be instead of running tests.
type Role struct {
	Name string
	Run  func() int // returns the exit status
}

// Main runs the tests, unless the process is the init of a [Boot] or has been
// given a role. It returns the exit status.
func Main(m *testing.M, roles ...Role) int {
	if spec := os.Getenv(initEnv); spec != "" {
		fmt.Fprintln(os.Stderr, "systemdtest: init:", runInit(spec))
		return 71
	}
	if name := os.Getenv(roleEnv); name != "" {
		for _, r := range roles {
			if r.Name == name {
				return r.Run()
			}
		}
		fmt.Fprintln(os.Stderr, "systemdtest: no role", name)
		return 70
	}
	return m.Run()
}

// Service is the text of a unit whose program is the test binary in a role
// given to [Main], with more lines for its [Service] section.
func Service(t testing.TB, role string, lines ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A program with the race detector sleeps for a second before it exits,
	// unless it is told not to: that is no part of how the service behaves.
	return "[Service]\nEnvironment=" + roleEnv + "=" + role + " GORACE=atexit_sleep_ms=0\nExecStart=" + exe + "\n" + strings.Join(lines, "\n") + "\n"
}

// Host is a booted systemd.
type Host struct {
	// BusAddress is its system bus: an abstract socket whose name exists
	// nowhere else, so that a test can never reach the machine's own systemd
	// by mistake.
	BusAddress string
	// Dir is a directory on a tmpfs that is writable inside and outside, under
	// the same path.
	Dir string

	t    testing.TB
	init *exec.Cmd
}

// Boot boots a systemd with units (name → text of the file) and waits until it
// is up; none of the units is started. Everything ends with the test. The
// directories writable are so inside, too.
func Boot(t testing.TB, units map[string]string, writable ...string) *Host {
	t.Helper()
	cgroups := requirements(t)
	h := &Host{t: t, Dir: tempDir(t)}
	marker := filepath.Base(h.Dir)
	h.BusAddress = "unix:abstract=" + marker
	unitDir := filepath.Join(h.Dir, "units")
	if err := os.Mkdir(unitDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range baseUnits(marker) {
		h.writeUnit(name, text)
	}
	for name, text := range units {
		h.writeUnit(name, text)
	}
	cgroup := filepath.Join(cgroups, marker)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		missing(t, "a writable cgroup2 mount: %v", err)
	}
	fd, err := unix.Open(cgroup, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h.init = exec.Command("/proc/self/exe")
	h.init.Env = []string{initEnv + "=" + strings.Join(append([]string{h.Dir}, writable...), ":")}
	h.init.Stderr = os.Stderr
	h.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: fd, Setsid: true,
		Pdeathsig: syscall.SIGKILL, // a killed test takes it along
	}
	begin := time.Now()
	if err := h.init.Start(); err != nil {
		removeCgroup(cgroup)
		missing(t, "the right to create namespaces: %v", err)
	}
	exited := make(chan struct{})
	go func() { h.init.Wait(); close(exited) }()
	t.Cleanup(func() {
		h.init.Process.Kill() // PID 1 gone: the kernel ends every process of the namespace
		<-exited
		// The last of them may take a moment to be reaped.
		for deadline := time.Now().Add(10 * time.Second); removeCgroup(cgroup) != nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("processes are left in %s", cgroup)
				return
			}
		}
	})
	for {
		err := h.up(marker)
		if err == nil {
			break
		}
		select {
		case <-exited:
			t.Fatal("systemdtest: systemd ended: ", h.init.ProcessState)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(begin) > bootTimeout {
			t.Fatalf("systemdtest: not up after %v: %v", bootTimeout, err)
		}
	}
	t.Logf("systemd up after %v", time.Since(begin).Round(time.Millisecond))
	return h
}

// up says whether the systemd behind the bus is ours and has booted.
func (h *Host) up(marker string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := sd.NewConnection(func() (*dbus.Conn, error) {
		return dbus.Connect(h.BusAddress, dbus.WithContext(ctx), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))))
	})
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.GetUnitPropertyContext(ctx, markerUnit, "Description")
	if err != nil {
		return err
	}
	if p.Value.Value() != marker {
		h.t.Fatalf("systemdtest: not our systemd: %v instead of %s", p.Value, marker)
	}
	p, err = c.GetUnitPropertyContext(ctx, "default.target", "ActiveState")
	if err != nil {
		return err
	}
	if p.Value.Value() != "active" {
		return fmt.Errorf("default.target is %v", p.Value)
	}
	return nil
}

// Unit writes a unit file, or with an empty text removes it, and makes systemd
// read it.
func (h *Host) Unit(name, text string) {
	h.t.Helper()
	h.writeUnit(name, text)
	h.Systemctl("daemon-reload")
}

func (h *Host) writeUnit(name, text string) {
	h.t.Helper()
	file := filepath.Join(h.Dir, "units", name)
	err := os.Remove(file)
	switch {
	case text == "/dev/null": // as systemctl mask does
		err = os.Symlink(text, file)
	case text != "":
		err = os.WriteFile(file, []byte(text), 0o644)
	}
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
}

// Command is a command that runs inside. It keeps the environment of the test;
// capabilities that reach beyond the namespaces are dropped.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	pid := strconv.Itoa(h.init.Process.Pid)
	args := []string{
		"--target", pid, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--wd=/", "--",
		"setpriv", "--bounding-set", "-" + strings.Join(droppedNames(), ",-"), "--",
	}
	return exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
}

// Exec runs a command inside; it is an [opsexec.Exec].
func (h *Host) Exec(ctx context.Context, c opsexec.Cmd) (opsexec.Result, error) {
	cmd := h.Command(ctx, c.Argv...)
	out, err := cmd.CombinedOutput()
	res := opsexec.Result{Output: string(out), ExitCode: cmd.ProcessState.ExitCode()}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", c.Argv[0], err, bytes.TrimSpace(out))
	}
	return res, err
}

// Systemctl runs systemctl inside and returns what it prints. It does not go
// by the bus, so it can speak of a bus that is down. A failure of systemctl
// fails the test.
func (h *Host) Systemctl(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := h.Exec(ctx, opsexec.Cmd{Argv: append([]string{"systemctl"}, args...)})
	if err != nil {
		h.t.Fatalf("systemctl %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(res.Output)
}

// Property reads one property of a unit, as systemctl show prints it.
func (h *Host) Property(unit, name string) string {
	h.t.Helper()
	return h.Systemctl("show", "--property="+name, "--value", unit)
}

// InvocationID is the unit's present, or last, invocation.
func (h *Host) InvocationID(unit string) string {
	h.t.Helper()
	return h.Property(unit, "InvocationID")
}

// SyncJournal waits until all that was logged so far can be read.
func (h *Host) SyncJournal() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := h.Exec(ctx, opsexec.Cmd{Argv: []string{"journalctl", "--sync"}}); err != nil {
		h.t.Fatal(err)
	}
}

// missing skips the test for want of something, or fails it in CI, which
// installs everything.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("systemdtest: needs "+format, args...)
	}
	t.Skipf("needs "+format, args...)
}

// requirements skips the test when something is missing, and returns where
// cgroup2 is mounted.
func requirements(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	for _, file := range []string{"/lib/systemd/systemd", "/lib/systemd/systemd-journald", "/usr/bin/dbus-daemon"} {
		if _, err := os.Stat(file); err != nil {
			missing(t, "%s: apt-get install systemd dbus", file)
		}
	}
	for _, program := range []string{"systemctl", "nsenter", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, "%s: apt-get install systemd util-linux", program)
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	missing(t, "a cgroup2 mount")
	return ""
}

// tempDir makes a directory with a short name (a socket's path holds 107
// bytes), on a tmpfs if there is one.
func tempDir(t testing.TB) string {
	t.Helper()
	parent := ""
	var fs unix.Statfs_t
	if unix.Statfs("/dev/shm", &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "sgt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	return os.Remove(dir)
}
