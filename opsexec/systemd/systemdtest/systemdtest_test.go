package systemdtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

func TestMain(m *testing.M) {
	os.Exit(Main(m, Role{Name: "bystander", Run: bystander}))
}

// bystander is a unit's program that says what it can do.
func bystander() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 1
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("DIR"), "status"), status, 0o644); err != nil {
		return 2
	}
	return 0
}

func TestInside(t *testing.T) {
	extra := t.TempDir()
	h := Boot(t, nil, extra)
	inside := func(argv ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		r, err := h.Exec(ctx, opsexec.Cmd{Argv: argv})
		return strings.TrimSpace(r.Output), err
	}
	for _, dir := range []string{h.Dir, extra, "/run", "/var/lib", "/var/log"} {
		if out, err := inside("touch", filepath.Join(dir, "new-file")); err != nil {
			t.Errorf("%s is not writable: %v: %s", dir, err, out)
		}
	}
	for _, dir := range []string{h.Dir, extra} {
		if _, err := os.Stat(filepath.Join(dir, "new-file")); err != nil {
			t.Errorf("not seen outside: %v", err)
		}
	}
	for _, file := range []string{"/etc/new-file", "/tmp/new-file", "/dev/shm/new-file", "/usr/new-file", "/proc/sys/kernel/hostname"} {
		if _, err := inside("touch", file); err == nil {
			t.Errorf("%s is writable", file)
			os.Remove(file)
		}
	}
	if got, err := inside("cat", "/proc/1/comm"); got != "systemd" || err != nil {
		t.Errorf("PID 1 is %q, %v", got, err)
	}
	if got, err := inside("hostname"); got != Hostname || err != nil {
		t.Errorf("hostname %q, %v", got, err)
	}

	// The capabilities of a unit, of PID 1 and of what is run beside them.
	h.Unit("bystander.service", Service(t, "bystander", "Type=oneshot", "Environment=DIR="+h.Dir))
	h.Systemctl("start", "bystander.service")
	unit, err := os.ReadFile(filepath.Join(h.Dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	pid1, err1 := inside("cat", "/proc/1/status")
	beside, err2 := inside("cat", "/proc/self/status")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for who, status := range map[string]string{"unit": string(unit), "PID 1": pid1, "command": beside} {
		for _, set := range []string{"CapBnd", "CapEff"} {
			caps := capabilities(t, status, set)
			for name, c := range dropped {
				if caps&(1<<c) != 0 {
					t.Errorf("%s: %s has %s", who, set, name)
				}
			}
			if caps == 0 {
				t.Errorf("%s: %s is empty", who, set)
			}
		}
	}

	// A unit that is taken away, and one that is masked.
	h.Unit("bystander.service", "")
	if got := h.Property("bystander.service", "LoadState"); got != "not-found" {
		t.Errorf("removed unit is %s", got)
	}
	h.Unit("bystander.service", "/dev/null")
	if got := h.Property("bystander.service", "LoadState"); got != "masked" {
		t.Errorf("masked unit is %s", got)
	}
}

func capabilities(t *testing.T, status, set string) uint64 {
	t.Helper()
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, set+":"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return caps
		}
	}
	t.Fatalf("no %s in %q", set, status)
	return 0
}

// Nothing outlives a test, not even one that is killed.
func TestKilled(t *testing.T) {
	requirements(t)
	if os.Getenv("SYSTEMDTEST_SACRIFICE") != "" {
		h := Boot(t, nil)
		os.Stdout.WriteString("dir " + h.Dir + "\n")
		os.Stdout.WriteString("pid " + strconv.Itoa(h.init.Process.Pid) + "\n")
		time.Sleep(time.Minute) // killed long before
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "SYSTEMDTEST_SACRIFICE=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, pid string
	for buf, text := make([]byte, 4096), ""; pid == ""; {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err, text)
		}
		text += string(buf[:n])
		if f := strings.Fields(text); len(f) >= 4 && strings.HasSuffix(text, "\n") {
			dir, pid = f[1], f[3]
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("PID 1 (%s) survives its test", pid)
		}
	}
	// Files are what a killed process cannot clear away itself.
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(30 * time.Second); removeCgroup(filepath.Join(requirements(t), filepath.Base(dir))) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("processes survive in the cgroup")
		}
	}
}
