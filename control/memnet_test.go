package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// memnet is a network in memory, fit for a synctest bubble, between any number
// of clients and one miniredis. It can refuse, and it can become a black hole.
type memnet struct {
	m *miniredis.Miniredis

	mu     sync.Mutex
	refuse bool
	hole   bool
	dials  []time.Time
	open   map[*memConn]bool
}

func newMemnet() *memnet {
	n := &memnet{m: miniredis.NewMiniRedis(), open: map[*memConn]bool{}}
	c, err := n.m.Dial() // starts a server without a listener
	if err != nil {
		panic(err)
	}
	c.Close()
	return n
}

func (n *memnet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	refuse, hole := n.refuse, n.hole
	n.mu.Unlock()
	if refuse {
		return nil, errors.New("connection refused")
	}
	if hole { // SYNs are lost, too
		<-ctx.Done()
		return nil, ctx.Err()
	}
	up, down := newMemHalf(), newMemHalf()
	client, server := &memConn{n, down, up}, &memConn{n, up, down}
	n.mu.Lock()
	n.open[client] = true
	n.mu.Unlock()
	n.m.Server().ServeConn(server)
	return client, nil
}

// set makes the network refuse or swallow; cut closes every connection.
func (n *memnet) set(refuse, hole bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse, n.hole = refuse, hole
}

func (n *memnet) cut() {
	n.mu.Lock()
	var all []*memConn
	for c := range n.open {
		all = append(all, c)
	}
	n.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

func (n *memnet) swallows() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hole
}

type memHalf struct {
	mu       sync.Mutex
	buf      []byte
	closed   bool
	deadline time.Time
	changed  chan struct{}
}

func newMemHalf() *memHalf { return &memHalf{changed: make(chan struct{}, 1)} }

func (h *memHalf) poke() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *memHalf) read(b []byte) (int, error) {
	for {
		h.mu.Lock()
		n := copy(b, h.buf)
		h.buf = h.buf[n:]
		closed, deadline := h.closed, h.deadline
		h.mu.Unlock()
		switch {
		case n > 0:
			return n, nil
		case closed:
			return 0, io.EOF
		case deadline.IsZero():
			<-h.changed
		case !time.Now().Before(deadline):
			return 0, os.ErrDeadlineExceeded
		default:
			t := time.NewTimer(time.Until(deadline))
			select {
			case <-h.changed:
			case <-t.C:
			}
			t.Stop()
		}
	}
}

func (h *memHalf) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.poke()
}

type memConn struct {
	n        *memnet
	in, outH *memHalf
}

func (c *memConn) Read(b []byte) (int, error) { return c.in.read(b) }

func (c *memConn) Write(b []byte) (int, error) {
	c.outH.mu.Lock()
	defer c.outH.mu.Unlock()
	if c.outH.closed {
		return 0, net.ErrClosed
	}
	if !c.n.swallows() {
		c.outH.buf = append(c.outH.buf, b...)
	}
	c.outH.poke()
	return len(b), nil
}

func (c *memConn) Close() error {
	c.in.close()
	c.outH.close()
	c.n.mu.Lock()
	delete(c.n.open, c)
	c.n.mu.Unlock()
	return nil
}

type memAddr struct{}

func (memAddr) Network() string { return "mem" }
func (memAddr) String() string  { return "redis" }

func (c *memConn) LocalAddr() net.Addr  { return memAddr{} }
func (c *memConn) RemoteAddr() net.Addr { return memAddr{} }

func (c *memConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	c.in.deadline = t
	c.in.mu.Unlock()
	c.in.poke()
	return nil
}

func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
