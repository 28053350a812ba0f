package control

import (
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// clock tells Redis time between the moments at which Redis was asked: the
// newest sample, advanced by the host's monotonic clock. A host whose wall
// clock is an hour off judges an op's times no differently.
type clock struct {
	mu     sync.Mutex
	sample fleet.Time
	taken  time.Time
}

// set takes a new sample. A failover may well set the clock back: the server
// that is asked is the one that the ops' times come from.
func (c *clock) set(t fleet.Time) {
	if t == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sample, c.taken = t, time.Now()
}

// now is Redis time, zero as long as Redis was never asked.
func (c *clock) now() fleet.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sample == 0 {
		return 0
	}
	return c.sample.Add(time.Since(c.taken))
}
