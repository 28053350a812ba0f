//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// packaging is make package, done twice, in the background.
type packaging struct {
	begin sync.Once
	done  chan struct{}
	dist  [2]string
	err   error
}

// startPackaging begins to build the packages while there is time to: the test
// waits a lot for hosts and seldom for a processor.
func (f *fleet) startPackaging() {
	p := f.pkg
	p.begin.Do(func() {
		p.done = make(chan struct{})
		go func() {
			defer close(p.done)
			for i := range p.dist {
				p.dist[i] = filepath.Join(f.dir, "dist"+strconv.Itoa(i))
				if out, err := f.try(5*time.Minute, "env", "DIST="+p.dist[i], "LINTIAN=no", filepath.Join(f.root, "ansible/package")); err != nil {
					p.err = fmt.Errorf("ansible/package: %w\n%s", err, out)
					return
				}
			}
		}()
	})
}

// built is the package of a kind, as built the first or the second time.
func (f *fleet) built(kind string, time int) string {
	f.t.Helper()
	f.startPackaging()
	<-f.pkg.done
	if f.pkg.err != nil {
		f.t.Fatal(f.pkg.err)
	}
	all, _ := filepath.Glob(filepath.Join(f.pkg.dist[time], "*."+kind))
	if len(all) != 1 {
		f.t.Fatalf("want one .%s, have %v", kind, all)
	}
	return all[0]
}

// packages requires that the .deb and the .rpm are the same bytes when they are
// built again, and installs, upgrades and removes them on a host where no role
// has been. To rpm it is a foreign host, whose packages it knows nothing of:
// hence --nodeps.
func packages(f *fleet) {
	const host = "bare"
	for _, kind := range []string{"deb", "rpm"} {
		if out, err := f.try(time.Minute, "cmp", f.built(kind, 0), f.built(kind, 1)); err != nil {
			f.t.Errorf("built twice, the .%s differs: %s", kind, out)
		}
	}
	for kind, by := range map[string]struct{ install, upgrade, remove string }{
		"deb": {"dpkg -i", "dpkg -i", "dpkg -P"},
		"rpm": {"rpm -i --nodeps", "rpm -U --nodeps --replacepkgs", "rpm -e"},
	} {
		content, err := os.ReadFile(f.built(kind, 0))
		if err != nil {
			f.t.Fatal(err)
		}
		file := "/root/sgfleet." + kind
		f.write(host, file, "0644", string(content))
		if out := f.sh(host, by.install+" "+file); !strings.Contains(out, "systemctl enable --now sgfleet") {
			f.t.Errorf("installing the .%s does not say what comes next:\n%s", kind, out)
		}
		f.sh(host, "getent passwd sgfleet; test -x /usr/bin/sgfleet; test -d /etc/sgfleet/credentials; systemd-analyze verify /lib/systemd/system/sgfleet.service")
		f.sh(host, by.upgrade+" "+file)
		f.sh(host, "test -x /usr/bin/sgfleet; mkdir -p /var/lib/sgfleet/checkout; "+by.remove+" sgfleet; rmdir /var/lib/sgfleet/checkout")
		if out, err := f.tryIn(host, "ls", "/usr/bin/sgfleet", "/lib/systemd/system/sgfleet.service"); err == nil {
			f.t.Errorf("removing the .%s left files: %s", kind, out)
		}
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
