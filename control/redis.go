package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sgfleet/sgfleet/fleet"
)

// Pinned by tests and by what was measured on go-redis 9.23; see [Connect].
const (
	dialTimeout  = 2800 * time.Millisecond // below ioTimeout: whoever waits for a command hears why no connection was made
	ioTimeout    = 3 * time.Second
	poolSize     = 10
	redisBuffers = 4 << 10 // an op and an ack are well below; the default is 32 KiB each way and connection
)

// go-redis writes what its pools meet with to the process's stderr. All of it
// comes back as errors too, and those are logged where they matter, once.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Client is the fleet's connection to Redis: a pool of connections with every
// option pinned that could make an op run twice or a daemon deaf. Made by
// [Connect]; close it with Close.
type Client struct {
	redis.UniversalClient

	opts   redis.UniversalOptions
	master *atomic.Value // string: address that the pool dialled last
}

// ConnectOptions are what [Connect] takes beside the configuration.
type ConnectOptions struct {
	// Dialer replaces TCP, for tests and the simulator. TLS, when the URL asks
	// for it, is still laid on top. The connection's RemoteAddr names the
	// server: a new one tells the daemon that the master has changed.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

	// Name identifies the connections in CLIENT LIST; "" means "sgfleet".
	Name string

	// ReadFile reads password_file and ca_file; nil makes either an error
	// unless password is given as well.
	ReadFile func(name string) ([]byte, error)
}

// Connect prepares a client for the Redis of cfg: one server (redis://,
// rediss://, unix://) or a Sentinel group. Nothing is dialled yet.
//
// What is pinned, and why: no retries, because a retried PUBLISH whose reply
// was lost delivered one op four times, and a retried RPUSH two acks (measured
// on go-redis 9.23); RESP2, because RESP3's push path has lost pub/sub messages
// (go-redis 9.20) and CLIENT SETINFO is not in Redis 7.0's ACL categories; no
// maintenance notifications, which resolve host names in the background; one
// dial attempt, since the callers have their own backoff.
func Connect(cfg *fleet.Config, o ConnectOptions) (*Client, error) {
	opts, err := universalOptions(cfg, o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	return newClient(*opts, &atomic.Value{}), nil
}

func newClient(opts redis.UniversalOptions, master *atomic.Value) *Client {
	use := opts
	c := &Client{UniversalClient: redis.NewUniversalClient(&use), opts: opts, master: master}
	c.AddHook(dialHook{master})
	return c
}

// fresh returns a client of its own with no connection yet: what a command that
// failed on a pooled connection is tried again on, since every pooled one may
// be as dead as the first. The caller closes it.
func (c *Client) fresh() *Client {
	opts := c.opts
	// Not 1: after as many failed dials as a pool is large, go-redis starts a
	// goroutine that goes on dialling, and it would outrun the caller's Close.
	opts.PoolSize = 2
	return newClient(opts, c.master)
}

// Now asks Redis for its time, the one clock of the protocol.
func (c *Client) Now(ctx context.Context) (fleet.Time, error) {
	t, err := c.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("redis TIME: %w", clusterAdvice(err))
	}
	return fleet.TimeOf(t), nil
}

// masterAddr is the address the pool connected to last, "" before the first
// connection. After a failover it changes with the pool's next command.
func (c *Client) masterAddr() string {
	s, _ := c.master.Load().(string)
	return s
}

func universalOptions(cfg *fleet.Config, o ConnectOptions) (*redis.UniversalOptions, error) {
	rc := cfg.Redis
	parsed, err := parseRedisURL(rc.URL)
	if err != nil {
		return nil, err
	}
	name := o.Name
	if name == "" {
		name = "sgfleet"
	}
	opts := &redis.UniversalOptions{
		Addrs: []string{parsed.Addr}, DB: parsed.DB,
		Username: parsed.Username, Password: parsed.Password,
		TLSConfig: parsed.TLSConfig, ClientName: name,

		Protocol: 2, MaxRetries: -1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DialTimeout:              dialTimeout, DialerRetries: 1,
		ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, ContextTimeoutEnabled: true,
		PoolSize: poolSize, PipelinePoolSize: -1,
		ReadBufferSize: redisBuffers, WriteBufferSize: redisBuffers,
		ConnMaxIdleTime: -1, // a heartbeat uses them; closing idle ones only costs dials
	}
	if rc.Username != "" {
		opts.Username = rc.Username
	}
	if opts.Password, err = password(rc, opts.Password, o.ReadFile); err != nil {
		return nil, err
	}
	if len(rc.Sentinels) > 0 {
		if rc.MasterName == "" {
			return nil, errors.New("sentinels are given but master_name is not: set redis.master_name to the group's name")
		}
		opts.Addrs, opts.MasterName = rc.Sentinels, rc.MasterName
	} else if rc.MasterName != "" {
		return nil, fmt.Errorf("master_name %q is given but no sentinels: list them as host:port in redis.sentinels", rc.MasterName)
	}
	if err := setCA(opts, rc.CAFile, o.ReadFile); err != nil {
		return nil, err
	}
	opts.OnConnect = sampleTime
	opts.Dialer = o.Dialer
	if o.Dialer != nil && opts.TLSConfig != nil {
		opts.Dialer = tlsDialer(o.Dialer, opts.TLSConfig)
	}
	return opts, nil
}

// parseRedisURL refuses what is, or leads to, a Redis Cluster.
func parseRedisURL(s string) (*redis.Options, error) {
	const advice = "Redis Cluster is not supported: pub/sub gains nothing from it and its receiver counts mislead; use one server or a Sentinel group (redis.sentinels), which carries far larger fleets than one team runs"
	u, err := url.Parse(s)
	if err != nil {
		// The error of url.Parse repeats the URL, and with it the password.
		return nil, errors.New("url cannot be parsed: want redis://, rediss:// or unix://")
	}
	if strings.Contains(u.Scheme, "cluster") || u.Query().Has("addr") || strings.Contains(u.Host, ",") {
		return nil, errors.New("url: " + advice)
	}
	opts, err := redis.ParseURL(s)
	if err != nil {
		return nil, fmt.Errorf("url %s: %w", u.Redacted(), err)
	}
	return opts, nil
}

func password(rc fleet.RedisConfig, fromURL string, readFile func(string) ([]byte, error)) (string, error) {
	switch {
	case rc.Password != "":
		return rc.Password, nil
	case rc.PasswordFile == "":
		return fromURL, nil
	case readFile == nil:
		return "", fmt.Errorf("password_file %s: nothing was given to read it with", rc.PasswordFile)
	}
	b, err := readFile(rc.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func setCA(opts *redis.UniversalOptions, file string, readFile func(string) ([]byte, error)) error {
	switch {
	case file == "":
		return nil
	case opts.TLSConfig == nil:
		return fmt.Errorf("ca_file %s is given but the url has no TLS: write rediss://", file)
	case readFile == nil:
		return fmt.Errorf("ca_file %s: nothing was given to read it with", file)
	}
	b, err := readFile(file)
	if err != nil {
		return fmt.Errorf("ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return fmt.Errorf("ca_file %s holds no PEM certificate", file)
	}
	opts.TLSConfig.RootCAs = roots
	return nil
}

func tlsDialer(dial func(context.Context, string, string) (net.Conn, error), cfg *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, cfg)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

// clusterAdvice explains the errors that only a server in cluster mode gives.
func clusterAdvice(err error) error {
	if err == nil {
		return nil
	}
	for _, p := range []string{"MOVED ", "ASK ", "CLUSTERDOWN", "CROSSSLOT"} {
		if strings.HasPrefix(err.Error(), p) {
			return fmt.Errorf("the server runs in cluster mode, which is not supported; use one server or a Sentinel group: %w", err)
		}
	}
	return err
}
