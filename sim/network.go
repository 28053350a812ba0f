package sim

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// linksPerProcess is how many connections of one process can be open at a time
// and have delivery instants of their own: a pool of ten, the subscription,
// what a retry dials, and those that the server has not noticed to be dead.
const linksPerProcess = 32

// moduli are the candidates for Q, all prime, so that waits of whole
// milliseconds or seconds do not lead from one link's instants to another's.
var moduli = []int64{131_071, 524_287, 1_048_573, 2_097_143, 8_388_593, 33_554_393}

// network is every link between the processes and Redis.
type network struct {
	w *World
	q int64

	mu       sync.Mutex
	taken    map[int64]*link // residue pair → its link
	extra    int64           // pairs beyond those of the processes
	lastAt   time.Time       // of the newest delivery to Redis
	lastLink *link
}

// newNetwork sizes Q so that processes processes find room.
func newNetwork(w *World, processes int) (*network, error) {
	n := &network{w: w, taken: map[int64]*link{}}
	n.extra = int64(processes) * linksPerProcess
	need := 2*n.extra + 4096
	for _, q := range moduli {
		if q >= need {
			n.q = q
			return n, nil
		}
	}
	return nil, fmt.Errorf("a fleet of %d processes is too large to simulate: its links need %d distinct instants", processes, need)
}

// dial opens a link from a process to Redis: one round trip, during which
// faults apply.
func (n *network) dial(ctx context.Context, inc *incarnation) (net.Conn, error) {
	p := inc.proc
	if err := inc.gate(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	p.dials++
	name := p.name + "#" + strconv.Itoa(p.dials)
	pair := n.pairLocked(p)
	rnd := stream(n.w.seed, "link", name)
	model := n.w.plan.Models.Link
	up, down := newHalf(rnd, model, 2*pair, n.q), newHalf(stream(n.w.seed, "link", name, "down"), model, 2*pair+1, n.q)
	l := newLink(name, up, down, nil)
	n.taken[pair] = l
	n.mu.Unlock()
	l.closed = func() { n.closed(l, pair) }
	if n.w.opts.Commands {
		n.w.trace.Add(Event{Actor: p.name, Kind: EvCommand, Host: p.host.name, Attrs: map[string]string{"link": name, "cmd": "(dial)"}}, 0)
	}

	if err := n.connect(ctx, inc, l); err != nil {
		l.closed()
		return nil, err
	}
	return l.client, nil
}

// pairLocked finds the residue pair of a new link of p: by the ordinal of its
// dial, so that it depends neither on what other processes do nor on which of
// its own links has just been closed, unless that pair is still in use.
func (n *network) pairLocked(p *process) int64 {
	base := int64(p.idx) * linksPerProcess
	for i := range int64(linksPerProcess) {
		if pair := base + (int64(p.dials)+i)%linksPerProcess; n.taken[pair] == nil {
			return pair
		}
	}
	for i := n.extra; ; i++ {
		if n.taken[i] == nil {
			if 2*i+1 >= n.q {
				n.w.internal("no delivery instants are left for the links of " + p.name)
			}
			return i
		}
	}
}

// connect is the handshake.
func (n *network) connect(ctx context.Context, inc *incarnation, l *link) error {
	h := inc.proc.host
	if err := h.awaitRoute(ctx, inc); err != nil {
		return err
	}
	now := time.Now()
	rtt := l.up.model.draw(l.up.rnd) + l.down.model.draw(l.down.rnd)
	t := time.NewTimer(time.Until(l.down.place(now.Add(rtt))))
	defer t.Stop()
	select {
	case <-t.C:
	case <-inc.dead:
		return errFenced
	case <-ctx.Done():
		return ctx.Err()
	}
	l.down.last = time.Now()
	if err := inc.gate(ctx); err != nil {
		return err
	}
	conn := &connInfo{proc: inc, name: l.name}
	l.conn = conn
	l.client.remote = n.w.redis.addr()
	l.client.dead = func() bool { return !inc.alive() }
	tap := newTap(conn)
	tap.sent, tap.see, tap.push = n.w.facts.sent, n.w.facts.see, n.w.facts.pushed
	l.server.onRead = func(b []byte) { n.arrived(l, b); tap.cmds.feed(b) }
	l.server.onWrite = tap.replies.feed
	l.client.onRead = func(b []byte) {
		if conn.subscribed() != "" {
			tap.pushes.feed(b)
		}
	}
	if !inc.adopt(l) {
		return errFenced
	}
	h.applyHolds(l)
	if !n.w.redis.accept(l) {
		return errRefused
	}
	return nil
}

// arrived checks, at every delivery to Redis, that no other happened at the
// same instant, and adds it to the run's hash.
func (n *network) arrived(l *link, b []byte) {
	now := time.Now()
	n.mu.Lock()
	clash := n.lastLink != nil && n.lastLink != l && now.Equal(n.lastAt)
	other := n.lastLink
	n.lastAt, n.lastLink = now, l
	n.mu.Unlock()
	if clash {
		n.w.internal(fmt.Sprintf("links %s and %s deliver at one instant: Q = %d is too small", l.name, other.name, n.q))
	}
	n.w.hash.add(n.w.trace.Now(), l.name, b)
}

// closed forgets a link that both ends have closed.
func (n *network) closed(l *link, pair int64) {
	n.mu.Lock()
	if n.taken[pair] == l {
		delete(n.taken, pair)
	}
	n.mu.Unlock()
	if l.conn != nil {
		l.conn.proc.forget(l)
	}
}

// eachWire calls f for every open connection, in a stable order.
func (w *World) eachWire(f func(wire)) {
	for _, p := range w.processes() {
		for _, l := range p.openLinks() {
			f(l)
		}
	}
}
