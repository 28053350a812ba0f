//go:build e2e

package e2e

import (
	"strings"
	"time"
)

// sentinelFailover moves a host to a pair of Redis watched by a Sentinel (and, in
// the same run, from the binary to the package), kills the master, and requires
// that it hears the operator on the new one.
func sentinelFailover(f *fleet, host string) {
	redis := "systemd-run --quiet --collect --unit=%s redis-server --port 6390 --bind 0.0.0.0 --protected-mode no --save '' "
	f.sh("hub", strings.ReplaceAll(redis, "%s", "redis-a"))
	f.sh("h1", strings.ReplaceAll(redis, "%s", "redis-b")+"--replicaof "+ip(f, "hub")+" 6390")
	f.write("h1", "/run/sentinel.conf", "0666", "port 26379\nbind 0.0.0.0\nprotected-mode no\nsentinel monitor sg "+ip(f, "hub")+
		" 6390 1\nsentinel down-after-milliseconds sg 2000\nsentinel failover-timeout sg 5000\n")
	f.sh("h1", "systemd-run --quiet --collect --unit=sentinel-e2e redis-sentinel /run/sentinel.conf")
	f.write("hub", "/root/sentinel.yaml", "0644",
		"redis: {username: \"\", password_file: \"\", sentinels: [\"h1:26379\"], master_name: sg}\nheartbeat_interval: 2s\n")
	f.mustAnsible("rollout.yml", "--limit", host, "-e",
		`{"sgfleet_redis_sentinels": ["h1:26379"], "sgfleet_redis_master_name": "sg", "sgfleet_redis_username": "", "sgfleet_redis_password": "",
		"sgfleet_operator_host": "", "sgfleet_binary": "", "sgfleet_package": "`+f.built("deb", 0)+`"}`)
	if exe := f.sh(host, "readlink /proc/$(systemctl show -P MainPID sgfleet)/exe"); exe != "/usr/bin/sgfleet\n" {
		f.t.Errorf("the daemon runs %s", exe)
	}
	// The binary would be found before the package's; the password is not used any more.
	if out, err := f.tryIn(host, "ls", "/usr/local/bin/sgfleet", "/etc/sgfleet/credentials/redis-password", "/etc/sgfleet/credentials/staged/redis-password"); err == nil || strings.Contains(out, "\n/") {
		f.t.Errorf("still there: %s", out)
	}
	ping := func() bool {
		_, _, code := f.operator("ping", "inference", "--config", "/root/sentinel.yaml", "--timeout", "2s", "-o", "json")
		return code == 0
	}
	f.until(30*time.Second, "the host answers on the first master", ping)
	f.until(30*time.Second, "the sentinel knows the replica", func() bool {
		out, err := f.tryIn("h1", "redis-cli", "-p", "26379", "sentinel", "replicas", "sg")
		return err == nil && strings.Contains(out, ip(f, "h1"))
	})
	before := f.invocations(host)

	f.sh("hub", "systemctl kill -s KILL redis-a")
	took := f.until(15*time.Second, "the host answers on the new master", ping)
	f.t.Logf("subscribed on the new master %v after the old one died", took.Round(100*time.Millisecond))
	after := f.invocations(host)
	for k := range before {
		if before[k] != after[k] {
			f.t.Errorf("%s was restarted", k)
		}
	}
}
