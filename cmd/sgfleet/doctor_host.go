package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// host checks what a daemon on this machine needs. err is why its unit could
// not be read.
func (d *doctor) host(ctx context.Context, cfg *fleet.Config, units opsexec.Units, self daemonUnit, err error) {
	switch {
	case err != nil:
		d.say("systemd", "skip", "", "units and checkouts are not checked: %v", err)
		return
	case self.LoadState != "loaded":
		d.say("daemon", "skip", "", "%s is %s here: an operator's machine, units and checkouts are not checked", cfg.SelfUnit, self.LoadState)
		return
	case self.ActiveState == "inactive" && self.FileState == "disabled":
		d.say("daemon", "skip", "if this host is to run services: systemctl enable --now "+cfg.SelfUnit,
			"%s is installed but not enabled here: an operator's machine, units and checkouts are not checked", cfg.SelfUnit)
		return
	case self.ActiveState == "active":
		d.say("daemon", "ok", "", "%s is active", cfg.SelfUnit)
	case self.ActiveState == "activating": // a systemctl start would wait as long
		d.say("daemon", "fail", "journalctl -n 20 -u "+cfg.SelfUnit, "%s is starting and not subscribed yet; it keeps trying", cfg.SelfUnit)
	default:
		d.say("daemon", "fail", "systemctl start "+cfg.SelfUnit, "%s is %s (%s)", cfg.SelfUnit, self.ActiveState, self.Result)
	}
	who, err := self.user()
	if err != nil {
		d.say("user", "fail", "systemctl cat "+cfg.SelfUnit, "%v", err)
		return
	}
	checked := map[string]bool{}
	var loaded []string
	for _, s := range cfg.LocalServices(cfg.Host) {
		u, err := units.Show(ctx, s.Unit)
		switch {
		case err != nil:
			d.say(s.Unit, "fail", "systemctl status "+s.Unit, "%v", err)
		case u.LoadState != "loaded":
			d.say(s.Unit, "fail", "systemctl cat "+s.Unit, "%s has no usable unit: %s", s.Instance, u.LoadState)
		case u.ActiveState != "active":
			d.say(s.Unit, "warn", "systemctl start "+s.Unit, "%s is %s; a restart leaves it alone", s.Instance, u.ActiveState)
		default:
			d.say(s.Unit, "ok", "", "%s is active", s.Instance)
		}
		if err == nil && u.LoadState == "loaded" {
			loaded = append(loaded, s.Unit)
		}
		if s.Checkout != "" && !checked[s.Checkout] {
			checked[s.Checkout] = true
			d.checkout(ctx, s.Checkout, who)
		}
	}
	if len(loaded) > 0 { // the daemon restarts itself as well
		loaded = append(loaded, self.Name)
	}
	d.polkit(ctx, units, self, who, loaded)
}

// polkit asks whether the daemon may restart the units: that they exist says
// nothing about it.
func (d *doctor) polkit(ctx context.Context, units opsexec.Units, self daemonUnit, who *user.User, names []string) {
	bus, ok := units.(serviceReader)
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	switch {
	case len(names) == 0 || uid == 0 || err != nil: // root needs nobody's permission
		return
	case !ok:
		d.say("polkit", "fail", "apt-get install dbus polkitd", "%s cannot be asked for permission without D-Bus, and only root may do without: no restart works", self.User)
		return
	case os.Geteuid() != 0:
		d.say("polkit", "skip", "sudo sgfleet doctor", "whether %s may restart these units is for root to ask", self.User)
		return
	case self.MainPID == 0:
		d.say("polkit", "skip", "systemctl start "+self.Name, "whether %s may restart these units is known only while the daemon runs", self.User)
		return
	}
	var denied []string
	for _, unit := range names {
		may, err := bus.MayRestart(ctx, self.MainPID, uint32(uid), unit)
		if err != nil {
			d.say("polkit", "fail", "apt-get install polkitd", "%s may restart nothing: %v", self.User, err)
			return
		}
		if !may {
			denied = append(denied, unit)
		}
	}
	if len(denied) > 0 {
		d.say("polkit", "fail", polkitRule(self.User, denied), "%s may not restart %s: no rule of polkit's allows it", self.User, strings.Join(denied, ", "))
		return
	}
	d.say("polkit", "ok", "", "%s may restart %s", self.User, count(len(names), "unit"))
}

// polkitRule is what lets user do with units what the role's rule allows, and
// where to write it.
func polkitRule(user string, units []string) string {
	quoted := make([]string, len(units))
	for i, u := range units {
		quoted[i] = strconv.Quote(u)
	}
	return fmt.Sprintf(`in %s: polkit.addRule(function(a, s) { if (s.user == %q && a.id == %q && [%s].indexOf(a.lookup("unit")) >= 0 && `+
		`["start", "stop", "restart", "try-restart"].indexOf(a.lookup("verb")) >= 0) return polkit.Result.YES; });`,
		opsexec.PolkitRules, user, opsexec.ManageUnits, strings.Join(quoted, ", "))
}

// checkout looks at one as the user that the daemon runs as.
func (d *doctor) checkout(ctx context.Context, dir string, who *user.User) {
	if _, err := exec.LookPath("git"); err != nil {
		d.say(dir, "fail", "apt-get install git", "git is not installed")
		return
	}
	if me := strconv.Itoa(os.Geteuid()); me != "0" && me != who.Uid {
		d.say(dir, "skip", "sudo sgfleet doctor", "only root and %s, who the daemon runs as, can look into it", who.Username)
		return
	}
	tree := opsexec.OSTree{User: who.Uid}
	c, err := tree.Resolve(dir)
	if err != nil {
		d.say(dir, "fail", "", "%v", err)
		return
	}
	if m, err := tree.Marker(c); err == nil && m != nil {
		d.say(dir, "warn", "sgfleet pull --local (mends it)", "a pull by %s was interrupted", m.By)
		return
	}
	run, err := runAs(who)
	if err != nil {
		d.say(dir, "fail", "", "%v", err)
		return
	}
	head, err := opsexec.Head(ctx, run, tree, dir)
	if err != nil {
		d.say(dir, "fail", "", "%v", err)
		return
	}
	d.say(dir, "ok", "", "at %.10s", head)
}
