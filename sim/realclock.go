package sim

import (
	"syscall"
	"time"
)

// realNow is the machine's clock, also inside a bubble, where time.Now
// is virtual.
func realNow() time.Duration {
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		return 0
	}
	return time.Duration(tv.Nano())
}
