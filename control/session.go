package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// session keeps one subscription to the control channel alive.
//
// It does not use PubSub.Channel, which drops messages after 60 s of a full
// buffer, pings without looking for the pong, and stays deaf without an error
// when Redis refuses to subscribe again (measured on go-redis 9.23). Instead one
// reader blocks in Receive, a watchdog closes the connection when nothing is
// heard, and every error leads to a new connection.
type session struct {
	client  *Client
	channel string
	name    string // spreads the backoff
	clock   *clock
	log     *slog.Logger
	tuning  Tuning

	deliver   func(message) // must not block
	confirmed func(first bool)
	lost      func(newly bool)
	progress  func() // the reader is alive, with or without Redis

	mu        sync.Mutex
	sub       *subConn   // the present connection, nil between two
	since     fleet.Time // of the present subscription, zero while deaf
	deafSince fleet.Time
	ever      bool          // a subscription was confirmed at least once
	resume    chan struct{} // not nil while paused; closed to go on
	idle      chan struct{} // closed when a paused session reads no more
	lastErr   string
}

// message is one message of the channel and the subscription it came by.
type message struct {
	payload string
	since   fleet.Time // when that subscription began
}

var errWatchdog = errors.New("nothing heard from redis")

// run subscribes, again and again, until ctx ends.
func (s *session) run(ctx context.Context) {
	n := 0
	for ordinal := 0; ctx.Err() == nil; ordinal++ {
		s.progress()
		if !s.waitWhilePaused(ctx) {
			return
		}
		began := time.Now()
		confirmed, err := s.once(ctx)
		s.ended(err, ctx.Err() != nil || s.paused())
		if ctx.Err() != nil {
			return
		}
		if s.paused() {
			continue
		}
		n++
		if confirmed {
			// Short-lived subscriptions still back off, a little: a server that
			// closes each at once is not to be asked ten times a second.
			n = min(n, 3)
			if time.Since(began) > s.tuning.SilenceClose {
				n = 0
			}
		}
		sleep(ctx, backoff(s.tuning.BackoffFirst, s.tuning.BackoffMost, n, s.name, ordinal))
	}
}

// once makes one subscription and reads it until it breaks.
func (s *session) once(ctx context.Context) (confirmed bool, err error) {
	sub := &subConn{}
	s.mu.Lock()
	if s.resume != nil {
		s.mu.Unlock()
		return false, errors.New("paused")
	}
	s.sub = sub
	s.mu.Unlock()
	defer sub.close()

	ps := s.client.Subscribe(ctx) // no channel yet: nothing is dialled
	dial, cancel := context.WithTimeout(context.WithValue(ctx, subKey{}, sub), dialTimeout+ioTimeout)
	err = ps.Subscribe(dial, s.channel)
	cancel()
	if err != nil {
		ps.Close()
		return false, fmt.Errorf("subscribing to %s: %w", s.channel, clusterAdvice(err))
	}
	since := sub.sampled()
	if since == 0 { // without it no op could be told from one of before
		ps.Close()
		return false, errors.New("redis did not tell its time before the subscription")
	}
	s.clock.set(since)

	w := &watch{s: s, ps: ps, sub: sub, started: time.Now()}
	watching := make(chan struct{})
	wctx, stop := context.WithCancel(ctx)
	go func() { defer close(watching); w.run(wctx) }()
	confirmed, err = s.read(context.WithValue(context.Background(), subKey{}, sub), ps, w, since)
	stop()
	<-watching
	ps.Close()
	if w.reason != nil {
		err = w.reason
	}
	return confirmed, err
}

// read hands on what arrives until the connection breaks.
func (s *session) read(ctx context.Context, ps *redis.PubSub, w *watch, since fleet.Time) (confirmed bool, err error) {
	for {
		msg, err := ps.Receive(ctx)
		if err != nil {
			return confirmed, fmt.Errorf("reading %s: %w", s.channel, err)
		}
		w.heard()
		s.progress()
		switch m := msg.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" && m.Channel == s.channel && !confirmed {
				confirmed = true
				w.confirmed.Store(true)
				s.begun(since)
			}
		case *redis.Message:
			if m.Channel == s.channel && confirmed {
				s.deliver(message{m.Payload, since})
			}
		}
	}
}

// begun records a confirmed subscription.
func (s *session) begun(since fleet.Time) {
	s.mu.Lock()
	first := !s.ever
	deaf := s.deafSince
	s.since, s.deafSince, s.ever, s.lastErr = since, 0, true, ""
	s.mu.Unlock()
	if deaf != 0 {
		s.log.Info("subscribed again", "channel", s.channel, "deaf_for", since.Sub(deaf))
	} else if first {
		s.log.Info("subscribed", "channel", s.channel)
	}
	s.confirmed(first)
}

// ended records that the session hears nothing now. The same error is logged
// once, not once per attempt.
func (s *session) ended(err error, quiet bool) {
	s.mu.Lock()
	s.sub, s.since = nil, 0
	newly := s.deafSince == 0
	if newly {
		s.deafSince = s.clock.now()
	}
	changed := err != nil && err.Error() != s.lastErr
	if changed {
		s.lastErr = err.Error()
	}
	s.mu.Unlock()
	s.lost(newly)
	if changed && !quiet {
		s.log.Warn("not subscribed, trying again", "channel", s.channel, "err", err)
	}
}

// listening tells since when the session has been subscribed, or deaf.
func (s *session) listening() (since, deafSince fleet.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.deafSince
}

// pause ends the subscription and returns once nothing more is delivered.
// unpause subscribes again.
func (s *session) pause(ctx context.Context) {
	s.mu.Lock()
	if s.resume == nil {
		s.resume, s.idle = make(chan struct{}), make(chan struct{})
	}
	idle, sub := s.idle, s.sub
	s.mu.Unlock()
	if sub != nil {
		sub.close()
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func (s *session) unpause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resume != nil {
		close(s.resume)
		s.resume = nil
	}
}

func (s *session) paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume != nil
}

// waitWhilePaused reports false when ctx ended.
func (s *session) waitWhilePaused(ctx context.Context) bool {
	s.mu.Lock()
	resume, idle := s.resume, s.idle
	s.mu.Unlock()
	if resume == nil {
		return true
	}
	select {
	case <-idle:
	default:
		close(idle)
	}
	for {
		t := time.NewTimer(watchdogEvery)
		select {
		case <-t.C:
			s.progress() // paused, not stuck
		case <-resume:
			t.Stop()
			// Whoever lets the session go on has things to ask Redis as well; not
			// both at the same instant.
			return sleep(ctx, 1+hashDuration(time.Millisecond, s.name, "resume"))
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// checkMaster closes the subscription when the pool talks to another server by
// now: after a failover the old master may still be reachable, and still
// answers PING, but no op is published on it any more.
func (s *session) checkMaster() {
	s.mu.Lock()
	sub := s.sub
	s.mu.Unlock()
	if sub == nil {
		return
	}
	if own, master := sub.addr(), s.client.masterAddr(); own != "" && master != "" && own != master {
		s.log.Warn("redis master changed, subscribing there", "from", own, "to", master)
		sub.close()
	}
}

// sleep waits for d and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
