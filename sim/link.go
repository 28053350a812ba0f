package sim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Redis's defaults of client-output-buffer-limit for subscribers: the server
// closes a connection at once when its output buffer passes the hard limit,
// and when it stays above the soft one for that long. Ordinary connections
// have no limit.
const (
	outputHard     = 32 << 20
	outputSoft     = 8 << 20
	outputSoftTime = 60 * time.Second
)

// nsPerByte is the time one byte takes on a link: 1 Gbit/s.
const nsPerByte = 8

// link is one simulated connection between a process and Redis. Each of its
// directions delivers in order, at instants that are all of the direction's
// own residue modulo q nanoseconds: no two deliveries of a run ever happen at
// the same instant, so the order of everything in it is the order of time and
// never that of the Go scheduler.
type link struct {
	name string // process#ordinal
	up   *half  // process → Redis
	down *half  // Redis → process

	client, server *endpoint
	conn           *connInfo
	closed         func() // called once, when both ends are closed

	mu   sync.Mutex
	ends int // ends that were closed
}

// segment is what one instant's writes put on the wire.
type segment struct {
	at      time.Time // when it is delivered
	written time.Time
	b       []byte
}

// half is one direction of a link.
type half struct {
	rnd     *rand.Rand
	model   Dist
	residue int64
	q       int64

	wake chan struct{} // tells a waiting reader to look again; buffered
	poll *time.Timer   // the reader's; made by the first read

	mu       sync.Mutex
	segs     []segment
	last     time.Time // delivery of the newest segment, or FIN
	buffered int       // bytes written and not yet read
	softFrom time.Time // since when buffered is above the soft limit
	limited  func()    // set on a direction with output-buffer limits: closes the link
	holds    int       // faults that hold deliveries back
	eof      time.Time // FIN arrives; zero: none sent
	reset    time.Time // RST arrives; zero: none
	done     bool      // the reading end is closed
	shut     bool      // the writing end is closed
	deadline time.Time // of reads
}

func newHalf(rnd *rand.Rand, model Dist, residue, q int64) *half {
	return &half{rnd: rnd, model: model, residue: residue, q: q, wake: make(chan struct{}, 1)}
}

// place returns the first instant at or after t that belongs to this
// direction, and later than every earlier delivery.
func (h *half) place(t time.Time) time.Time {
	if !t.After(h.last) {
		t = h.last.Add(1)
	}
	d := (h.residue - t.UnixNano()%h.q + h.q) % h.q
	return t.Add(time.Duration(d))
}

func (h *half) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	now := time.Now()
	if h.shut {
		h.mu.Unlock()
		return 0, net.ErrClosed
	}
	if !h.reset.IsZero() && !now.Before(h.reset) {
		h.mu.Unlock()
		return 0, syscall.EPIPE
	}
	if h.done || !h.reset.IsZero() {
		h.mu.Unlock()
		return len(b), nil // the other end does not know them any more
	}
	h.buffered += len(b)
	if h.limited != nil && h.overLimitLocked(now) {
		h.mu.Unlock()
		h.limited()
		return len(b), nil
	}
	if n := len(h.segs); n > 0 && h.segs[n-1].written.Equal(now) {
		// One instant's writes travel together, as they would in one packet.
		h.segs[n-1].b = append(h.segs[n-1].b, b...)
		h.mu.Unlock()
		return len(b), nil
	}
	at := h.place(now.Add(h.model.draw(h.rnd) + time.Duration(len(b)*nsPerByte)))
	h.last = at
	h.segs = append(h.segs, segment{at: at, written: now, b: append([]byte(nil), b...)})
	h.mu.Unlock()
	h.poke()
	return len(b), nil
}

// overLimitLocked applies Redis's output-buffer limits.
func (h *half) overLimitLocked(now time.Time) bool {
	if h.buffered <= outputSoft {
		h.softFrom = time.Time{}
		return false
	}
	if h.softFrom.IsZero() {
		h.softFrom = now
	}
	return h.buffered > outputHard || now.Sub(h.softFrom) >= outputSoftTime
}

func (h *half) read(b []byte) (int, error) {
	for {
		h.mu.Lock()
		now := time.Now()
		if h.done {
			h.mu.Unlock()
			return 0, net.ErrClosed
		}
		next := h.deadline
		earlier := func(t time.Time) {
			if next.IsZero() || t.Before(next) {
				next = t
			}
		}
		if !h.reset.IsZero() {
			if !now.Before(h.reset) {
				h.mu.Unlock()
				return 0, syscall.ECONNRESET
			}
			earlier(h.reset)
		}
		if h.holds == 0 {
			if len(h.segs) > 0 {
				if !now.Before(h.segs[0].at) {
					n := h.takeLocked(b)
					h.mu.Unlock()
					return n, nil
				}
				earlier(h.segs[0].at)
			} else if !h.eof.IsZero() {
				if !now.Before(h.eof) {
					h.mu.Unlock()
					return 0, io.EOF
				}
				earlier(h.eof)
			}
		}
		if !h.deadline.IsZero() && !now.Before(h.deadline) {
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		h.mu.Unlock()
		h.wait(next)
	}
}

// takeLocked moves the bytes that have arrived into b.
func (h *half) takeLocked(b []byte) int {
	s := &h.segs[0]
	n := copy(b, s.b)
	h.buffered -= n
	if s.b = s.b[n:]; len(s.b) == 0 {
		h.segs[0] = segment{}
		if h.segs = h.segs[1:]; len(h.segs) == 0 {
			h.segs = nil
		}
	}
	return n
}

// wait blocks until t (for ever when zero) or until something changed. Only
// one goroutine reads a direction at a time.
func (h *half) wait(t time.Time) {
	if t.IsZero() {
		<-h.wake
		return
	}
	if h.poll == nil {
		h.poll = time.NewTimer(time.Until(t))
	} else {
		h.poll.Reset(time.Until(t))
	}
	select {
	case <-h.poll.C:
	case <-h.wake:
		h.poll.Stop()
	}
}

// finish is the writing end's FIN; without a packet (of a dead host) the other
// end never learns.
func (h *half) finish(packet bool) {
	h.mu.Lock()
	if !h.shut && packet {
		h.eof = h.place(time.Now().Add(h.model.draw(h.rnd)))
		h.last = h.eof
	}
	h.shut = true
	h.mu.Unlock()
	h.poke()
}

// discard is the reading end's close.
func (h *half) discard() {
	h.mu.Lock()
	h.done, h.segs, h.buffered = true, nil, 0
	h.mu.Unlock()
	h.poke()
}

// cut resets the direction at its next own instant.
func (h *half) cut() {
	h.mu.Lock()
	if h.reset.IsZero() {
		h.last = time.Time{} // what was on its way is lost
		h.reset = h.place(time.Now())
		h.last = h.reset
		h.segs, h.buffered = nil, 0
	}
	h.mu.Unlock()
	h.poke()
}

func (h *half) hold() {
	h.mu.Lock()
	h.holds++
	h.mu.Unlock()
	h.poke()
}

// release ends one hold. What was held is delivered from now on, in order;
// lost says that it has to be sent again first, which a TCP does with a
// back-off of up to the length of the outage.
func (h *half) release(lost time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.poke()
	if h.holds == 0 {
		return
	}
	if h.holds--; h.holds > 0 {
		return
	}
	now := time.Now()
	from := now
	if lost > 0 {
		from = now.Add(200*time.Millisecond + time.Duration(h.rnd.Float64()*float64(min(lost, 30*time.Second))/2))
	}
	h.last = time.Time{}
	for i := range h.segs {
		at := h.segs[i].at
		if at.Before(from) {
			at = from
		}
		h.segs[i].at = h.place(at)
		h.last = h.segs[i].at
	}
	if !h.eof.IsZero() {
		h.eof = h.place(h.eof)
		if h.eof.Before(from) {
			h.eof = h.place(from)
		}
		h.last = h.eof
	}
}

func (h *half) setDeadline(t time.Time) {
	h.mu.Lock()
	h.deadline = t
	h.mu.Unlock()
	h.poke()
}

// endpoint is one end of a link.
type endpoint struct {
	l       *link
	in, out *half
	once    sync.Once
	onRead  func([]byte) // sees what was read, before the reader does
	onWrite func([]byte) // sees what was written
	remote  string       // address of the server
	dead    func() bool  // says that the process at this end is; may be nil
}

var _ net.Conn = (*endpoint)(nil)

// newLink makes a link whose ends are not watched yet.
func newLink(name string, up, down *half, closed func()) *link {
	l := &link{name: name, up: up, down: down, closed: closed}
	l.client = &endpoint{l: l, in: down, out: up}
	l.server = &endpoint{l: l, in: up, out: down}
	return l
}

var _ wire = (*link)(nil)

func (l *link) info() *connInfo { return l.conn }

func (l *link) cut() {
	l.up.cut()
	l.down.cut()
}

func (l *link) hold(up, down bool) {
	if up {
		l.up.hold()
	}
	if down {
		l.down.hold()
	}
}

func (l *link) release(up, down bool, lost time.Duration) {
	if up {
		l.up.release(lost)
	}
	if down {
		l.down.release(lost)
	}
}

func (l *link) end(packet bool) { _ = l.client.close(packet) }

func (e *endpoint) Read(b []byte) (int, error) {
	n, err := e.in.read(b)
	if n > 0 && e.onRead != nil {
		e.onRead(b[:n])
	}
	return n, err
}

func (e *endpoint) Write(b []byte) (int, error) {
	if e.dead != nil && e.dead() {
		return 0, errFenced
	}
	n, err := e.out.write(b)
	if n > 0 && e.onWrite != nil {
		e.onWrite(b[:n])
	}
	return n, err
}

// Close closes this end in an orderly way.
func (e *endpoint) Close() error { return e.close(true) }

// close without a packet is the power going out.
func (e *endpoint) close(packet bool) error {
	err := net.ErrClosed
	e.once.Do(func() {
		err = nil
		e.out.finish(packet)
		e.in.discard()
		e.l.mu.Lock()
		e.l.ends++
		last := e.l.ends == 2
		e.l.mu.Unlock()
		if last && e.l.closed != nil {
			e.l.closed()
		}
	})
	return err
}

func (e *endpoint) LocalAddr() net.Addr  { return simAddr(e.l.name) }
func (e *endpoint) RemoteAddr() net.Addr { return simAddr(e.remote) }

func (e *endpoint) SetDeadline(t time.Time) error { return e.SetReadDeadline(t) }

func (e *endpoint) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(t)
	return nil
}

// SetWriteDeadline does nothing: a write never blocks.
func (e *endpoint) SetWriteDeadline(time.Time) error { return nil }

// simAddr is the address of an end of a link.
type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }

var (
	errRefused = fmt.Errorf("dial redis: %w", syscall.ECONNREFUSED)
	errNoRoute = fmt.Errorf("dial redis: %w", syscall.ETIMEDOUT)
	errFenced  = errors.New("the process is dead")
)
