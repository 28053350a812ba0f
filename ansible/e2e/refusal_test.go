//go:build e2e

package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// failure begins with the line of a host's failed task, and ends where what
// follows is indented no more.
var failure = regexp.MustCompile(`(?m)^(?:fatal|failed): \[([^]]+)\].*\n(?: .*\n)*`)

// saysOf is what ansible-playbook's output says of a host's failed task, in one
// line: it breaks long ones.
func saysOf(out, host string) string {
	for _, g := range failure.FindAllStringSubmatch(out, -1) {
		if g[1] == host {
			return strings.Join(strings.Fields(g[0]), " ")
		}
	}
	return ""
}

// wrongVariables gives each of many hosts one mistake, beside what the test does
// next; what it returns requires that each was told. They are this machine by
// other names, which is never touched: the tag ends where the host is asked.
func wrongVariables(f *fleet) (verify func()) {
	f.t.Helper()
	none := map[string]any{}
	web := map[string]any{"web": none}
	passwords := map[string]any{"sgfleet_redis_agent_password": "a", "sgfleet_redis_operator_password": "b"}
	with := func(m map[string]any, k string, v any) map[string]any {
		m = maps.Clone(m)
		m[k] = v
		return m
	}
	redis := map[string]any{
		"no-passwords": none, "number": with(passwords, "sgfleet_redis_agent_password", 12345), "loopback": passwords, "reachable": with(passwords, "sgfleet_redis_bind", "127.0.0.1 10.0.0.1"),
	}
	members := map[string]any{
		"right":       none,
		"mode":        map[string]any{"sgfleet_mode": "maybe"},
		"near-name":   map[string]any{"sgfleet_service": web},
		"other-name":  map[string]any{"sgfleet_xyz": 1},
		"no-services": map[string]any{"sgfleet_services": none},
		"url":         map[string]any{"sgfleet_redis_url": "redis://:pw@hub:6379/0"},
		"config":      map[string]any{"sgfleet_config": map[string]any{"redis": map[string]any{"password": "pw"}}},
		"digits":      map[string]any{"sgfleet_redis_password": 12345},
		"null":        map[string]any{"sgfleet_config": map[string]any{"redis": nil}},
		"nowhere":     map[string]any{"sgfleet_binary": "../bin/nowhere"},
		"both":        map[string]any{"sgfleet_package": "x.deb"},
	}
	want := map[string]string{
		"no-passwords": "set sgfleet_redis_agent_password and sgfleet_redis_operator_password",
		"number":       "put the passwords in quotes",
		"loopback":     "sgfleet_redis_bind is 127.0.0.1, where",
		"reachable":    "",
		"right":        "",
		"mode":         "value of sgfleet_mode must be one of: observe, act, got: maybe",
		"near-name":    "no such variable: sgfleet_service (did you mean sgfleet_services?)",
		"other-name":   "no such variable: sgfleet_xyz (there are: sgfleet_bin_path, ",
		"no-services":  "sgfleet_services is empty for no-services",
		"url":          "give it as sgfleet_redis_password",
		"config":       "give it as sgfleet_redis_password",
		"digits":       "put sgfleet_redis_password in quotes",
		"null":         "",
		"nowhere":      filepath.Join(f.root, "bin/nowhere") + " is not there",
		"both":         "not both",
	}
	inv, err := json.Marshal(map[string]any{"all": map[string]any{
		"vars": map[string]any{"ansible_connection": "local", "sgfleet_binary": "../bin/sgfleet", "sgfleet_services": web},
		"children": map[string]any{
			"sgfleet":       map[string]any{"hosts": members},
			"sgfleet_redis": map[string]any{"hosts": redis},
		},
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.dir, "wrong.yml")
	if err := os.WriteFile(path, inv, 0o600); err != nil {
		f.t.Fatal(err)
	}
	ran := f.ansibleBeside("site.yml", "-i", path, "--limit", "all", "--tags", "sgfleet_check")
	return func() {
		f.t.Helper()
		out, _ := ran()
		for host, w := range want {
			if got := saysOf(out, host); w == "" && (got != "" || !strings.Contains(out, host)) || !strings.Contains(got, w) {
				f.t.Errorf("%s: want %q, got %q\n%s", host, w, got, out)
			}
		}
	}
}

// wrongCredentials gives each host a mistake that only a remote or Redis can
// find, beside what the test does next. What it returns requires that each was
// told, and that no daemon or credential was touched.
func wrongCredentials(f *fleet) (verify func()) {
	f.t.Helper()
	state := func() map[string]string {
		m := map[string]string{}
		for _, h := range hosts {
			m[h] = f.daemonID(h) + f.sh(h, "cd /etc/sgfleet; sha256sum config.yaml known_hosts credentials/redis-password credentials/deploy-key")
		}
		return m
	}
	before := state()
	on := func(host, value, name string) string {
		return "{{ '" + value + "' if inventory_hostname == '" + host + "' else hostvars[inventory_hostname]['kept_" + name + "'] }}"
	}
	kept := map[string]any{}
	all := f.vars()
	for _, name := range []string{"sgfleet_redis_password", "sgfleet_deploy_key", "sgfleet_known_hosts"} {
		kept["kept_"+name] = all[name]
	}
	kept["sgfleet_redis_password"] = on("h1", "wrong", "sgfleet_redis_password")
	kept["sgfleet_deploy_key"] = on("h2", "rubbish", "sgfleet_deploy_key")
	kept["sgfleet_known_hosts"] = on("h3", "elsewhere ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx5sXhHHvTzRmJ8vqg0tXb3cXcP0gW9mO1qZ3sT0Q7K", "sgfleet_known_hosts")
	kept["sgfleet_user"] = "{{ {'h4': 'mail'}[inventory_hostname] | default('sgfleet') }}"
	vars, err := json.Marshal(kept)
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.dir, "credentials.json")
	if err := os.WriteFile(path, vars, 0o600); err != nil {
		f.t.Fatal(err)
	}
	ran := f.ansibleBeside("site.yml", "--limit", "sgfleet", "-e", "@"+path)
	return func() {
		f.t.Helper()
		out, _ := ran()
		for host, want := range map[string]string{
			"h1": "Redis does not take user sg-agent: correct sgfleet_redis_username or sgfleet_redis_password",
			"h2": "set sgfleet_deploy_key",
			"h3": "set sgfleet_known_hosts",
			"h4": "set sgfleet_user",
		} {
			if got := saysOf(out, host); !strings.Contains(got, want) {
				f.t.Errorf("%s: want %q, got %q\n%s", host, want, got, out)
			}
		}
		if after := state(); !maps.Equal(before, after) {
			f.t.Errorf("something was touched:\n%v\n%v", before, after)
		}
	}
}

// brokenArtifact rolls out what is no sgfleet, beside what the test does next.
// What it returns requires that nothing was replaced, and nothing restarted.
func brokenArtifact(f *fleet, host string) (verify func()) {
	f.t.Helper()
	before := f.daemonID(host)
	rolled := f.ansibleBeside("rollout.yml", "--limit", host, "-e", "sgfleet_binary=/bin/false")
	return func() {
		f.t.Helper()
		if out, code := rolled(); code == 0 || !strings.Contains(out, "keeps the binary it had") {
			f.t.Errorf("exit %d\n%s", code, out)
		}
		if f.daemonID(host) != before {
			f.t.Error("the daemon was restarted")
		}
	}
}

// missingUnit gives a host a service that it has no unit for, beside what the
// test does next. What it returns requires that this was said.
func missingUnit(f *fleet, host string) (verify func()) {
	f.t.Helper()
	ran := f.ansibleBeside("site.yml", "--limit", host, "--tags", "sgfleet_verify", "-e",
		`{"sgfleet_service_units": false, "sgfleet_services": {"video": {"tier": "web", "checkout": "`+checkout+`"}}}`)
	return func() {
		f.t.Helper()
		out, code := ran()
		if code == 0 || !strings.Contains(saysOf(out, host), host+" has no stargazer-video.service") {
			f.t.Errorf("a service without a unit: exit %d\n%s", code, out)
		}
	}
}

// refusedRemovals asks for removals that must not begin.
func refusedRemovals(f *fleet) {
	out, code := f.ansible("remove.yml")
	if code == 0 || !strings.Contains(saysOf(out, "h1"), "name some with --limit, or say -e sgfleet_remove_all=true") {
		f.t.Errorf("remove.yml without --limit: exit %d\n%s", code, out)
	}
	out, code = f.ansible("remove.yml", "--limit", "h4", "-e", "sgfleet_operator_command=nowhere")
	if code == 0 || !strings.Contains(saysOf(out, "h4"), "nowhere is not installed on hub (sgfleet_operator_host)") {
		f.t.Errorf("remove.yml without the operator's command: exit %d\n%s", code, out)
	}
	f.in("h4", "systemctl", "is-active", "sgfleet")
}

// notOurs requires that the role writes over no mask, which is somebody's wish
// that a unit be not started, and over no unit of somebody's own.
func notOurs(f *fleet) {
	for _, c := range []struct{ unit, spoil, tags, want string }{
		{"sgfleet.service", "ln -sf /dev/null", "sgfleet_preflight", "sgfleet.service is masked on h4"},
		{unit("web"), "sed -i s/of.the.fleet/here/", "sgfleet_preflight,sgfleet_install", "h4 has " + unit("web") + ", which this role did not write"},
	} {
		path := "/etc/systemd/system/" + c.unit
		f.sh("h4", "cp -p "+path+" /root/kept; "+c.spoil+" "+path)
		out, code := f.ansible("site.yml", "--limit", "h4", "--tags", c.tags)
		if code == 0 || !strings.Contains(saysOf(out, "h4"), c.want) {
			f.t.Errorf("%s: exit %d\n%s", c.unit, code, out)
		}
		f.sh("h4", "! cmp -s "+path+" /root/kept; mv /root/kept "+path)
	}
}

// redisOfOthers requires that a Redis which is there already is left to its
// users, and that one of ours keeps the settings it had when it does not start
// with new ones.
func redisOfOthers(f *fleet) {
	const host = "bare"
	vars := f.vars()
	vars["ansible_host"] = ip(f, host)
	inv, err := json.Marshal(map[string]any{"sgfleet_redis": map[string]any{"hosts": map[string]any{host: vars}}})
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.dir, "redis.yml")
	if err := os.WriteFile(path, inv, 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.sh(host, "echo maxmemory 512mb >>/etc/redis/redis.conf; systemctl start redis-server; redis-cli set app:key value")
	out, code := f.ansible("site.yml", "-i", path)
	if said := saysOf(out, host); code == 0 || !strings.Contains(said, "not the package's") || !strings.Contains(said, "it holds data") {
		f.t.Errorf("a Redis of others: exit %d\n%s", code, out)
	}
	f.sh(host, `test "$(redis-cli get app:key)" = value; ! ls /etc/redis/sgfleet*; echo include /etc/redis/sgfleet.conf >>/etc/redis/redis.conf`)
	f.mustAnsible("site.yml", "-i", path)
	out, code = f.ansible("site.yml", "-i", path, "-e", "sgfleet_redis_bind=192.0.2.1", "-e", "sgfleet_redis_operator_password=new")
	if said := saysOf(out, host); code == 0 || !strings.Contains(said, "has its previous ones back. It says: Failed listening on port 6379") {
		f.t.Errorf("an address that is not its own: exit %d\n%s", code, out)
	}
	f.sh(host, "redis-cli --user sg-operator --pass "+operatorPassword+" ping | grep -q PONG; ! ls /etc/redis/*.previous")
}
