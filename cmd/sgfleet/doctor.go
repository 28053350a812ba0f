package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).doctorCmd) }

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check config, Redis, systemd, git and checkouts; each failure with what mends it",
		Long: `doctor changes nothing. On a machine that runs no sgfleet daemon (an operator's:
sgfleet.service is not installed, or not enabled) the checks of units and
checkouts are skipped, not failed. As root it sees most: the daemon's Redis
password, polkit's rules and the checkouts of the user that the daemon runs as.
It exits 1 when a check failed.`,
		Example: "  sgfleet doctor\n  sgfleet doctor -o json",
		Args:    exactArgs(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

// finding is one check of doctor; its keys are stable.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn, fail, skip
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"` // command or edit that mends it
}

type doctor struct {
	*app
	findings []finding
}

func (d *doctor) say(check, status, mend, format string, args ...any) {
	d.findings = append(d.findings, finding{check, status, clean(fmt.Sprintf(format, args...)), mend})
}

func (a *app) doctor(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	d := &doctor{app: a}
	cfg, sources, err := a.loadSources()
	if err != nil {
		d.say("config", "fail", "sgfleet config check", "%v", err)
	} else {
		d.say("config", "ok", "", "%s: %s on %s", configFiles(cfg, sources), count(len(cfg.LocalServices(cfg.Host)), "service"), cfg.Host)
		units, done := d.openUnits(ctx)
		defer done()
		var self daemonUnit
		self, err = readDaemonUnit(ctx, units, cfg)
		d.redis(ctx, cfg, sources, self)
		d.host(ctx, cfg, units, self, err)
	}
	return d.report()
}

// maxClockOff is how far a host's clock may be from Redis's before signed ops,
// which the host's clock judges as well (±30 s), come into danger.
const maxClockOff = 10 * time.Second

func (d *doctor) redis(ctx context.Context, cfg *fleet.Config, sources fleet.Sources, self daemonUnit) {
	with := ""
	if cred, ok := self.hidden(cfg); ok {
		file, err := os.Open(cred.Path)
		if errors.Is(err, fs.ErrNotExist) && os.Geteuid() == 0 && cred.Property == "LoadCredential" && filepath.IsAbs(cred.Path) {
			d.say("redis", "fail", "install -m 0600 /dev/stdin "+shellJoin([]string{cred.Path}), "there is no %s, which %s has as the credential %s: it cannot start", cred.Path, self.Name, cred.Name)
			return
		}
		if err != nil || cred.Property != "LoadCredential" {
			d.say("redis", "skip", withCredential(cred, d.again()...), "not asked: %s", self.secret(cred))
			return
		}
		file.Close()
		own := *cfg
		own.Redis.PasswordFile = cred.Path
		cfg, with = &own, fmt.Sprintf(" (with the credential %s of %s, read from %s)", cred.Name, self.Name, cred.Path)
	}
	c, err := d.connect(cfg)
	if err != nil {
		d.say("redis", "fail", "sgfleet config view --sources redis", "%v", err)
		return
	}
	defer c.Close()
	begin := time.Now()
	now, err := c.Now(ctx)
	if err != nil {
		d.say("redis", "fail", "sgfleet config view --sources redis", "%s: %v%s", redactURL(cfg.Redis.URL), err, with)
		return
	}
	d.say("redis", "ok", "", "%s answers in %s%s", redactURL(cfg.Redis.URL), fleet.Humane(time.Since(begin)), with)
	if off := time.Since(now.Time()).Abs(); off > maxClockOff {
		d.say("clock", "warn", "timedatectl set-ntp true", "this host's clock is %s off Redis's; ops are not affected, signatures and logs are", fleet.Humane(off))
	} else {
		d.say("clock", "ok", "", "within %s of Redis's", fleet.Humane(off))
	}
	d.access(ctx, cfg, c)
	reg, err := fleet.ReadRegistry(ctx, c, cfg.Keys())
	if err != nil {
		d.say("registry", "fail", "redis-cli ACL GETUSER "+cfg.Redis.Username, "%v", err)
		return
	}
	d.registry(cfg, reg.Entries())
	here := func(h fleet.Heartbeat) bool { return h.Host == cfg.Host }
	if sources.DefaultServices() && slices.ContainsFunc(reg.Beats, here) { // not on an operator's machine
		d.say("services", "warn", initCommand, "%s", defaultServices(cfg))
	}
}

// registry tells who in the fleet is in trouble. The daemons are in the
// registry as well, but are no instances of a service.
func (d *doctor) registry(cfg *fleet.Config, entries []fleet.Entry) {
	if len(entries) == 0 {
		d.say("registry", "warn", "on a host that runs services: systemctl enable --now sgfleet", "no daemon has sent a heartbeat (key_prefix %q)", cfg.KeyPrefix)
		return
	}
	var troubled []string
	for _, e := range entries {
		if e.Trouble() {
			troubled = append(troubled, e.Instance+": "+strings.Join(e.Notes, ", "))
		}
	}
	summary := fleet.RosterSummary(entries)
	if len(troubled) == 0 {
		d.say("registry", "ok", "", "%s", summary)
		return
	}
	d.say("registry", "warn", "sgfleet services", "%s; %d to look at: %s", summary, len(troubled), strings.Join(troubled, "; "))
}

// access asks Redis, without doing it, whether this user may subscribe and
// answer (ACL DRYRUN, Redis 7.0). One that may not be asked is not blamed.
func (d *doctor) access(ctx context.Context, cfg *fleet.Config, c *control.Client) {
	user, err := c.Do(ctx, "ACL", "WHOAMI").Text()
	if err != nil {
		d.say("acl", "skip", "", "may not ask for the ACL user: %v", err)
		return
	}
	k := cfg.Keys()
	var denied []string
	for _, cmd := range [][]any{
		{"SUBSCRIBE", k.Channel()},
		{"PUBLISH", k.Channel(), "x"},
		{"RPUSH", k.Reply("x"), "x"},
		{"LRANGE", k.Reply("x"), "0", "-1"},
		{"HSET", k.Live(), "x", "x"},
		{"SET", k.Release("x"), "go"},
	} {
		answer, err := c.Do(ctx, append([]any{"ACL", "DRYRUN", user}, cmd...)...).Text()
		if err != nil {
			d.say("acl", "skip", "", "user %s may not be tried out: %v", user, err)
			return
		}
		if answer != "OK" {
			denied = append(denied, fmt.Sprintf("%v %v", cmd[0], cmd[1]))
		}
	}
	if len(denied) > 0 {
		d.say("acl", "warn", "redis-cli ACL GETUSER "+user, "user %s may not %s: an operator needs all but HSET, a daemon all but PUBLISH and SET", user, strings.Join(denied, ", "))
		return
	}
	d.say("acl", "ok", "", "user %s may subscribe, publish and answer", user)
}

func (d *doctor) report() error {
	failed := 0
	for _, f := range d.findings {
		if f.Status == "fail" {
			failed++
		}
	}
	if d.flags.output == "json" || d.flags.output == "jsonl" {
		if err := d.printJSON(map[string]any{"schema": 1, "findings": d.findings, "failed": failed}); err != nil {
			return err
		}
	} else {
		sgr := map[string]string{"ok": green, "warn": yellow, "fail": red, "skip": dim}
		for _, f := range d.findings {
			fmt.Fprintf(d.stdout, "%s  %s: %s\n", d.paint(d.stdout, sgr[f.Status], fmt.Sprintf("%-4s", f.Status)), f.Check, f.Detail)
			if f.Mend != "" {
				fmt.Fprintf(d.stdout, "      → %s\n", f.Mend)
			}
		}
	}
	if failed > 0 {
		return &cli.Error{Code: exitError}
	}
	return nil
}
