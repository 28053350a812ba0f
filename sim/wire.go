package sim

import "time"

// wire is one connection between a process and Redis, as faults see it.
type wire interface {
	info() *connInfo
	cut()                                      // reset it
	hold(up, down bool)                        // deliver nothing in these directions
	release(up, down bool, lost time.Duration) // go on; lost is how long TCP has had to send again
	end(packet bool)                           // the process is dead; without a packet the other end never learns
}
