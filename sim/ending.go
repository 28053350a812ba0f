package sim

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"sync"
	"time"
)

// Close ends the run: the final state is recorded, every process dies, and all
// that was started has ended when it returns.
func (w *World) Close() (*Result, error) {
	w.recordEnd()
	events := w.trace.Seal()
	virtual := time.Since(w.hash.began)
	fingerprint := w.hash.sum(events)
	for _, p := range w.processes() {
		if inc := p.current(); inc != nil {
			inc.fence(deathExit)
		}
	}
	w.hash.cancel()
	for _, h := range w.hosts {
		for _, c := range h.trees {
			c.powerFails()
		}
	}
	w.running.Wait()
	if w.redis != nil {
		w.redis.close()
	}
	w.hash.stop()
	w.hash.directing.Wait()
	if w.real != nil {
		w.real.removeKeys()
	} else {
		time.Sleep(lastDial)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	return &Result{
		Seed: w.seed, Events: events, Hash: fingerprint, Commands: w.cmds,
		Virtual: virtual, Real: realNow() - w.hash.real,
	}, nil
}

// lastDial is how long a goroutine of go-redis can outlive its closed pool: one
// whose dials have failed is probed every second, and the probe looks only then
// whether the pool is still there. A bubble must not end before it.
const lastDial = 10 * time.Second

// recordEnd records the state in which the run ended.
func (w *World) recordEnd() {
	for _, m := range w.members {
		if !m.h.isPresent() {
			continue
		}
		u, p := m.unit, m.servedBy()
		s := u.show()
		u.mu.Lock()
		running := u.revision
		u.mu.Unlock()
		daemon := "down"
		if p.current() != nil {
			daemon = "up"
		}
		e := Event{Actor: m.h.name, Kind: EvState, Host: m.h.name, Instance: u.instance, Attrs: map[string]string{
			"active": s.ActiveState, "subscribed": strconv.FormatBool(w.facts.isSubscribed(p.name)),
			"running": running, "process": p.name, "daemon": daemon, "invocation": s.InvocationID,
		}}
		if u.tree != nil {
			e.Attrs["head"] = u.tree.headNow()
		}
		w.trace.Add(e, 0)
	}
	for _, k := range w.keysLeft() {
		if k.ttl <= 0 && w.facts.mustLive(k.key) {
			w.trace.Add(Event{Actor: "redis", Kind: EvKeyLeft, Attrs: map[string]string{"key": k.key, "type": k.kind, "ttl_ms": "-1"}}, 0)
		}
	}
	w.trace.Add(Event{Actor: "sim", Kind: EvRunEnded}, 0)
}

func (w *World) keysLeft() []keyLeft {
	if w.real != nil {
		return w.real.keysLeft()
	}
	return w.redis.left()
}

// runHash is the run's fingerprint, and what its end needs.
type runHash struct {
	mu    sync.Mutex
	h     hash.Hash
	began time.Time
	real  time.Duration

	cancel    context.CancelFunc // of every process
	stop      context.CancelFunc // of the director
	directing sync.WaitGroup
}

// add takes bytes that a link delivered to Redis.
func (r *runHash) add(at time.Duration, link string, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.h, "%d %s %d\n", at, link, len(b))
	r.h.Write(b)
}

func (r *runHash) sum(events []Event) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = WriteEvents(r.h, events) // a hash takes everything
	return hex.EncodeToString(r.h.Sum(nil))
}
