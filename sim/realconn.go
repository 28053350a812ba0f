package sim

import (
	"cmp"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// realConn is a TCP connection with the switches of a fault. A goroutine of its
// own receives what the server sends, whether or not the process reads it: that
// is when the log hears of an answer, even of one to a process that has died
// meanwhile.
type realConn struct {
	net.Conn
	n    *realNetwork
	conn *connInfo
	tap  *tap

	asked moment // when the oldest command without an answer was sent, 0 without; guarded by n.mu

	hanging sync.Once

	mu       sync.Mutex
	up, down int           // holds
	held     []byte        // written while up was held
	got      []byte        // received, and not read yet
	arrived  moment        // when the newest byte of got was
	ended    error         // why nothing more is received
	dead     bool          // the process is
	deadline time.Time     // of reads
	changed  chan struct{} // closed at each change of the above
}

var _ wire = (*realConn)(nil)

// subscriberBacklog is how many bytes of a subscription are received ahead of
// the process that reads them. Then the server has to keep them, as it does
// for a slow consumer.
const subscriberBacklog = 1 << 20

// hangUpWait bounds the wait for a server that does not answer.
const hangUpWait = 5 * time.Second

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

// receive takes what the server sends, until the connection has ended.
func (c *realConn) receive() {
	defer c.n.ended(c)
	defer c.Conn.Close()
	buf := make([]byte, 32<<10)
	for {
		c.awaitReader()
		n, err := c.Conn.Read(buf)
		arrived := c.n.now()
		c.tap.replies.feed(buf[:n])
		if c.conn.subscribed() != "" {
			c.tap.pushes.feed(buf[:n])
		}
		c.n.heard(c)
		c.change(func() {
			if n > 0 && !c.dead && c.ended == nil {
				c.got, c.arrived = append(c.got, buf[:n]...), arrived
			}
			c.ended = cmp.Or(c.ended, err)
		})
		if err != nil {
			why := "reset"
			if c.isDead() {
				why = "closed"
			}
			c.n.w.facts.lost(c.conn, why)
			return
		}
	}
}

// awaitReader returns when the next bytes may be received: at once, except on a
// subscription whose reader is held or slow.
func (c *realConn) awaitReader() {
	for {
		c.mu.Lock()
		wait, changed := !c.dead && c.ended == nil && (c.down > 0 || len(c.got) > subscriberBacklog), c.changed
		c.mu.Unlock()
		if !wait || c.conn.subscribed() == "" {
			return
		}
		<-changed
	}
}

func (c *realConn) cut() {
	c.change(func() { c.ended, c.got = syscall.ECONNRESET, nil })
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
			if c.up--; c.up == 0 && len(c.held) > 0 && !c.dead {
				_, _ = c.send(c.held)
				c.held = nil
			}
		}
		if down && c.down > 0 {
			c.down--
		}
	})
}

func (c *realConn) end(packet bool) {
	c.change(func() { c.dead, c.got = true, nil })
	if packet {
		c.hangUp()
	}
}

// hangUp closes the connection's sending side. The server closes its own when
// it has carried out all that was sent; until then receive goes on.
func (c *realConn) hangUp() {
	c.hanging.Do(func() {
		_ = c.Conn.SetReadDeadline(time.Now().Add(hangUpWait))
		tcp, ok := c.Conn.(*net.TCPConn)
		if !ok || tcp.CloseWrite() != nil { // it was reset
			_ = c.Conn.Close()
		}
	})
}

// Close implements [net.Conn].
func (c *realConn) Close() error {
	c.n.w.facts.lost(c.conn, "closed")
	c.conn.proc.forget(c)
	c.end(true)
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
	return c.send(b)
}

// send writes b, which is known to be on its way before it can be answered.
func (c *realConn) send(b []byte) (int, error) {
	c.tap.cmds.feed(b)
	c.n.sending(c)
	return c.Conn.Write(b)
}

// Read implements [net.Conn]. What the server carried out for others before it
// sent b is in the log before b is read.
func (c *realConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		var answered <-chan struct{}
		switch {
		case c.dead:
			c.mu.Unlock()
			return 0, net.ErrClosed
		case !deadline.IsZero() && !time.Now().Before(deadline):
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case c.down > 0 && !errors.Is(c.ended, syscall.ECONNRESET):
		case len(c.got) > 0:
			if answered = c.n.unanswered(c, c.arrived); answered == nil {
				n := copy(b, c.got)
				c.mu.Unlock()
				c.change(func() { c.got = c.got[n:] })
				return n, nil
			}
		case c.ended != nil:
			err := c.ended
			c.mu.Unlock()
			return 0, err
		}
		c.mu.Unlock()
		awaitChange(deadline, changed, answered)
	}
}

// awaitChange waits for the first of the two, until the deadline unless it is
// zero.
func awaitChange(deadline time.Time, a, b <-chan struct{}) {
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-a:
	case <-b:
	case <-late:
	}
}

// SetReadDeadline implements [net.Conn].
func (c *realConn) SetReadDeadline(t time.Time) error {
	c.change(func() { c.deadline = t })
	return nil
}

// SetDeadline implements [net.Conn].
func (c *realConn) SetDeadline(t time.Time) error {
	if err := c.Conn.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}
