//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// report is what the tests read of "sgfleet … -o json".
type report struct {
	Instances []struct {
		Instance string
		Class    string
		Status   string
		Detail   string
		Revision string
		Journal  []string
	}
}

// named lists the instances of a class, with what was said of them.
func (r report) named(class string) map[string]string {
	m := map[string]string{}
	for _, i := range r.Instances {
		if i.Class == class {
			m[i.Instance] = i.Status + " " + i.Detail
		}
	}
	return m
}

// TestFleet is one story on one stage, because a stage costs more than a
// chapter: each subtest leaves the fleet whole for the next.
func TestFleet(t *testing.T) {
	f := newStage(t)
	tell := func(t *testing.T, fn func(f *fleet)) {
		start := time.Now()
		g := *f
		g.t = t
		defer g.journals()
		fn(&g)
		t.Logf("%s: %v", t.Name(), time.Since(start).Round(100*time.Millisecond))
	}
	chapter := func(name string, fn func(f *fleet)) {
		if !t.Run(name, func(t *testing.T) { tell(t, fn) }) {
			t.FailNow()
		}
	}
	type told struct {
		name string
		fn   func(f *fleet)
	}
	beside := func(chapters ...told) { // they do not touch each other's hosts, and each waits a lot
		var names []string
		for _, c := range chapters {
			names = append(names, c.name)
		}
		chapter(strings.Join(names, "And"), func(f *fleet) {
			for _, c := range chapters {
				f.t.Run(c.name, func(t *testing.T) { t.Parallel(); tell(t, c.fn) })
			}
		})
	}
	chapter("FirstInstallObserves", firstInstall)
	chapter("Act", act)
	chapter("Restart", restartAll)
	chapter("PullAndUpdate", pullAndUpdate)
	chapter("Privilege", privilege)
	chapter("BrokenUnit", brokenUnit)
	chapter("Unheard", unheard)
	chapter("RedisRestart", redisRestart)
	chapter("Reboot", reboot)
	chapter("SelfRestart", selfRestart)
	beside(told{"RestartMidOp", restartMidOp}, told{"Packages", packages}, told{"RefusedRemovals", refusedRemovals}, told{"NotOurs", notOurs}, told{"KilledRun", killedRun})
	beside(told{"BadRelease", badRelease}, told{"FailoverAndRemoval", failoverAndRemoval}, told{"RedisOfOthers", redisOfOthers}) // the last: h2 and h3 are taken away
}

var recap = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// changed reads each host's number of changed tasks from the recap.
func changed(out string) map[string]string {
	m := map[string]string{}
	for _, g := range recap.FindAllStringSubmatch(out, -1) {
		m[g[1]] = g[3]
	}
	return m
}

func (f *fleet) mustAnsible(playbook string, args ...string) string {
	f.t.Helper()
	out, code := f.ansible(playbook, args...)
	if code != 0 {
		f.t.Fatalf("ansible-playbook %s %v: exit %d\n%s", playbook, args, code, out)
	}
	return out
}

// A first install beside running services touches none of them.
func firstInstall(f *fleet) {
	f.operatorOnHub()
	f.mustAnsible("site.yml")
	before := f.invocations(hosts...)
	r := f.op(0, "restart", "all")
	if got := len(r.named("ok")); got != 12 {
		f.t.Fatalf("%d instances ok, want 12: %+v", got, r)
	}
	for i, said := range r.named("ok") {
		if !strings.Contains(said, "would restart") {
			f.t.Errorf("%s: %s", i, said)
		}
	}
	if after := f.invocations(hosts...); !maps.Equal(before, after) {
		f.t.Fatalf("observe mode restarted something:\n%v\n%v", before, after)
	}
}

// act lets the daemons act and gives them a new binary, as an engineer does: host
// by host. Then it runs the whole role once more.
func act(f *fleet) {
	binary, err := f.release()
	if err != nil {
		f.t.Fatal(err)
	}
	f.inventory(map[string]any{"sgfleet_mode": "act", "sgfleet_binary": binary})
	// What stays in the roster of a service that was taken out of sgfleet_services,
	// and of one that had more instances.
	f.sh("hub", "r='redis-cli --user sg-operator --pass "+operatorPassword+` --no-auth-warning'
agents=$($r hget sg:control:live agents@h2)
$r hset sg:control:live video@h2 "${agents//agents/video}" agents@h2#1 "${agents//agents@h2/agents@h2#1}"`)
	out := f.mustAnsible("rollout.yml", "--tags", "sgfleet_install,sgfleet_verify")
	if n := strings.Count(out, "RUNNING HANDLER [sgfleet : Restart sgfleet]"); n != 3 {
		f.t.Errorf("the handler ran %d times in 3 batches", n)
	}
	if out, _, _ := f.operator("services", "host:h2", "-o", "name"); strings.Contains(out, "video") || strings.Contains(out, "#") || !strings.Contains(out, "agents@h2") {
		f.t.Errorf("video@h2 and agents@h2#1 are not forgotten, or more than they are:\n%s", out)
	}
	if _, _, code := f.operator("ping", "all", "--expect-version", released); code != 0 {
		f.t.Errorf("ping --expect-version: exit %d", code)
	}
	if _, _, code := f.operator("ping", "all", "--expect-version", "v1.0.0"); code == 0 {
		f.t.Error("ping --expect-version of another version succeeded")
	}
	if n := changed(f.mustAnsible("site.yml")); n["h1"]+n["h2"]+n["h3"]+n["h4"]+n["hub"] != "00000" {
		f.t.Fatalf("the second run changed something: %v", n)
	}
}

// checkOnly shows what another mode would change on a host, beside what the
// test does next. What it returns requires that this was all it did.
func checkOnly(f *fleet, host string) (verify func()) {
	f.t.Helper()
	checked := f.ansibleBeside("site.yml", "--limit", host, "--check", "--diff", "-e",
		`{"sgfleet_mode": "observe", "sgfleet_services": {"agents": {"checkout": "`+checkout+`"}, "video": {"tier": "web", "checkout": "/home/a 100%"}}}`)
	return func() {
		f.t.Helper()
		out, code := checked()
		if code != 0 || !strings.Contains(out, "+mode: observe") || !strings.Contains(out, "-mode: act") {
			f.t.Errorf("--check --diff does not show the change (exit %d)\n%s", code, out)
		}
		if !regexp.MustCompile(`(?m)^\+ +var units = .*"stargazer-video.service"`).MatchString(out) {
			f.t.Errorf("--check --diff does not show the new polkit rule\n%s", out)
		}
		for _, want := range []string{`BindPaths="/home/a 100%%"`, `ReadWritePaths="/home/a 100%%"`} {
			if !strings.Contains(out, "+"+want+"\n") {
				f.t.Errorf("--check --diff does not show %s\n%s", want, out)
			}
		}
		if mode := f.in(host, "grep", "^mode:", "/etc/sgfleet/config.yaml"); mode != "mode: act\n" {
			f.t.Errorf("--check changed the host: %s", mode)
		}
	}
}

// gatewayLast requires, by systemd's own clock, that the gateway came up after
// every other service.
func (f *fleet) gatewayLast() {
	f.t.Helper()
	gw := f.entered("h1", "gateway")
	each(hosts, func(h, s string) {
		if s != "gateway" && f.entered(h, s) >= gw {
			f.t.Errorf("%s on %s came up after the gateway", s, h)
		}
	})
}

func restartAll(f *fleet) {
	defer wrongVariables(f)()
	defer missingUnit(f, "h1")()
	before := f.invocations(hosts...)
	r := f.op(0, "restart", "all")
	for k, id := range f.invocations(hosts...) {
		if id == before[k] {
			f.t.Errorf("%s was not restarted", k)
		}
	}
	f.gatewayLast()
	if len(r.named("ok")) != 12 {
		f.t.Errorf("report: %+v", r)
	}
}

func (f *fleet) afterPulls(host string) int {
	f.t.Helper()
	return strings.Count(f.sh(host, "cat "+checkout+"/.git/after-pull.log 2>/dev/null || true"), "\n")
}

func pullAndUpdate(f *fleet) {
	defer wrongCredentials(f)()
	// A hook and a monitor that someone planted; neither may run.
	for _, h := range hosts {
		f.sh(h, fmt.Sprintf(`cd %[1]s/.git
for hook in post-merge post-checkout reference-transaction post-index-change; do
printf '#!/bin/sh\nenv >%[1]s/.git/planted\n' >hooks/$hook; chmod 755 hooks/$hook; chown %[2]s: hooks/$hook; done
printf '#!/bin/sh\nenv >%[1]s/.git/planted\n' >fsmonitor; chmod 755 fsmonitor; chown %[2]s: fsmonitor
runuser -u %[2]s -- git -C %[1]s config core.fsmonitor %[1]s/.git/fsmonitor`, checkout, owner[h]))
	}
	before := map[string]int{}
	for _, h := range hosts {
		before[h] = f.afterPulls(h)
	}
	running := f.invocations(hosts...)
	rev := f.push("date +%N >v")
	r := f.op(0, "pull", "all")
	for _, h := range hosts {
		if got := f.afterPulls(h) - before[h]; got != 1 {
			f.t.Errorf("%s: %d pulls, want 1", h, got)
		}
	}
	for _, i := range r.Instances {
		if i.Revision != rev {
			f.t.Errorf("%s says it is on %s, want %s", i.Instance, i.Revision, rev)
		}
	}
	if !maps.Equal(running, f.invocations(hosts...)) {
		f.t.Error("a pull restarted a service")
	}

	time.Sleep(time.Second) // the cooldown of this inventory
	rev = f.push("date +%N >v; echo '# changed' >>bin/run")
	f.op(0, "update", "all")
	for _, h := range hosts { // a service may run as another user than the daemon
		if mode := f.in(h, "stat", "-c", "%a", checkout+"/bin/run"); mode != "755\n" {
			f.t.Errorf("%s: the pull left bin/run with mode %s", h, mode)
		}
	}
	each(hosts, func(h, s string) {
		if got := f.running(h, s); got != rev {
			f.t.Errorf("%s on %s runs %s, want %s", s, h, got, rev)
		}
	})
	for _, h := range hosts {
		if got := f.afterPulls(h) - before[h]; got != 2 {
			f.t.Errorf("%s: %d pulls after the update, want 2", h, got)
		}
		if _, err := f.tryIn(h, "test", "-e", checkout+"/.git/planted"); err == nil {
			f.t.Errorf("%s: a planted hook or monitor ran", h)
		}
	}
	f.gatewayLast()
}

// The daemon's user may restart the fleet's units and nothing else, and its
// credential in Redis may not publish.
func privilege(f *fleet) {
	for _, h := range []string{"h1", "h4"} {
		asDaemon := []string{
			"runuser", "-u", owner[h], "--", "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
			"org.freedesktop.systemd1.Manager",
		}
		out, err := f.tryIn(h, append(asDaemon, "RestartUnit", "ss", "ssh.service", "replace")...)
		if err == nil || !strings.Contains(out, "denied") && !strings.Contains(out, "authori") {
			f.t.Errorf("%s: restarting ssh.service as %s: %v %s", h, owner[h], err, out)
		}
		if out, err := f.tryIn(h, append(asDaemon, "RestartUnit", "ss", unit(services[h][1]), "replace")...); err != nil {
			f.t.Errorf("%s: restarting a unit of the fleet as %s: %v %s", h, owner[h], err, out)
		}
	}
	out := f.sh("hub", "redis-cli --user sg-agent --pass "+agentPassword+" --no-auth-warning publish sg:channel:control '{}' || true")
	if !strings.Contains(out, "NOPERM") {
		f.t.Errorf("the agents' credential may publish: %s", out)
	}
	if out := f.in("h1", "systemd-analyze", "security", "--threshold=20", "sgfleet.service"); !strings.Contains(out, "Overall exposure level") {
		f.t.Errorf("exposure: %s", out)
	}
}

func brokenUnit(f *fleet) {
	f.startPackaging()
	defer brokenArtifact(f, "h4")()
	f.push("mkdir -p broken; touch broken/stargazer-consolidation")
	r := f.op(3, "update", "consolidation")
	failed := slices.Sorted(maps.Keys(r.named("failed")))
	if !slices.Equal(failed, []string{"consolidation@h2", "consolidation@h3"}) {
		f.t.Errorf("failed: %v", failed)
	}
	for _, i := range r.Instances {
		if !strings.Contains(strings.Join(i.Journal, "\n"), "cannot start: broken by commit") {
			f.t.Errorf("%s failed without its last words: %q", i.Instance, i.Journal)
		}
	}
	f.push("rm -r broken")
	time.Sleep(time.Second) // cooldown
	f.op(0, "update", "consolidation", "--include-failed")
}

func (f *fleet) daemonID(host string) string {
	f.t.Helper()
	return f.in(host, "systemctl", "show", "-P", "InvocationID", "sgfleet.service")
}

// The daemon restarts itself through the op, onto another binary, and its
// answer still arrives: from the next process, with its own invocation.
func selfRestart(f *fleet) {
	before, services := f.daemonID("h2"), f.invocations("h2")
	other, err := os.ReadFile(filepath.Join(f.root, "bin/sgfleet"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("h2", "/root/sgfleet", "0755", string(other))
	f.sh("h2", "cp /usr/local/bin/sgfleet /root/kept; mv /root/sgfleet /usr/local/bin/sgfleet")
	r := f.op(0, "restart", "sgfleet@h2")
	if len(r.named("ok")) != 1 {
		f.t.Errorf("report: %+v", r)
	}
	if f.daemonID("h2") == before {
		f.t.Error("the daemon was not restarted")
	}
	if !maps.Equal(services, f.invocations("h2")) {
		f.t.Error("the daemon's restart took services along")
	}
	if _, _, code := f.operator("ping", "sgfleet@h2", "--expect-version", released); code != 3 {
		f.t.Errorf("ping --expect-version of the binary before: exit %d, want 3", code)
	}
	f.sh("h2", "mv /root/kept /usr/local/bin/sgfleet; systemctl restart sgfleet")
	f.whole()
}

// A daemon that is restarted, as the role's handler does, while an op of its
// is running finishes it first: no ack is lost.
func restartMidOp(f *fleet) {
	for _, h := range []string{"h2", "h3"} {
		f.sh(h, `mkdir -p /etc/systemd/system/stargazer-inference.service.d
printf '[Service]\nExecStop=/bin/sleep 2\n' >/etc/systemd/system/stargazer-inference.service.d/slow.conf
systemctl daemon-reload`)
	}
	before := f.daemonID("h2")
	restarted := make(chan string, 1)
	go func() {
		for range 100 { // until the op is at work on h2
			if out, _ := f.tryIn("h2", "systemctl", "is-active", "stargazer-inference"); strings.HasPrefix(out, "deactivating") {
				break
			}
		}
		out, err := f.tryIn("h2", "systemctl", "restart", "sgfleet")
		restarted <- fmt.Sprint(out, err)
	}()
	r := f.op(0, "restart", "inference@h2,inference@h3")
	if out := <-restarted; out != "<nil>" {
		f.t.Fatalf("restarting the daemon: %s", out)
	}
	if len(r.named("ok")) != 2 || f.daemonID("h2") == before {
		f.t.Errorf("daemon restarted: %v; report: %+v", f.daemonID("h2") != before, r)
	}
	for _, h := range []string{"h2", "h3"} {
		f.sh(h, "rm -r /etc/systemd/system/stargazer-inference.service.d; systemctl daemon-reload")
	}
	f.whole()
}

// released is the version that buildRelease builds.
const released = "v9.0.0"

// buildRelease builds the binary of a later version.
func (f *fleet) buildRelease() (path string, err error) {
	path = filepath.Join(f.dir, "sgfleet-good")
	out, err := f.try(5*time.Minute, "env", "CGO_ENABLED=0", "go", "build", "-C", f.root, "-trimpath",
		"-ldflags", "-s -w -X github.com/sgfleet/sgfleet/cmd/internal/cli.version="+released, "-o", path, "./cmd/sgfleet")
	if err != nil {
		return "", fmt.Errorf("building a release: %w\n%s", err, out)
	}
	return path, nil
}

func (f *fleet) sha(host string) string {
	f.t.Helper()
	return strings.Fields(f.in(host, "sha256sum", "/usr/local/bin/sgfleet"))[0]
}

// A release that passes its own checks and then cannot run: only the canary
// meets it, and gets its old binary back.
func badRelease(f *fleet) {
	bad := filepath.Join(f.dir, "sgfleet-bad")
	script := "#!/bin/sh\ncase $1 in\ndaemon) echo bad release >&2; exit 1 ;;\nversion) echo '{\"version\":\"9.9.9\"}' ;;\nunits) exec /usr/local/bin/sgfleet \"$@\" ;;\nesac\n"
	if err := os.WriteFile(bad, []byte(script), 0o755); err != nil {
		f.t.Fatal(err)
	}
	before := map[string]string{"h1": f.sha("h1"), "h4": f.sha("h4")} // h2 and h3 have other plans
	out, code := f.ansible("rollout.yml", "-e", "sgfleet_binary="+bad, "-e", "sgfleet_verify_timeout=2", "-e", "sgfleet_mode=observe")
	if code == 0 {
		f.t.Fatalf("the rollout succeeded\n%s", out)
	}
	for _, want := range []string{"has its previous binary and config back", "not subscribed within 2 s. sgfleet.service is", "\n        bad release\n"} {
		if !strings.Contains(out, want) {
			f.t.Errorf("the rollout does not say %q\n%s", want, out)
		}
	}
	if mode := f.in("h1", "grep", "^mode:", "/etc/sgfleet/config.yaml"); mode != "mode: act\n" {
		f.t.Errorf("h1 has not its previous config back: %s", mode)
	}
	for h, sha := range before {
		if f.sha(h) != sha {
			f.t.Errorf("%s has another binary than before", h)
		}
	}
	for _, h := range hosts {
		if strings.Contains(f.sh(h, "journalctl -u sgfleet -o cat"), "bad release") != (h == hosts[0]) {
			f.t.Errorf("%s: the bad release ran on the wrong hosts", h)
		}
	}
	f.until(60*time.Second, "h1 answers again", func() bool {
		_, _, code := f.operator("ping", "host:h1,sgfleet@h1", "--timeout", "3s", "-o", "json")
		return code == 0
	})
}

// killedRun is what a run leaves that is killed after it has replaced the
// config: nothing more to change, and a daemon that has not read it.
func killedRun(f *fleet) {
	const host = "h1"
	before := f.daemonID(host)
	f.sh(host, "touch /etc/sgfleet/config.yaml")
	out := f.mustAnsible("site.yml", "--limit", host, "--tags", "sgfleet_verify")
	if f.daemonID(host) == before {
		f.t.Errorf("the daemon of %s is older than its config\n%s", host, out)
	}
}

// failoverAndRemoval moves a host to a Redis with a Sentinel and removes another
// meanwhile.
func failoverAndRemoval(f *fleet) {
	removed := f.ansibleBeside("remove.yml", "--limit", "h2")
	sentinelFailover(f, "h3")
	if out, code := removed(); code != 0 {
		f.t.Fatalf("remove.yml: exit %d\n%s", code, out)
	}
	isRemoved(f, "h2")
}
