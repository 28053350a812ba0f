package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd"
)

// serviceReader is what systemd over D-Bus knows beyond [opsexec.Units].
type serviceReader interface {
	Service(ctx context.Context, unit string) (systemd.Service, error)
	MayRestart(ctx context.Context, pid int, uid uint32, unit string) (bool, error)
}

// daemonUnit is this host's daemon as systemd knows it.
type daemonUnit struct {
	opsexec.Unit
	systemd.Service
}

// redisCredential is the name that the config takes a password by.
const redisCredential = "redis-password"

// readDaemonUnit reads the daemon's unit. What only D-Bus tells is left empty
// where there is no bus.
func readDaemonUnit(ctx context.Context, units opsexec.Units, cfg *fleet.Config) (daemonUnit, error) {
	var d daemonUnit
	var err error
	unit := fleet.ServiceUnit(cfg.SelfUnit)
	if d.Unit, err = units.Show(ctx, unit); err != nil {
		return d, err
	}
	if bus, ok := units.(serviceReader); ok && d.LoadState == "loaded" {
		d.Service, err = bus.Service(ctx, unit)
	}
	return d, err
}

// hidden returns the credential that holds the Redis password of this host's
// daemon when cfg, read outside the daemon, has none.
func (d daemonUnit) hidden(cfg *fleet.Config) (systemd.Credential, bool) {
	if u, err := url.Parse(cfg.Redis.URL); err == nil {
		if _, has := u.User.Password(); has {
			return systemd.Credential{}, false
		}
	}
	i := slices.IndexFunc(d.Credentials, func(c systemd.Credential) bool { return c.Name == redisCredential })
	if i < 0 || cfg.Redis.Password != "" || cfg.Redis.PasswordFile != "" {
		return systemd.Credential{}, false
	}
	return d.Credentials[i], true
}

// secret says which credential is not to be seen.
func (d daemonUnit) secret(c systemd.Credential) string {
	return fmt.Sprintf("the password is the credential %s (%s) of %s, which nothing outside that unit sees", c.Name, c.Path, d.Name)
}

// withCredential is the command that runs another with the daemon's credential.
func withCredential(c systemd.Credential, command ...string) string {
	return shellJoin(append([]string{"sudo", "systemd-run", "-qP", "--wait", "-p", c.Property + "=" + c.Name + ":" + c.Path}, command...))
}

// user is whom the daemon runs as, for whom this process has to act.
func (d daemonUnit) user() (*user.User, error) {
	name := d.User
	if name == "" {
		name = "root"
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("%s runs as %s, whom this host does not know: %w", d.Name, name, err)
		}
	}
	return u, nil
}

// runAs is the Exec that runs commands as u, which root alone can.
func runAs(u *user.User) (opsexec.Exec, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, gidErr); err != nil {
		return nil, err
	}
	if int(uid) == os.Geteuid() {
		return opsexec.OSExec, nil
	}
	return func(ctx context.Context, cmd opsexec.Cmd) (opsexec.Result, error) {
		cmd.As = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return opsexec.OSExec(ctx, cmd)
	}, nil
}
