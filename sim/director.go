package sim

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"
)

// director runs the world's own future, the callbacks of its fake systemd, git
// and timeline, one at a time: by time, and at one instant by name, so that it
// never matters which goroutine scheduled first.
type director struct {
	mu    sync.Mutex
	queue callbacks
	n     int
	wake  chan struct{}
}

type callback struct {
	at  time.Time
	key string
	n   int // order of scheduling, the last resort
	fn  func()
	i   int
}

func newDirector() *director { return &director{wake: make(chan struct{}, 1)} }

// at schedules fn; the returned function takes it back.
func (d *director) at(t time.Time, key string, fn func()) (cancel func()) {
	d.mu.Lock()
	d.n++
	c := &callback{at: t, key: key, n: d.n, fn: fn}
	heap.Push(&d.queue, c)
	first := d.queue[0] == c
	d.mu.Unlock()
	if first {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if c.i >= 0 {
			heap.Remove(&d.queue, c.i)
		}
	}
}

// after schedules fn in a while.
func (d *director) after(wait time.Duration, key string, fn func()) (cancel func()) {
	return d.at(time.Now().Add(wait), key, fn)
}

// run executes callbacks until ctx ends. A callback must not block.
func (d *director) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		fn, wait := d.next()
		if fn != nil {
			fn()
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-d.wake:
		case <-ctx.Done():
		}
	}
}

// next takes the callback that is due, or says how long until there is one
// (zero: never).
func (d *director) next() (func(), time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return nil, 0
	}
	if wait := time.Until(d.queue[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&d.queue).(*callback).fn, 0
}

type callbacks []*callback

func (q callbacks) Len() int { return len(q) }

func (q callbacks) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].key, q[j].key), cmp.Compare(q[i].n, q[j].n)) < 0
}

func (q callbacks) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].i, q[j].i = i, j
}

func (q *callbacks) Push(x any) {
	c := x.(*callback)
	c.i = len(*q)
	*q = append(*q, c)
}

func (q *callbacks) Pop() any {
	old := *q
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	c.i = -1
	return c
}
