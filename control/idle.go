package control

import "sync"

// underWay counts the ops that were accepted and have not ended.
type underWay struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // nil when nobody waits for n to be 0
}

func (u *underWay) add(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n += n; u.n == 0 && u.idle != nil {
		close(u.idle)
		u.idle = nil
	}
}

// Idle returns a channel that is closed as soon as no accepted op is queued,
// running or waiting for its release: stopping the daemon then leaves nothing
// undone.
func (d *Daemon) Idle() <-chan struct{} {
	u := &d.underWay
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n == 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if u.idle == nil {
		u.idle = make(chan struct{})
	}
	return u.idle
}
