package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// lockMark begins the token in the value of a lock that sgfleet took, and so
// tells it from one of the original system's, which has tokens too.
const lockMark = "sgf-"

// pullLock is opsexec's PullLock over Redis: SET NX PX with the value
// instance:token under the original system's key, and compare-and-delete by
// WATCH, GET, MULTI, since the agents' ACL has no EVAL. One is made for each
// pull, so that a token is never used twice.
type pullLock struct {
	client   *Client
	lock     string // key
	pulled   string // key
	instance string
	token    string
	maybe    bool // a TryLock failed: its SET may have taken effect all the same
}

var _ opsexec.PullLock = (*pullLock)(nil)

// newPullLock makes the lock of one pull of the checkout at path on host (the
// operating system's hostname, and the path as configured: the original's
// services contend on exactly this key).
func newPullLock(c *Client, keys fleet.Keys, host, path, instance, token string) *pullLock {
	return &pullLock{
		client: c, lock: keys.Pull(host, path), pulled: keys.Pulled(host, path),
		instance: instance, token: lockMark + token,
	}
}

func (l *pullLock) value() string { return l.instance + ":" + l.token }

// TryLock implements [opsexec.PullLock].
func (l *pullLock) TryLock(ctx context.Context, ttl time.Duration) (held bool, holder opsexec.PullHolder, at int64, err error) {
	var now *redis.TimeCmd
	var set *redis.BoolCmd
	var get *redis.StringCmd
	_, err = l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		set = p.SetNX(ctx, l.lock, l.value(), ttl)
		get = p.Get(ctx, l.lock)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		l.maybe = true
		return false, opsexec.PullHolder{}, 0, fmt.Errorf("taking the pull lock %s: %w", l.lock, clusterAdvice(err))
	}
	at = int64(fleet.TimeOf(now.Val()))
	if set.Val() || l.maybe && get.Val() == l.value() {
		l.maybe = false
		return true, opsexec.PullHolder{Instance: l.instance}, at, nil
	}
	return false, parseHolder(get.Val()), at, nil
}

// Holder implements [opsexec.PullLock].
func (l *pullLock) Holder(ctx context.Context) (opsexec.PullHolder, error) {
	v, err := l.client.Get(ctx, l.lock).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return opsexec.PullHolder{}, fmt.Errorf("reading the pull lock %s: %w", l.lock, err)
	}
	return parseHolder(v), nil
}

// Unlock implements [opsexec.PullLock].
func (l *pullLock) Unlock(ctx context.Context) error {
	err := l.client.insist(ctx, ioTimeout, func(ctx context.Context, c redis.UniversalClient) error {
		return c.Watch(ctx, func(tx *redis.Tx) error {
			v, err := tx.Get(ctx, l.lock).Result()
			if errors.Is(err, redis.Nil) || err == nil && v != l.value() {
				return nil // its life ran out; whoever has it now keeps it
			}
			if err != nil {
				return err
			}
			_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Del(ctx, l.lock)
				return nil
			})
			if errors.Is(err, redis.TxFailedErr) {
				return nil // it changed hands between GET and EXEC
			}
			return err
		}, l.lock)
	})
	if err != nil {
		return fmt.Errorf("releasing the pull lock %s: %w", l.lock, err)
	}
	return nil
}

// Outcome implements [opsexec.PullLock].
func (l *pullLock) Outcome(ctx context.Context) (*opsexec.PullOutcome, error) {
	b, err := l.client.Get(ctx, l.pulled).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the last pull's outcome %s: %w", l.pulled, err)
	}
	var o opsexec.PullOutcome
	if err := json.Unmarshal(b, &o); err != nil {
		// Nothing that sgfleet wrote: as good as no outcome, the flock fences.
		return nil, nil
	}
	return &o, nil
}

// SetOutcome implements [opsexec.PullLock].
func (l *pullLock) SetOutcome(ctx context.Context, o opsexec.PullOutcome) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encoding a pull's outcome: %w", err)
	}
	err = l.client.insist(ctx, ioTimeout, func(ctx context.Context, c redis.UniversalClient) error {
		return c.Set(ctx, l.pulled, b, PulledLife).Err()
	})
	if err != nil {
		return fmt.Errorf("recording a pull's outcome %s: %w", l.pulled, err)
	}
	return nil
}

// parseHolder reads a lock's value.
func parseHolder(v string) opsexec.PullHolder {
	if v == "" {
		return opsexec.PullHolder{}
	}
	i := strings.LastIndexByte(v, ':')
	if i >= 0 && strings.HasPrefix(v[i+1:], lockMark) {
		if _, err := fleet.ParseInstance(v[:i]); err == nil {
			return opsexec.PullHolder{Instance: v[:i]}
		}
	}
	// Another's value is shown as it is, but not its token.
	name := v
	if i >= 0 {
		name = v[:i]
	}
	if len(name) > 100 {
		name = name[:100]
	}
	return opsexec.PullHolder{Instance: name, Foreign: true}
}
