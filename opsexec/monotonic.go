package opsexec

import (
	"math"
	"time"
)

// OfMonotonic is the moment at which the system's monotonic clock stood at µs
// microseconds, as systemd gives times; zero for 0 and for what is still to
// come. The age of what it returns is counted by that clock as well.
func OfMonotonic(µs uint64) time.Time {
	now, ok := monotonic()
	if !ok || µs == 0 || µs > math.MaxInt64 || now.Microseconds() < int64(µs) {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(µs)*time.Microsecond - now)
}
