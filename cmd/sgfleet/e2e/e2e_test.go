// Package e2e tests the built sgfleet on real parts: a redis-server, a systemd
// booted in namespaces, a git remote with checkouts that services share, and
// daemons that are units. Three hosts are three daemons with a host name each.
package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec/gittest"
	"github.com/sgfleet/sgfleet/opsexec/systemd/systemdtest"
)

func TestMain(m *testing.M) { os.Exit(systemdtest.Main(m)) }

// rig is the fleet under test.
type rig struct {
	*testing.T
	bin    string
	redis  *redistest.Server
	remote *gittest.Remote
	host   *systemdtest.Host
	state  string // what each unit writes when it starts
}

// services of each host; gateways hold a checkout together with another.
var services = map[string][]string{
	"ha": {"gateway", "web"},
	"hb": {"inference", "web"},
	"hc": {"web"},
}

// runScript is what the services run, from their checkout: it notes on which
// version it was started, and dies when it is told to be broken.
const runScript = `set -e
cat version > "$STATE/$1"
if [ -e "$STATE/$1.broken" ]; then echo "no module named llama" >&2; exit 1; fi
exec sleep infinity
`

var configText = template.Must(template.New("").Parse(`host: {{.Host}}
redis: {url: "redis://{{.Redis}}/0"}
control_unit_prefix: {{.Host}}-
self_unit: {{.Host}}-sgfleet.service
heartbeat_interval: 1s
control_reply_timeout: 4s
gateway_grace: 10s
cooldown: 0s
settle: 1s
splay: 100ms
git: {allow_file: true}
services:
  gateway: {hosts: [ha], checkout: {{.Dir}}/app}
  inference: {hosts: [hb], checkout: {{.Dir}}/app}
  web: {checkout: {{.Dir}}/app}
`))

// bareRig is a binary, a Redis and a systemd with nothing to run yet.
func bareRig(t *testing.T) *rig {
	r := &rig{T: t, bin: filepath.Join(t.TempDir(), "sgfleet"), redis: redistest.Start(t)}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", r.bin, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	r.host = systemdtest.Boot(t, nil)
	return r
}

func newRig(t *testing.T) *rig {
	r := bareRig(t)
	r.remote = gittest.NewRemote(t)
	r.remote.Push(map[string]string{"version": "1\n", "run.sh": runScript})
	r.state = filepath.Join(r.host.Dir, "state")
	r.must(os.Mkdir(r.state, 0o755))
	for host, names := range services {
		dir := filepath.Join(r.host.Dir, host)
		r.must(os.Mkdir(dir, 0o755))
		gittest.Git(t, "", "clone", "-q", "file://"+r.remote.Dir, filepath.Join(dir, "app"))
		var config bytes.Buffer
		r.must(configText.Execute(&config, map[string]string{"Host": host, "Redis": r.redis.Addr, "Dir": dir}))
		r.must(os.WriteFile(filepath.Join(dir, "config.yaml"), config.Bytes(), 0o644))
		for _, s := range names {
			r.host.Unit(host+"-"+s+".service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nTimeoutStartSec=10\nTimeoutStopSec=5\n"+
				"Environment=STATE="+r.state+"\nWorkingDirectory="+dir+"/app\nExecStart=/bin/sh run.sh "+host+"-"+s+"\n")
			r.host.Systemctl("start", host+"-"+s)
		}
		r.host.Unit(host+"-sgfleet.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nWatchdogSec=30\nTimeoutStopSec=90\n"+
			"Environment=HOME="+dir+"\nExecStart="+r.bin+" daemon --config "+dir+"/config.yaml\nExecReload=/bin/kill -HUP $MAINPID\n")
		r.host.Systemctl("start", host+"-sgfleet") // Type=notify: back when it is subscribed
	}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// command is the operator's command.
func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(r.Context(), r.bin, args...)
	cmd.Env = append(os.Environ(), "SGFLEET_CONFIG="+filepath.Join(r.host.Dir, "ha", "config.yaml"), "XDG_CACHE_HOME="+r.host.Dir, "HOME="+r.host.Dir)
	return cmd
}

// sgfleet runs the operator's command and returns what it printed.
func (r *rig) sgfleet(wantExit int, args ...string) (stdout, stderr string) {
	r.Helper()
	cmd := r.command(args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		r.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantExit {
		r.Fatalf("sgfleet %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, wantExit, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// report runs an op with -o json.
func (r *rig) report(wantExit int, args ...string) *control.Report {
	r.Helper()
	out, _ := r.sgfleet(wantExit, append(args, "--yes", "-o", "json", "--progress", "none")...)
	report := &control.Report{}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		r.Fatalf("report of %v: %v\n%s", args, err, out)
	}
	return report
}

func (r *rig) result(report *control.Report, instance string) control.Result {
	r.Helper()
	for _, i := range report.Instances {
		if i.Instance == instance {
			return i
		}
	}
	r.Fatalf("%s is not in the report: %+v", instance, report)
	return control.Result{}
}

// version is what a unit noted when it was started last.
func (r *rig) version(unit string) string {
	b, _ := os.ReadFile(filepath.Join(r.state, unit))
	return strings.TrimSpace(string(b))
}

// entered is when systemd saw the unit become active, in µs since boot.
func (r *rig) entered(unit string) int64 {
	r.Helper()
	n, err := strconv.ParseInt(r.host.Property(unit, "ActiveEnterTimestampMonotonic"), 10, 64)
	r.must(err)
	return n
}

// invocations maps each service's unit to its invocation id.
func (r *rig) invocations() map[string]string {
	ids := map[string]string{}
	for host, names := range services {
		for _, s := range names {
			ids[host+"-"+s] = r.host.InvocationID(host + "-" + s)
		}
	}
	return ids
}

// until waits for the roster to satisfy ok.
func (r *rig) until(what string, ok func(map[string]fleet.Entry) bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, _ := r.sgfleet(0, "services", "-o", "json")
		var roster fleet.Roster
		r.must(json.Unmarshal([]byte(out), &roster))
		entries := map[string]fleet.Entry{}
		for _, e := range roster.Instances {
			entries[e.Instance] = e
		}
		if ok(entries) {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("after 30 s not: %s\n%s", what, out)
		}
	}
}

func TestUpdate(t *testing.T) {
	r := newRig(t)
	r.until("five services and three daemons are up", func(e map[string]fleet.Entry) bool { return len(e) == 8 })

	if size := r.size(r.bin); size > 20e6 {
		t.Errorf("the stripped binary has %d bytes, want at most 20 MB: see what links text/template or html/template", size)
	}

	// A pushed commit reaches every unit, gateway last by systemd's own clock.
	rev := r.remote.Push(map[string]string{"version": "2\n"})
	report := r.report(0, "update", "all")
	for _, i := range report.Instances {
		t.Logf("%-14s %-7s accepted %4d ms, done %5d ms: %s", i.Instance, i.Status, i.AcceptedMS, i.DoneMS, i.Detail)
	}
	if report.Counts.OK != 5 {
		t.Errorf("counts %+v, want 5 ok", report.Counts)
	}
	for _, i := range report.Instances {
		if i.Revision != rev {
			t.Errorf("%s reports revision %s, want %s", i.Instance, i.Revision, rev)
		}
	}
	last := r.entered("ha-gateway")
	for unit := range r.invocations() {
		if got := r.version(unit); got != "2" {
			t.Errorf("%s runs version %q, want 2", unit, got)
		}
		if at := r.entered(unit); unit != "ha-gateway" && at >= last {
			t.Errorf("%s came up at %d µs, the gateway already at %d", unit, at, last)
		}
	}
	for host := range services {
		if head := gittest.Head(t, filepath.Join(r.host.Dir, host, "app")); head != rev {
			t.Errorf("checkout of %s is at %s, want %s", host, head, rev)
		}
	}
	r.until("the roster shows the new revision", func(e map[string]fleet.Entry) bool {
		return e["web@ha"].RunningRevision == rev && e["gateway@ha"].RunningRevision == rev && e["web@hc"].RunningRevision == rev
	})

	t.Run("broken", r.with(testBroken))
	t.Run("stopped", r.with(testStopped))
	t.Run("self", r.with(testSelfRestart))
	t.Run("reload", r.with(testReload))
	t.Run("local", r.with(testLocal))
	t.Run("silent", r.with(testSilent))
}

func (r *rig) with(test func(*rig)) func(*testing.T) {
	return func(t *testing.T) {
		sub := *r
		sub.T = t
		test(&sub)
	}
}

// testBroken: a unit that dies is named, with what it logged, and the rest is
// restarted.
func testBroken(r *rig) {
	flag := filepath.Join(r.state, "hb-web.broken")
	r.must(os.WriteFile(flag, nil, 0o644))
	out, _ := r.sgfleet(3, "restart", "web", "--yes")
	for _, want := range []string{"web@hb failed", "no module named llama", "1 failed (web@hb)", "2 ok"} {
		if !strings.Contains(out, want) {
			r.Errorf("the report does not say %q:\n%s", want, out)
		}
	}
	// Mended, it is restarted by its name, though failed.
	r.must(os.Remove(flag))
	r.sgfleet(0, "restart", "web@hb", "--yes")
	if got := r.host.Property("hb-web", "ActiveState"); got != "active" {
		r.Errorf("hb-web is %s, want active", got)
	}
}

// testStopped: a stopped unit stays stopped.
func testStopped(r *rig) {
	r.host.Systemctl("stop", "hb-inference")
	before := r.invocations()
	report := r.report(0, "restart", "all")
	if got := r.result(report, "inference@hb"); got.Status != control.Skipped {
		r.Errorf("inference@hb: %+v, want skipped", got)
	}
	if got := r.host.Property("hb-inference", "ActiveState"); got != "inactive" {
		r.Errorf("hb-inference is %s, want inactive", got)
	}
	for unit, id := range r.invocations() {
		if unit != "hb-inference" && id == before[unit] {
			r.Errorf("%s was not restarted", unit)
		}
	}
	r.host.Systemctl("start", "hb-inference")
}

// testSelfRestart: a daemon restarts itself and the ack is not lost.
func testSelfRestart(r *rig) {
	before, services := r.host.InvocationID("hc-sgfleet"), r.invocations()
	report := r.report(0, "restart", "sgfleet@hc")
	got := r.result(report, "sgfleet@hc")
	now := r.host.InvocationID("hc-sgfleet")
	if got.Class != control.ClassOK || got.InvocationID != now || now == before {
		r.Errorf("got %+v; invocation before %s, now %s", got, before, now)
	}
	for unit, id := range r.invocations() {
		if id != services[unit] {
			r.Errorf("%s was restarted as well", unit)
		}
	}
}

// testReload: SIGHUP reads the config again without losing the process; a
// broken one changes nothing.
func testReload(r *rig) {
	file := filepath.Join(r.host.Dir, "hc", "config.yaml")
	good, err := os.ReadFile(file)
	r.must(err)
	pid := r.host.Property("hc-sgfleet", "MainPID")
	r.must(os.WriteFile(file, append(bytes.Clone(good), "mode: obsrve\n"...), 0o644))
	r.host.Systemctl("reload", "hc-sgfleet")
	r.sgfleet(0, "ping", "web@hc")
	r.must(os.WriteFile(file, append(bytes.Clone(good), "mode: observe\n"...), 0o644))
	r.host.Systemctl("reload", "hc-sgfleet")
	r.until("web@hc observes", func(e map[string]fleet.Entry) bool { return e["web@hc"].Mode == fleet.ModeObserve })
	id := r.host.InvocationID("hc-web")
	if got := r.result(r.report(0, "restart", "web@hc"), "web@hc"); got.Status != control.Skipped || !strings.Contains(got.Detail, "would restart") {
		r.Errorf("observing, it answered %+v", got)
	}
	if now := r.host.InvocationID("hc-web"); now != id {
		r.Error("observing, it restarted hc-web all the same")
	}
	r.must(os.WriteFile(file, good, 0o644))
	r.host.Systemctl("reload", "hc-sgfleet")
	r.until("web@hc acts", func(e map[string]fleet.Entry) bool { return e["web@hc"].Mode == fleet.ModeAct })
	// What was accepted is done before the new config is in force.
	ops := []string{r.report(0, "restart", "web@hc", "--no-wait").ID, r.report(0, "restart", "web@hc", "--no-wait").ID}
	r.host.Systemctl("reload", "hc-sgfleet")
	for _, id := range ops {
		for deadline := time.Now().Add(30 * time.Second); ; {
			var out strings.Builder
			cmd := r.command("restart", "--retry", id, "--dry-run")
			cmd.Stderr = &out
			if _ = cmd.Run(); strings.Contains(out.String(), "succeeded everywhere") {
				break
			}
			if time.Now().After(deadline) {
				r.Fatalf("op %s, accepted before a reload, has not succeeded after 30 s: %s", id, out.String())
			}
		}
	}
	if now := r.host.Property("hc-sgfleet", "MainPID"); now != pid {
		r.Errorf("reloading made a new process: %s, was %s", now, pid)
	}
}

// inside runs sgfleet on the host itself, as its administrator would.
func (r *rig) inside(wantExit int, args ...string) (out string) {
	r.Helper()
	argv := append([]string{"env", "SGFLEET_CONFIG=" + filepath.Join(r.host.Dir, "ha", "config.yaml"), "HOME=" + r.host.Dir, r.bin}, args...)
	cmd := r.host.Command(r.Context(), argv...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		r.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantExit {
		r.Fatalf("sgfleet %s on the host: exit %d, want %d\n%s", strings.Join(args, " "), got, wantExit, b)
	}
	return string(b)
}

// testLocal: what needs no Redis works on the host itself, with the same
// truth, and leaves a line in the journal.
func testLocal(r *rig) {
	rev := r.remote.Push(map[string]string{"version": "3\n"})
	out := r.inside(0, "update", "all", "--local", "--yes")
	if strings.Index(out, "web@ha") > strings.Index(out, "gateway@ha") || r.entered("ha-gateway") < r.entered("ha-web") {
		r.Errorf("the gateway did not go last:\n%s", out)
	}
	if head := gittest.Head(r.T, filepath.Join(r.host.Dir, "ha", "app")); head != rev || r.version("ha-web") != "3" || r.version("ha-gateway") != "3" {
		r.Errorf("checkout at %s, want %s; web runs %q, gateway %q, want 3", head, rev, r.version("ha-web"), r.version("ha-gateway"))
	}
	flag := filepath.Join(r.state, "ha-web.broken")
	r.must(os.WriteFile(flag, nil, 0o644))
	if out := r.inside(3, "restart", "web", "--local", "--yes"); !strings.Contains(out, "no module named llama") {
		r.Errorf("no journal lines:\n%s", out)
	}
	r.must(os.Remove(flag))
	if out := r.inside(0, "restart", "web", "--local", "--yes"); !strings.Contains(out, "skipped") || !strings.Contains(out, "name it (web@ha) or --include-failed") {
		r.Errorf("a failed unit left alone, without saying how it comes back:\n%s", out)
	}
	r.inside(0, "restart", "web", "--local", "--include-failed", "--yes")
	r.inside(6, "restart", "web", "--local")
	r.inside(5, "restart", "inference", "--local", "--yes")

	r.host.SyncJournal()
	if out := r.inside(0, "logs", "web", "-o", "jsonl", "--cursor-file", r.host.Dir+"/cursor"); !strings.Contains(out, `"instance":"web@ha"`) {
		r.Errorf("logs: %s", out)
	}
	if out := r.inside(0, "logs", "web", "--cursor-file", r.host.Dir+"/cursor"); strings.Contains(out, "web@ha") {
		r.Errorf("logs after the cursor print what was printed:\n%s", out)
	}
	cmd := r.host.Command(r.Context(), "journalctl", "-t", "sgfleet", "-o", "cat")
	if b, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(b), "sgfleet update --local by ") {
		r.Errorf("no record in the journal: %v\n%s", err, b)
	}

	out = r.inside(0, "config", "init", "--prefix", "ha-")
	for _, want := range []string{"gateway:", "web:", "checkout: " + r.host.Dir + "/ha/app"} {
		if !strings.Contains(out, want) {
			r.Errorf("config init does not say %q:\n%s", want, out)
		}
	}
	if out := r.inside(0, "doctor"); !strings.Contains(out, "ha-sgfleet.service is active") {
		r.Errorf("doctor: %s", out)
	}
}

// testSilent: a daemon that was stopped and one that was killed are both
// expected and named; back again, they do not do what they missed.
func testSilent(r *rig) {
	r.host.Systemctl("stop", "hb-sgfleet")
	r.until("hb is down", func(e map[string]fleet.Entry) bool { return e["web@hb"].State == fleet.StateDown })
	out, _ := r.sgfleet(4, "restart", "all", "--yes")
	for _, want := range []string{"inference@hb", "web@hb", "silent", "last heartbeat"} {
		if !strings.Contains(out, want) {
			r.Errorf("the report does not say %q:\n%s", want, out)
		}
	}
	r.host.Systemctl("kill", "--signal=KILL", "ha-sgfleet")
	r.until("ha is down", func(e map[string]fleet.Entry) bool { return e["web@ha"].State == fleet.StateDown })
	before := r.invocations()
	report := r.report(4, "restart", "all")
	for _, i := range []string{"gateway@ha", "web@ha", "inference@hb", "web@hb"} {
		if got := r.result(report, i); got.Class != control.ClassSilent {
			r.Errorf("%s: %+v, want silent", i, got)
		}
	}
	r.host.Systemctl("start", "ha-sgfleet", "hb-sgfleet")
	r.sgfleet(0, "ping", "all")
	for unit, id := range r.invocations() {
		if host, _, _ := strings.Cut(unit, "-"); host != "hc" && id != before[unit] {
			r.Errorf("%s ran an op that it was down for", unit)
		}
	}
}
