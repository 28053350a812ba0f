package opsexec

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// OfMonotonic is the moment at which the system's monotonic clock stood at µs
// microseconds, as systemd gives times; zero for 0 and for what is still to
// come. The age of what it returns is counted by that clock as well.
func OfMonotonic(µs uint64) time.Time {
	var now unix.Timespec
	if µs == 0 || µs > math.MaxInt64 || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return time.Time{}
	}
	age := now.Nano()/1000 - int64(µs)
	if age < 0 {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(age) * time.Microsecond)
}
