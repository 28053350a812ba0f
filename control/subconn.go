package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// dialHook watches the dials of one client. Sentinel connections do not pass
// through it, only those to the data server.
type dialHook struct{ master *atomic.Value }

func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		sub, _ := ctx.Value(subKey{}).(*subConn)
		if sub != nil && !sub.first() {
			return nil, errSubscriptionSpent
		}
		conn, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if sub != nil {
			sub.set(conn)
		} else if a := conn.RemoteAddr(); a != nil {
			h.master.Store(a.String())
		}
		return conn, nil
	}
}

func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// subConn is the one network connection of a subscription. go-redis redials a
// broken pub/sub connection by itself, holding a lock, and subscribes again
// without waiting for the answer; a subConn lets it dial once, so that every
// reconnection is the session's, and gives the watchdog a way to close the
// connection that waits for no lock.
type subConn struct {
	mu     sync.Mutex
	dialed bool
	closed bool
	conn   net.Conn
	time   fleet.Time // Redis time before the SUBSCRIBE, by this very connection
}

type subKey struct{}

var errSubscriptionSpent = errors.New("subscription's connection is spent")

// sampleTime asks a subscription's new connection for Redis time before
// anything else is sent on it. Other connections pass, also those to a Sentinel
// that are made on the way to a subscription's.
func sampleTime(ctx context.Context, conn *redis.Conn) error {
	sub, _ := ctx.Value(subKey{}).(*subConn)
	if sub == nil || !sub.connected() {
		return nil
	}
	t, err := conn.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("redis TIME: %w", err)
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.time = fleet.TimeOf(t)
	return nil
}

func (s *subConn) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

func (s *subConn) sampled() fleet.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

// first reports whether no dial was made yet.
func (s *subConn) first() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.dialed
	s.dialed = true
	return first && !s.closed
}

func (s *subConn) set(conn net.Conn) {
	s.mu.Lock()
	closed := s.closed
	s.conn = conn
	s.mu.Unlock()
	if closed {
		conn.Close()
	}
}

// close ends the connection, and with it a Receive that is blocked on it
// (Receive ignores a cancelled context).
func (s *subConn) close() {
	s.mu.Lock()
	conn := s.conn
	s.closed = true
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// addr is the server's address, "" before the connection is made.
func (s *subConn) addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.conn.RemoteAddr() == nil {
		return ""
	}
	return s.conn.RemoteAddr().String()
}
