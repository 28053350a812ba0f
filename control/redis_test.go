package control

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/fleet"
)

func TestConnectRefuses(t *testing.T) {
	read := func(name string) ([]byte, error) {
		if name == "pw" {
			return []byte("s3cret\n"), nil
		}
		return nil, errors.New("no such file")
	}
	for _, tc := range []struct {
		name string
		cfg  fleet.RedisConfig
		read func(string) ([]byte, error)
		want string
	}{
		{"clusterScheme", fleet.RedisConfig{URL: "redis+cluster://h:1"}, nil, "Redis Cluster is not supported"},
		{"clusterAddr", fleet.RedisConfig{URL: "redis://h:1?addr=h:2"}, nil, "Redis Cluster is not supported"},
		{"clusterComma", fleet.RedisConfig{URL: "redis://h:1,h:2"}, nil, "Redis Cluster is not supported"},
		{"scheme", fleet.RedisConfig{URL: "http://h:1"}, nil, "invalid URL scheme"},
		{"noSecretInError", fleet.RedisConfig{URL: "redis://u:hunter2@h:x1"}, nil, "want redis://"},
		{"sentinelNoMaster", fleet.RedisConfig{URL: "redis://h:1", Sentinels: []string{"s:1"}}, nil, "master_name is not"},
		{"masterNoSentinel", fleet.RedisConfig{URL: "redis://h:1", MasterName: "m"}, nil, "no sentinels"},
		{"passwordFile", fleet.RedisConfig{URL: "redis://h:1", PasswordFile: "gone"}, read, "no such file"},
		{"passwordFileUnread", fleet.RedisConfig{URL: "redis://h:1", PasswordFile: "pw"}, nil, "nothing was given"},
		{"caWithoutTLS", fleet.RedisConfig{URL: "redis://h:1", CAFile: "ca"}, read, "write rediss://"},
		{"caNotPEM", fleet.RedisConfig{URL: "rediss://h:1", CAFile: "pw"}, read, "no PEM certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := fleet.Default()
			cfg.Redis = tc.cfg
			c, err := Connect(cfg, ConnectOptions{ReadFile: tc.read})
			if err == nil {
				c.Close()
				t.Fatalf("got no error, want one with %q", tc.want)
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got error %q, want one with %q", err, tc.want)
			}
		})
	}
}

func TestConnectOptions(t *testing.T) {
	cfg := fleet.Default()
	cfg.Redis = fleet.RedisConfig{URL: "redis://h:1/3", Username: "agent", PasswordFile: "pw"}
	o, err := universalOptions(cfg, ConnectOptions{ReadFile: func(string) ([]byte, error) { return []byte("s3cret\n"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	if o.Username != "agent" || o.Password != "s3cret" || o.DB != 3 || o.MaxRetries != -1 || o.Protocol != 2 || !o.DisableIdentity {
		t.Errorf("got %+v", o)
	}
	cfg.Redis = fleet.RedisConfig{URL: "unix:///run/redis.sock"}
	if o, err = universalOptions(cfg, ConnectOptions{}); err != nil || o.Addrs[0] != "/run/redis.sock" {
		t.Errorf("unix: got %+v, %v", o, err)
	}
}

// TestMasterAddr is what failover detection stands on: the address of the
// pool's newest connection, not of the subscription's own.
func TestMasterAddr(t *testing.T) {
	a, b := miniredis.RunT(t), miniredis.RunT(t)
	to := a.Addr()
	cfg := fleet.Default()
	c, err := Connect(cfg, ConnectOptions{Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if now, err := c.Now(t.Context()); err != nil || now == 0 {
		t.Fatalf("Now: got %d, %v", now, err)
	}
	if got := c.masterAddr(); got != a.Addr() {
		t.Fatalf("got master %s, want %s", got, a.Addr())
	}
	sub := &subConn{}
	ps := c.Subscribe(t.Context())
	defer ps.Close()
	if err := ps.Subscribe(context.WithValue(t.Context(), subKey{}, sub), "x"); err != nil {
		t.Fatal(err)
	}
	to = b.Addr()
	f := c.fresh()
	defer f.Close()
	if _, err := f.Now(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, own := c.masterAddr(), sub.addr(); got != b.Addr() || own != a.Addr() {
		t.Fatalf("got master %s and subscription at %s, want %s and %s", got, own, b.Addr(), a.Addr())
	}
	sub.close()
	if _, err := ps.Receive(context.WithValue(t.Context(), subKey{}, sub)); err == nil {
		t.Fatal("Receive on a closed subscription: got no error")
	}
	if sub.first() {
		t.Fatal("a spent subscription may dial again")
	}
}
