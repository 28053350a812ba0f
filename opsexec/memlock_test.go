package opsexec

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lockServer is a PullLock's server in memory, with the clock of the process.
type lockServer struct {
	mu      sync.Mutex
	holder  PullHolder
	token   int
	ends    time.Time
	outcome *PullOutcome
	down    bool // unreachable

	writes []PullOutcome // every outcome ever set
}

var errDown = errors.New("dial tcp 10.0.0.1:6379: connection refused")

// memLock is one instance's side of a lockServer.
type memLock struct {
	s     *lockServer
	name  string
	token int
}

func (s *lockServer) lock(name string) *memLock { return &memLock{s: s, name: name} }

// hold gives the lock to somebody who is not of this process.
func (s *lockServer) hold(h PullHolder, life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token++
	s.holder, s.ends = h, time.Now().Add(life)
}

func (s *lockServer) holderLocked() PullHolder {
	if time.Now().Before(s.ends) {
		return s.holder
	}
	return PullHolder{}
}

func (l *memLock) TryLock(ctx context.Context, ttl time.Duration) (bool, PullHolder, int64, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.down {
		return false, PullHolder{}, 0, errDown
	}
	at := time.Now().UnixMicro()
	if h := l.s.holderLocked(); h.Instance != "" {
		return false, h, at, ctx.Err()
	}
	l.s.token++
	l.token, l.s.holder, l.s.ends = l.s.token, PullHolder{Instance: l.name}, time.Now().Add(ttl)
	return true, PullHolder{}, at, ctx.Err()
}

func (l *memLock) Holder(ctx context.Context) (PullHolder, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.down {
		return PullHolder{}, errDown
	}
	return l.s.holderLocked(), ctx.Err()
}

func (l *memLock) Unlock(context.Context) error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.down {
		return errDown
	}
	if l.token == l.s.token {
		l.s.ends = time.Time{}
	}
	return nil
}

func (l *memLock) Outcome(context.Context) (*PullOutcome, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.down {
		return nil, errDown
	}
	return l.s.outcome, nil
}

func (l *memLock) SetOutcome(_ context.Context, o PullOutcome) error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.down {
		return errDown
	}
	l.s.outcome = &o
	l.s.writes = append(l.s.writes, o)
	return nil
}
