//go:build e2e

// Package e2e rolls sgfleet out with real Ansible over ssh onto real hosts
// (systemd as PID 1 in namespaces, see hosts.sh) and then does to them what
// happens to hosts: power loss, partitions, a Redis that dies, a bad release.
//
// Everything is judged by what the hosts themselves say (invocation ids, the
// journal, git), not by sgfleet's own word.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The stage: one hub with Redis, the git remote and the operator; four hosts
// with three services each; a bare one for the packages. h4's checkout has an
// owner of its own, which the daemon runs as there.
var (
	hosts    = []string{"h1", "h2", "h3", "h4"}
	services = map[string][]string{
		"h1": {"gateway", "web", "agents"},
		"h2": {"inference", "agents", "consolidation"},
		"h3": {"inference", "agents", "consolidation"},
		"h4": {"inference", "agents", "web"},
	}
	owner    = map[string]string{"h1": "sgfleet", "h2": "sgfleet", "h3": "sgfleet", "h4": "deploy"}
	octet    = map[string]int{"hub": 10, "h1": 11, "h2": 12, "h3": 13, "h4": 14, "bare": 15}
	checkout = "/srv/stargazer"
)

const (
	agentPassword    = "agent-secret-e2e"
	operatorPassword = "operator-secret-e2e"
	rosterPassword   = "roster-secret-e2e"
)

// fleet is the running stage.
type fleet struct {
	t     *testing.T
	dir   string // scratch: inventory, keys
	state string // hosts.sh's state
	net   string // first three numbers of the hosts' addresses
	root  string // of the repository
	pkg   *packaging
	// release gives the path of the binary of a later version.
	release func() (string, error)
}

// env is this process's environment and where hosts.sh finds the stage.
func (f *fleet) env() []string {
	return append(os.Environ(), "E2E_STATE="+f.state, "E2E_NET="+f.net, "E2E_BRIDGE="+filepath.Base(f.state))
}

func ip(f *fleet, host string) string { return fmt.Sprintf("%s.%d", f.net, octet[host]) }

// run executes a command on this machine and fails the test when it fails.
func (f *fleet) run(name string, args ...string) string {
	f.t.Helper()
	out, err := f.try(2*time.Minute, name, args...)
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (f *fleet) try(timeout time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = f.env()
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *fleet) hosts(args ...string) string {
	f.t.Helper()
	return f.run(filepath.Join(f.root, "ansible/e2e/hosts.sh"), args...)
}

// in runs a command inside a host.
func (f *fleet) in(host string, args ...string) string {
	f.t.Helper()
	return f.hosts(append([]string{"in", host}, args...)...)
}

func (f *fleet) tryIn(host string, args ...string) (string, error) {
	return f.try(2*time.Minute, filepath.Join(f.root, "ansible/e2e/hosts.sh"), append([]string{"in", host}, args...)...)
}

// sh runs a shell script inside a host.
func (f *fleet) sh(host, script string) string {
	f.t.Helper()
	return f.in(host, "bash", "-euc", script)
}

// write puts a file onto a host.
func (f *fleet) write(host, path, mode, content string) {
	f.t.Helper()
	cmd := exec.Command(filepath.Join(f.root, "ansible/e2e/hosts.sh"), "in", host, "bash", "-euc",
		`mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"`, "_", path, mode)
	cmd.Env = f.env()
	cmd.Stdin = strings.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("write %s on %s: %v\n%s", path, host, err, out)
	}
}

// ansible runs a playbook and returns its output and exit code.
func (f *fleet) ansible(playbook string, args ...string) (string, int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer cancel()
	if !slices.Contains(args, "-i") {
		args = append([]string{"-i", filepath.Join(f.dir, "inventory.yml")}, args...)
	}
	args = append([]string{filepath.Join("playbooks", playbook)}, args...)
	cmd := exec.CommandContext(ctx, "ansible-playbook", args...)
	cmd.Dir = filepath.Join(f.root, "ansible")
	cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+filepath.Join(f.root, "ansible/ansible.cfg"), "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_FORKS=8", "ANSIBLE_INJECT_FACT_VARS=False", "ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_LOCAL_TEMP="+f.dir+"/tmp",
		"ANSIBLE_SSH_ARGS=-oControlMaster=auto -oControlPersist=120s -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR",
		"ANSIBLE_SSH_CONTROL_PATH_DIR="+f.dir+"/cp")
	// A test that has failed ends its workers, too, which hold its output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	out, err := cmd.CombinedOutput()
	f.t.Logf("ansible-playbook %s %s: %v", playbook, strings.Join(args[1:], " "), time.Since(start).Round(100*time.Millisecond))
	if err != nil && cmd.ProcessState == nil { // it did not even start
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// ansibleBeside starts a playbook beside what the test does next; what it
// returns waits for it. It does not outlive the test.
func (f *fleet) ansibleBeside(playbook string, args ...string) (wait func() (out string, code int)) {
	f.t.Helper()
	var out string
	var code int
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, code = f.ansible(playbook, args...)
	}()
	f.t.Cleanup(func() { <-done })
	return func() (string, int) { <-done; return out, code }
}

// operator runs sgfleet on the hub as the operator and returns stdout, stderr
// and the exit code.
func (f *fleet) operator(args ...string) (stdout, stderr string, code int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(f.root, "ansible/e2e/hosts.sh"), append([]string{"in", "hub", "sgfleet"}, args...)...)
	cmd.Env = f.env()
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() < 0 {
		f.t.Fatalf("sgfleet %v: %v\n%s", args, err, e.String())
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// op sends an op, requires the exit code and returns the report.
func (f *fleet) op(wantCode int, args ...string) report {
	f.t.Helper()
	out, errOut, code := f.operator(append(args, "--yes", "-o", "json")...)
	if code != wantCode {
		f.t.Fatalf("sgfleet %v: exit %d, want %d\n%s%s", args, code, wantCode, out, errOut)
	}
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		f.t.Fatalf("sgfleet %v: %v in\n%s", args, err, out)
	}
	return r
}

// journals tells, where the test has failed, what the hosts say of it.
func (f *fleet) journals() {
	if !f.t.Failed() {
		return
	}
	for _, h := range append([]string{"hub"}, hosts...) {
		out, err := f.tryIn(h, "bash", "-c", "journalctl --since=-90s -o short-precise -t systemd -t dbus-daemon -t polkitd -t sgfleet -t redis-server | tail -n 120")
		f.t.Logf("%s: %v\n%s", h, err, out)
	}
}

func unit(service string) string { return "stargazer-" + service + ".service" }

// each calls fn for every service of the given hosts.
func each(hs []string, fn func(host, service string)) {
	for _, h := range hs {
		for _, s := range services[h] {
			fn(h, s)
		}
	}
}

// invocations maps host/service to the invocation id systemd gives.
func (f *fleet) invocations(hs ...string) map[string]string {
	f.t.Helper()
	ids := map[string]string{}
	each(hs, func(h, s string) {
		ids[h+"/"+s] = strings.TrimSpace(f.in(h, "systemctl", "show", "-P", "InvocationID", unit(s)))
	})
	return ids
}

// entered is when systemd says the unit became active, in µs of the one clock
// that all hosts share.
func (f *fleet) entered(host, service string) int64 {
	f.t.Helper()
	var us int64
	fmt.Sscan(f.in(host, "systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit(service)), &us)
	return us
}

// running is the revision a service wrote down when it started.
func (f *fleet) running(host, service string) string {
	f.t.Helper()
	return strings.TrimSpace(f.in(host, "cat", "/run/stargazer/stargazer-"+service))
}

// push commits to the remote and returns the new revision.
func (f *fleet) push(script string) string {
	f.t.Helper()
	return strings.TrimSpace(f.in("hub", "runuser", "-u", "git", "--", "bash", "-euc",
		"cd /home/git/work\n"+script+"\n"+`git add -A; git commit -qm change; git push -q origin main; git rev-parse HEAD`))
}

// until polls what a host says until it is as wanted.
func (f *fleet) until(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			f.t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(100 * time.Millisecond) // polls another machine; there is no event to await
	}
	return time.Since(start)
}
