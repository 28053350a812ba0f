//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// newStage boots the hosts and gives them what a platform engineer finds on
// theirs: names, a git remote behind ssh, services' checkouts with an owner.
func newStage(t *testing.T) *fleet {
	t.Helper()
	need(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{
		t: t, root: root, dir: t.TempDir(), pkg: &packaging{},
		// Short: it names network links (15 bytes) and holds ssh's sockets.
		state: filepath.Join(os.TempDir(), fmt.Sprintf("sge%d", os.Getpid()%10000)),
		net:   fmt.Sprintf("10.77.%d", os.Getpid()%250),
	}
	f.release = sync.OnceValues(f.buildRelease)
	go f.release() // while the hosts are set up
	t.Cleanup(func() { f.hosts("down") })
	t.Cleanup(func() { f.release() })
	t.Cleanup(func() {
		if f.pkg.done != nil {
			<-f.pkg.done
		}
	})
	up := []string{"up"}
	names := "127.0.0.1 localhost\n"
	for _, h := range append([]string{"hub", "bare"}, hosts...) {
		up = append(up, fmt.Sprintf("%s:%d", h, octet[h]))
		names += ip(f, h) + " " + h + "\n"
	}
	f.hosts(up...)
	for _, h := range append([]string{"hub"}, hosts...) {
		f.write(h, "/etc/hosts", "0644", names)
	}
	f.gitRemote()
	for _, h := range hosts {
		f.clone(h)
	}
	f.inventory(nil)
	return f
}

// need skips without root; in CI, which is root and installs the parts, it
// fails instead.
func need(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, name := range []string{"ansible-playbook", "mmdebstrap", "ip", "nsenter", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = name
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatal("needs ", missing)
	default:
		t.Skip("needs ", missing)
	}
}

// app is what the services run: each start writes down the revision it runs on.
const app = `mkdir -p bin
cat >bin/run <<'EOF'
#!/bin/sh
git rev-parse HEAD >/run/stargazer/$1
[ ! -e broken/$1 ] || { echo "cannot start: broken by commit $(git rev-parse --short HEAD)" >&2; exit 1; }
exec sleep infinity
EOF
cat >bin/after-pull <<'EOF'
#!/bin/sh
git rev-parse HEAD >>.git/after-pull.log
EOF
chmod +x bin/*
`

func (f *fleet) gitRemote() {
	f.t.Helper()
	f.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deploy", "-f", filepath.Join(f.dir, "deploy"))
	pub, err := os.ReadFile(filepath.Join(f.dir, "deploy.pub"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.sh("hub", `useradd -m -s /bin/bash git
runuser -u git -- bash -euc 'cd; git config --global user.name Dev; git config --global user.email dev@hub
git config --global init.defaultBranch main; git init -q --bare app.git; git clone -q app.git work 2>/dev/null'`)
	f.write("hub", "/home/git/.ssh/authorized_keys", "0644", string(pub))
	f.push(app)
}

func (f *fleet) clone(host string) {
	f.t.Helper()
	key, err := os.ReadFile(filepath.Join(f.dir, "deploy"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(host, "/etc/tmpfiles.d/stargazer.conf", "0644", "d /run/stargazer 1777 root root -\n")
	f.write(host, "/root/deploy", "0600", string(key))
	f.sh(host, fmt.Sprintf(`systemd-tmpfiles --create stargazer.conf
useradd --system --home-dir /var/lib/sgfleet --shell /usr/sbin/nologin %[1]s
GIT_SSH_COMMAND='ssh -i /root/deploy -oStrictHostKeyChecking=no -oLogLevel=ERROR' git clone -q git@hub:app.git %[2]s
rm /root/deploy
chown -R %[1]s: %[2]s`, owner[host], checkout))
}

// vars are the variables of every host.
func (f *fleet) vars() map[string]any {
	f.t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		return string(b)
	}
	hostKey := strings.Fields(f.in("hub", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"))
	return map[string]any{
		"ansible_user": "root", "ansible_ssh_private_key_file": filepath.Join(f.state, "id"),
		"sgfleet_binary":                  "../bin/sgfleet", // as the README has it: from where ansible-playbook is started
		"sgfleet_redis_url":               "redis://hub:6379/0",
		"sgfleet_redis_username":          "sg-agent",
		"sgfleet_redis_password":          agentPassword,
		"sgfleet_deploy_key":              strings.TrimSpace(read(filepath.Join(f.dir, "deploy"))), // as lookup('file') has it
		"sgfleet_known_hosts":             "hub " + hostKey[0] + " " + hostKey[1] + "\n",
		"sgfleet_checkouts":               map[string]any{checkout: map[string]any{"after_pull": []string{"bin/after-pull"}}},
		"sgfleet_service_units":           true,
		"sgfleet_operator_host":           "hub",
		"sgfleet_redis_bind":              "0.0.0.0",
		"sgfleet_config":                  map[string]any{"heartbeat_interval": "2s", "cooldown": "1s", "splay": "500ms"},
		"sgfleet_redis_agent_password":    agentPassword + "\n", // as a vault often has it
		"sgfleet_redis_operator_password": operatorPassword, "sgfleet_redis_roster_password": rosterPassword,
	}
}

// inventory writes the inventory, with vars over those of every host.
func (f *fleet) inventory(vars map[string]any) {
	f.t.Helper()
	all := f.vars()
	for k, v := range vars {
		all[k] = v
	}
	members := map[string]any{}
	for _, h := range hosts {
		ss := map[string]any{}
		for _, s := range services[h] {
			ss[s] = map[string]any{"checkout": checkout}
		}
		members[h] = map[string]any{"ansible_host": ip(f, h), "sgfleet_services": ss, "sgfleet_user": owner[h]}
	}
	inv := map[string]any{"all": map[string]any{
		"vars": all,
		"children": map[string]any{
			"sgfleet":       map[string]any{"hosts": members},
			"sgfleet_redis": map[string]any{"hosts": map[string]any{"hub": map[string]any{"ansible_host": ip(f, "hub")}}},
		},
	}}
	b, err := json.MarshalIndent(inv, "", " ") // JSON is YAML
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "inventory.yml"), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// operatorOnHub installs the command and the operator's credential on the hub.
func (f *fleet) operatorOnHub() {
	f.t.Helper()
	bin, err := os.ReadFile(filepath.Join(f.root, "bin/sgfleet"))
	if err != nil {
		f.t.Fatalf("%v: run make build", err)
	}
	f.write("hub", "/usr/local/bin/sgfleet", "0755", string(bin))
	f.write("hub", "/etc/sgfleet/operator-password", "0600", operatorPassword)
	f.write("hub", "/etc/sgfleet/config.yaml", "0644",
		"redis: {url: \"redis://hub:6379/0\", username: sg-operator, password_file: /etc/sgfleet/operator-password}\nheartbeat_interval: 2s\ncontrol_reply_timeout: 5s\nop_life: 5s\n")
}
