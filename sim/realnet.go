package sim

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// realNetwork connects the processes of a run in real time to a real server,
// over TCP. Faults are the switches of each connection; latency is what it is.
type realNetwork struct {
	w       *World
	closing sync.WaitGroup // connections that the server has not closed yet
}

func newRealNetwork(w *World) *realNetwork { return &realNetwork{w: w} }

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
	c := &realConn{Conn: tcp, conn: &connInfo{proc: inc, name: name}, changed: make(chan struct{})}
	c.tap = newTap(c.conn)
	c.tap.sent, c.tap.see, c.tap.push = n.w.facts.sent, n.w.facts.see, n.w.facts.pushed
	if !inc.adopt(c) {
		tcp.Close()
		return nil, errFenced
	}
	p.host.applyHolds(c)
	return c, nil
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
	n.closing.Wait()
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

// realConn is a TCP connection with the switches of a fault.
type realConn struct {
	net.Conn
	conn *connInfo
	tap  *tap

	closed sync.Once

	mu       sync.Mutex
	up, down int           // holds
	held     []byte        // written while up was held
	ahead    []byte        // read while down was held
	dead     bool          // the process is
	deadline time.Time     // of reads
	changed  chan struct{} // closed at each change of the above
}

var _ wire = (*realConn)(nil)

func (c *realConn) info() *connInfo { return c.conn }

func (c *realConn) change(f func()) {
	c.mu.Lock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

func (c *realConn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func (c *realConn) cut() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset, not a FIN
	}
	_ = c.Conn.Close()
}

func (c *realConn) hold(up, down bool) {
	c.change(func() {
		if up {
			c.up++
		}
		if down {
			c.down++
		}
	})
}

func (c *realConn) release(up, down bool, _ time.Duration) {
	c.change(func() {
		if up && c.up > 0 {
			if c.up--; c.up == 0 && len(c.held) > 0 {
				c.tap.cmds.feed(c.held)
				_, _ = c.Conn.Write(c.held)
				c.held = nil
			}
		}
		if down && c.down > 0 {
			c.down--
		}
	})
}

func (c *realConn) end(packet bool) {
	c.change(func() { c.dead = true })
	if packet {
		c.closed.Do(c.hangUp)
	}
}

// hangUp closes the connection. The server closes its end when it has carried
// out all that was sent: until then the network counts it as closing.
func (c *realConn) hangUp() {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil { // it was reset
		_ = c.Conn.Close()
		return
	}
	c.conn.proc.proc.w.real.closing.Go(func() {
		defer tcp.Close()
		_ = tcp.SetReadDeadline(time.Now().Add(hangUpWait))
		_, _ = io.Copy(io.Discard, tcp)
	})
}

// hangUpWait bounds the wait for a server that does not answer.
const hangUpWait = 5 * time.Second

// Close implements [net.Conn].
func (c *realConn) Close() error {
	c.change(func() { c.dead = true })
	c.conn.proc.proc.w.facts.lost(c.conn, "closed")
	c.conn.proc.forget(c)
	c.closed.Do(c.hangUp)
	return nil
}

// Write implements [net.Conn].
func (c *realConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	switch {
	case c.dead:
		c.mu.Unlock()
		return 0, net.ErrClosed
	case c.up > 0:
		c.held = append(c.held, b...)
		c.mu.Unlock()
		return len(b), nil
	}
	c.mu.Unlock()
	c.tap.cmds.feed(b) // before the reply can arrive
	return c.Conn.Write(b)
}

// Read implements [net.Conn].
func (c *realConn) Read(b []byte) (int, error) {
	n, err := 0, error(nil)
	c.mu.Lock()
	if len(c.ahead) > 0 {
		n = copy(b, c.ahead)
		c.ahead = c.ahead[n:]
	}
	c.mu.Unlock()
	if n == 0 {
		if n, err = c.Conn.Read(b); err != nil {
			c.conn.proc.proc.w.facts.lost(c.conn, "reset")
			return n, err
		}
		if c.isDead() {
			return 0, net.ErrClosed // it is still read while it is hung up
		}
		c.tap.replies.feed(b[:n])
		if c.conn.subscribed() != "" {
			c.tap.pushes.feed(b[:n])
		}
	}
	for {
		c.mu.Lock()
		held, dead, deadline, changed := c.down > 0, c.dead, c.deadline, c.changed
		if held && !deadline.IsZero() && !time.Now().Before(deadline) {
			c.ahead = append(append([]byte(nil), b[:n]...), c.ahead...)
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		c.mu.Unlock()
		switch {
		case dead:
			return 0, net.ErrClosed
		case !held:
			return n, nil
		}
		wait := time.Hour
		if !deadline.IsZero() {
			wait = time.Until(deadline)
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// SetReadDeadline implements [net.Conn].
func (c *realConn) SetReadDeadline(t time.Time) error {
	return c.limit(t, c.Conn.SetReadDeadline)
}

// SetDeadline implements [net.Conn].
func (c *realConn) SetDeadline(t time.Time) error {
	return c.limit(t, c.Conn.SetDeadline)
}

func (c *realConn) limit(t time.Time, set func(time.Time) error) error {
	if c.isDead() {
		return net.ErrClosed // its reads are those of hangUp now
	}
	c.change(func() { c.deadline = t })
	return set(t)
}
