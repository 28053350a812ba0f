package sim

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// realNetwork connects the processes of a run in real time to a real server,
// over TCP. Faults are the switches of each connection; latency is what it is.
//
// The server's own order of things is not to be had, and each process hears of
// it by its own connection. What one process learns through Redis of another
// must all the same be in the log after what the other did: see [realConn.Read].
type realNetwork struct {
	w         *World
	receivers sync.WaitGroup // of the connections that have not ended

	mu       sync.Mutex
	clock    moment
	conns    map[*realConn]bool // that have not ended
	answered chan struct{}      // closed when one has no open command any more
}

// moment orders what was sent and what arrived, over all connections.
type moment uint64

func newRealNetwork(w *World) *realNetwork {
	return &realNetwork{w: w, conns: map[*realConn]bool{}, answered: make(chan struct{})}
}

func (n *realNetwork) dial(ctx context.Context, inc *incarnation) (net.Conn, error) {
	if err := inc.gate(ctx); err != nil {
		return nil, err
	}
	p := inc.proc
	if err := p.host.awaitRoute(ctx, inc); err != nil {
		return nil, err
	}
	u, err := url.Parse(n.w.opts.RedisURL)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.dials++
	name := p.name + "#" + strconv.Itoa(p.dials)
	p.mu.Unlock()
	c := &realConn{Conn: tcp, n: n, conn: &connInfo{proc: inc, name: name}, changed: make(chan struct{})}
	c.tap = newTap(c.conn)
	c.tap.sent, c.tap.see, c.tap.push = n.w.facts.sent, n.w.facts.see, n.w.facts.pushed
	if !inc.adopt(c) {
		tcp.Close()
		return nil, errFenced
	}
	p.host.applyHolds(c)
	n.mu.Lock()
	n.conns[c] = true
	n.mu.Unlock()
	n.receivers.Go(c.receive)
	return c, nil
}

// now is the present moment: what is sent from here on is after it.
func (n *realNetwork) now() moment {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clock
}

// sending notes that c is about to send the commands that its tap has seen.
func (n *realNetwork) sending(c *realConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.clock++; c.asked == 0 {
		c.asked = n.clock
	}
}

// heard notes that the log has what c received, unless that was not an answer
// to all that c has sent.
func (n *realNetwork) heard(c *realConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.asked != 0 && c.tap.idle() {
		n.settleLocked(c)
	}
}

// ended forgets a connection; what is unanswered will not be answered.
func (n *realNetwork) ended(c *realConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	n.settleLocked(c)
}

func (n *realNetwork) settleLocked(c *realConn) {
	c.asked = 0
	close(n.answered)
	n.answered = make(chan struct{})
}

// unanswered returns nil when every other connection has the answers to what it
// had sent at moment t, and else what is closed when this may have changed.
// Subscriptions do not count: all they ask for is to be kept.
func (n *realNetwork) unanswered(but *realConn, t moment) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c != but && c.asked != 0 && c.asked <= t && c.conn.subscribed() == "" {
			return n.answered
		}
	}
	return nil
}

// CheckServer reports why runs in real time cannot use the server at url.
func CheckServer(ctx context.Context, url string) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	opts.MaxRetries, opts.DialerRetries = -1, 1
	c := redis.NewClient(opts)
	defer c.Close()
	if err := c.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("no answer from %s: %w", opts.Addr, err)
	}
	return nil
}

// keysLeft lists the run's keys.
func (n *realNetwork) keysLeft() (out []keyLeft) {
	n.eachKey(func(ctx context.Context, c *redis.Client, key string) {
		k := keyLeft{key: key}
		k.kind, _ = c.Type(ctx, key).Result()
		k.ttl, _ = c.PTTL(ctx, key).Result()
		out = append(out, k)
	})
	return out
}

// removeKeys removes the run's keys when every process has ended. What they
// sent last may still be on its way: a heartbeat that is carried out after the
// removal would make its key again.
func (n *realNetwork) removeKeys() {
	n.mu.Lock()
	for c := range n.conns {
		c.hangUp() // of a host without power
	}
	n.mu.Unlock()
	n.receivers.Wait()
	n.eachKey(func(ctx context.Context, c *redis.Client, key string) { c.Del(ctx, key) })
}

func (n *realNetwork) eachKey(do func(ctx context.Context, c *redis.Client, key string)) {
	opts, err := redis.ParseURL(n.w.opts.RedisURL)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := redis.NewClient(opts)
	defer c.Close()
	var keys []string
	for it := c.Scan(ctx, 0, n.w.plan.Config.KeyPrefix+"*", 1000).Iterator(); it.Next(ctx); {
		keys = append(keys, it.Val())
	}
	for _, key := range keys {
		do(ctx, c, key)
	}
}
