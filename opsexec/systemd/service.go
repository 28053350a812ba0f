package systemd

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"

	"github.com/sgfleet/sgfleet/opsexec"
)

// Service is how a service is set up, beside the state that [Bus.Show] tells.
type Service struct {
	User        string // User=; "" means root
	FileState   string // enabled, disabled, static, masked, …
	Credentials []Credential
}

// Credential is one that systemd hands to a service from a file.
type Credential struct {
	Property string // LoadCredential or LoadCredentialEncrypted
	Name     string
	Path     string
}

// Service reads how a service is set up.
func (b *Bus) Service(ctx context.Context, unit string) (Service, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := b.connected(ctx)
	if err != nil {
		return Service{}, fmt.Errorf("%w: %w", opsexec.ErrBusLost, err)
	}
	p, err := c.GetAllPropertiesContext(ctx, serviceName(unit))
	if err != nil {
		return Service{}, jobError(err)
	}
	s := Service{User: get[string](p, "User"), FileState: get[string](p, "UnitFileState")}
	for _, property := range []string{"LoadCredential", "LoadCredentialEncrypted"} {
		for _, pair := range get[[][]any](p, property) {
			if len(pair) == 2 {
				name, _ := pair[0].(string)
				path, _ := pair[1].(string)
				s.Credentials = append(s.Credentials, Credential{property, name, path})
			}
		}
	}
	return s, nil
}

// MayRestart asks polkit what systemd asks it when the process pid of user uid
// wants a unit restarted. Only root may ask so.
func (b *Bus) MayRestart(ctx context.Context, pid int, uid uint32, unit string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	opts := []dbus.ConnOption{dbus.WithContext(ctx), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid())))}
	connect := func() (*dbus.Conn, error) { return dbus.ConnectSystemBus(opts...) }
	if b.address != "" {
		connect = func() (*dbus.Conn, error) { return dbus.Connect(b.address, opts...) }
	}
	c, err := connect()
	if err != nil {
		return false, fmt.Errorf("asking polkit: %w", err)
	}
	defer c.Close()
	type subject struct {
		Kind    string
		Details map[string]dbus.Variant
	}
	var answer struct {
		Yes, Challenge bool
		Details        map[string]string
	}
	err = c.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority").CallWithContext(ctx,
		"org.freedesktop.PolicyKit1.Authority.CheckAuthorization", 0,
		subject{"unix-process", map[string]dbus.Variant{
			"pid": dbus.MakeVariant(uint32(pid)), "uid": dbus.MakeVariant(int32(uid)),
			"start-time": dbus.MakeVariant(uint64(0)), // polkit looks it up
		}},
		opsexec.ManageUnits, map[string]string{"unit": serviceName(unit), "verb": "restart"}, uint32(0), "").Store(&answer)
	if err != nil {
		return false, fmt.Errorf("asking polkit: %w", err)
	}
	return answer.Yes, nil
}
