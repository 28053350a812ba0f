package opsexec

import (
	"fmt"
	"sync"
	"time"
)

// Cooldown keeps an op from being done to one target again too soon. It goes by
// the monotonic clock. The zero value never refuses.
type Cooldown struct {
	Every time.Duration // pause after an op that worked; 0: none

	mu   sync.Mutex
	done map[cooldownKey]time.Time
}

type cooldownKey struct{ op, target string }

// CooldownError refuses an op that came too soon.
type CooldownError struct {
	Op, Target string
	Left       time.Duration
}

func (e *CooldownError) Error() string {
	return fmt.Sprintf("%s of %s was done a moment ago, again in %v", e.Op, e.Target, roundUp(e.Left))
}

// roundUp is d in full seconds, so that waiting for as long as it says is enough.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// Check returns a [CooldownError] while op is cooling down for target.
func (c *Cooldown) Check(op, target string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.done[cooldownKey{op, target}]
	if !ok {
		return nil
	}
	if left := c.Every - time.Since(t); left > 0 {
		return &CooldownError{Op: op, Target: target, Left: left}
	}
	return nil
}

// Start begins the pause: call it when the op has worked. One that failed may be
// tried again at once.
func (c *Cooldown) Start(op, target string) {
	if c.Every <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for k, t := range c.done {
		if now.Sub(t) >= c.Every {
			delete(c.done, k) // or targets that come and go would add up
		}
	}
	if c.done == nil {
		c.done = map[cooldownKey]time.Time{}
	}
	c.done[cooldownKey{op, target}] = now
}
