//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
)

// deb is the package that make package has built.
func (f *fleet) deb() string {
	f.t.Helper()
	debs, _ := filepath.Glob(filepath.Join(f.root, "dist/*.deb"))
	if len(debs) != 1 {
		f.t.Fatalf("want one .deb in dist/, have %v: run make package", debs)
	}
	return debs[0]
}

// debPackage installs, upgrades and purges the .deb on a host of its own kind:
// the hub, where no role has been.
func debPackage(f *fleet) {
	deb, err := os.ReadFile(f.deb())
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("hub", "/root/sgfleet.deb", "0644", string(deb))
	f.sh("hub", "dpkg -i /root/sgfleet.deb")
	f.sh("hub", "getent passwd sgfleet; test -x /usr/bin/sgfleet; test -d /etc/sgfleet/credentials; systemd-analyze verify /lib/systemd/system/sgfleet.service")
	f.sh("hub", "dpkg -i /root/sgfleet.deb") // the upgrade path
	f.sh("hub", "mv /etc/sgfleet /root/kept; dpkg -P sgfleet; mv /root/kept /etc/sgfleet")
	if out, err := f.tryIn("hub", "ls", "/usr/bin/sgfleet", "/lib/systemd/system/sgfleet.service"); err == nil {
		f.t.Errorf("purge left files: %s", out)
	}
}

// isRemoved requires that nothing of sgfleet is left on a host, that nobody
// expects it any more, and that its services run on.
func isRemoved(f *fleet, host string) {
	f.t.Helper()
	if out, _, _ := f.operator("services", "host:"+host, "-o", "json"); strings.Contains(out, `"`+host+`"`) {
		f.t.Errorf("%s is still expected:\n%s", host, out)
	}
	if out, err := f.tryIn(host, "ls", "/usr/local/bin/sgfleet", "/etc/sgfleet", "/etc/polkit-1/rules.d/50-sgfleet.rules"); err == nil {
		f.t.Errorf("removal left files: %s", out)
	}
	f.in(host, "systemctl", "is-active", unit("inference"))
}
