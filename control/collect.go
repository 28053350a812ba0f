package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// How often the reply list is read. A fixed 5 ms trebles the time that 100
// acks take; 1 ms while they flow costs nothing measurable, and an op that
// waits for a slow service need not ask more often than five times a second.
// In between, the wait is a share of the silence so far, and so adds no more
// than that share to the time that an ack takes. (Doubling it would add up to
// the whole of it.)
const (
	quietShare = 16
	paceMin    = time.Millisecond
	paceMax    = 200 * time.Millisecond
	paceError  = 250 * time.Millisecond
	readPage   = 1000 // entries of one LRANGE
	readPages  = 64   // of one read: a list that is filled faster than it is read keeps nobody from the deadlines
)

// What [Report.Published] says.
const (
	publishedYes     = "yes"
	publishedUnknown = "unknown"
)

// collector is one op's collection: who is expected and what each has said.
// One goroutine uses it.
type collector struct {
	d      *Dispatcher
	plan   *Plan
	req    Request
	legacy *legacyPeers
	id     string

	start           time.Time // of PUBLISH; every deadline is counted from here
	issued          fleet.Time
	expires         fleet.Time
	gatewayDeadline fleet.Time
	published       string
	receivers       int64

	entries []*entry // expected ones first
	byName  map[string]*entry

	cursor  int64     // entries of the reply list that have been read
	newest  string    // the entry before the cursor
	readErr error     // of the last read; nil when it worked
	blind   time.Time // when it first kept this from an end, or from the release

	release      string // what the gateways were told
	releasedAt   time.Time
	cut          bool     // ended before its time
	unattributed []string // text answers that name nobody
	openLegacy   int      // legacy instances that no answer names
	garbage      int      // answers that could not be used
	finals       int      // instances that have said their last word
	notes        []string

	garbageSample string
	ended         time.Time
}

// entry is what is known of one instance.
type entry struct {
	Expected
	accepted, done, refused *Ack
	acceptedAt, doneAt      time.Time
	unknown                 bool // not expected
}

func newCollector(d *Dispatcher, plan *Plan, req Request, legacy *legacyPeers, id string) *collector {
	c := &collector{d: d, plan: plan, req: req, legacy: legacy, id: id, byName: map[string]*entry{}}
	for _, e := range plan.Instances {
		c.add(&entry{Expected: e})
	}
	return c
}

func (c *collector) add(e *entry) {
	c.entries = append(c.entries, e)
	c.byName[e.Instance.String()] = e
}

func (c *collector) notef(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// run reads acks until every instance is settled. An error means that it was
// cut short.
func (c *collector) run(ctx context.Context) error {
	defer func() { c.ended = time.Now() }()
	if c.receivers == 0 && c.published == publishedYes && len(c.d.Config.Redis.Sentinels) == 0 {
		c.notef("nobody is subscribed to %s: the op reached no one", c.d.Config.Keys().Channel())
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	pace, heard := paceMin, c.start
	for {
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		if ctx.Err() != nil {
			c.cutShort(ctx)
			c.readLast(ctx)
			return fmt.Errorf("collecting the answers to op %s: %w", c.id, context.Cause(ctx))
		}
		now := time.Now() // before the read: what arrives until then still counts
		n, err := c.read(ctx)
		switch {
		case err != nil:
			pace = paceError
		case n > 0:
			pace, heard = paceMin, now
		default:
			pace = min(max(paceMin, now.Sub(heard)/quietShare), paceMax)
		}
		if c.step(ctx, now) {
			return nil
		}
		if c.req.Timeout > 0 {
			pace = min(pace, max(paceMin, time.Until(c.start.Add(c.req.Timeout))))
		}
		timer.Reset(pace)
	}
}

// step releases the gateways when it is time to, and reports whether the
// collection is over.
func (c *collector) step(ctx context.Context, now time.Time) (over bool) {
	if c.req.Timeout > 0 && now.Sub(c.start) >= c.req.Timeout {
		c.notef("stopped waiting after %v, as asked", c.req.Timeout)
		c.cutShort(ctx)
		return true
	}
	c.openLegacy = c.countOpenLegacy()
	release, gateways := true, false // release: all others are done or past their deadlines
	over = true
	for _, e := range c.entries {
		settled := c.settled(e, now)
		gateways = gateways || e.Gateway
		if !e.Gateway && !c.isLast(e) {
			release = release && settled
		}
		over = over && (settled || c.req.NoWait && e.accepted != nil)
	}
	if c.blindAt(now, over || gateways && release && c.release == "") {
		return false
	}
	if gateways && release && c.release == "" {
		c.writeRelease(ctx, releaseGo)
	}
	return over
}

// blindAt reports whether a decision must wait because acks cannot be read: what
// looks silent, or past its deadline, may have answered long ago. A reply window
// more is enough patience.
func (c *collector) blindAt(now time.Time, decision bool) bool {
	if c.readErr == nil || !decision {
		return false
	}
	if c.blind.IsZero() {
		c.blind = now
	}
	return now.Sub(c.blind) < c.d.Config.ControlReplyTimeout.D()
}

// settled reports whether nothing more is to be waited for from e.
func (c *collector) settled(e *entry, now time.Time) bool {
	switch {
	case e.final():
		return true
	case e.Legacy:
		return len(c.unattributed) >= c.openLegacy || !now.Before(c.replyDeadline())
	case e.accepted == nil:
		return !now.Before(c.replyDeadline())
	case c.isLast(e): // restarts when all of this is over
		return true
	}
	return !now.Before(c.doneDeadline(e))
}

// isLast reports whether e is the instance that this process is, and restarts
// when this collection is over.
func (c *collector) isLast(e *entry) bool {
	return c.d.Self != "" && e.restarts && e.Instance.String() == c.d.Self
}

// final reports whether e has said its last word. That an op was seen before
// is no last word of an instance that has accepted it.
func (e *entry) final() bool {
	if e.done != nil {
		return true
	}
	return e.refused != nil && (e.accepted == nil || e.refused.Status != Duplicate)
}

func (c *collector) replyDeadline() time.Time {
	return c.start.Add(c.d.Config.ControlReplyTimeout.D())
}

// doneDeadline is when e, which has accepted, is waited for no longer. A
// gateway's time begins with the release.
func (c *collector) doneDeadline(e *entry) time.Time {
	if !e.Gateway {
		return e.acceptedAt.Add(e.timeout)
	}
	from := c.releasedAt
	if c.release == "" { // could not be written: they go by their own deadline
		from = c.start.Add(c.gatewayDeadline.Sub(c.issued))
	}
	if e.acceptedAt.After(from) {
		from = e.acceptedAt
	}
	return from.Add(ReleasePoll + e.timeout)
}

// countOpenLegacy counts the legacy instances that no answer names.
func (c *collector) countOpenLegacy() int {
	n := 0
	for _, e := range c.entries {
		if e.Legacy && e.done == nil {
			n++
		}
	}
	return n
}

// read reads the entries of the reply list that have not been read yet and
// returns how many there were. Nothing is popped: a read whose reply is lost
// is repeated, and others can read along.
//
// Each read repeats the newest entry that was seen, to notice a list that
// began anew (Redis restarted without its data): it is then read from its
// start, and what had been counted is not counted twice.
func (c *collector) read(ctx context.Context) (int, error) {
	total := 0
	for range readPages {
		from := max(c.cursor-1, 0)
		got, err := c.d.Client.LRange(ctx, c.d.Config.Keys().Reply(c.id), from, from+readPage-1).Result()
		if err != nil {
			c.noteReadError(err)
			return total, err
		}
		c.readErr = nil
		if c.cursor > 0 {
			if len(got) == 0 || got[0] != c.newest {
				c.cursor, c.newest = 0, ""
				if len(got) == 0 {
					return total, nil
				}
				continue
			}
			got = got[1:]
		}
		for _, raw := range got {
			c.hear(raw)
		}
		if len(got) > 0 {
			c.cursor += int64(len(got))
			c.newest = got[len(got)-1]
		}
		total += len(got)
		if len(got) < readPage-1 {
			break
		}
	}
	return total, nil
}

// readLast hears what was answered until the operator cancelled the
// collection, so that nothing that is known is called silent.
func (c *collector) readLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	_, _ = c.read(ctx) // it logs and keeps its error
}

// noteReadError logs an error when it differs from the one before.
func (c *collector) noteReadError(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && c.readErr != nil {
		return
	}
	if c.readErr == nil || c.readErr.Error() != err.Error() {
		c.d.log().Warn("reading acks failed, trying again", "op", c.id, "err", err)
	}
	c.readErr = err
}

// hear takes in one entry of the reply list.
func (c *collector) hear(raw string) {
	ack, text, err := c.legacy.decodeReply(raw)
	switch {
	case err != nil:
		c.discard(err.Error())
		return
	case text && ack.Instance == "" && len(c.unattributed) == maxStrangers:
		c.discard("too many texts that name nobody")
		return
	case text && ack.Instance == "":
		c.unattributed = append(c.unattributed, ack.Detail)
		c.watch(Update{Kind: UpdateText, Ack: &ack})
		return
	case !text && ack.ID != c.id:
		c.discard(ack.Instance + " answered to another op, " + oneLine(ack.ID, 40))
		return
	}
	e := c.byName[ack.Instance]
	if text && e != nil && !e.Legacy {
		// One of ours answers for itself; a text that names it is not its word.
		c.discard("a text that names " + ack.Instance + ", which does not answer in text: " + ack.Detail)
		return
	}
	if e == nil && len(c.entries) == len(c.plan.Instances)+maxStrangers {
		c.discard("too many unexpected instances, the next is " + ack.Instance)
		return
	}
	if e == nil {
		e = c.unexpected(ack, text)
		c.add(e)
	}
	was := e.final()
	if e.hear(&ack, time.Now()) {
		if e.final() && !was {
			c.finals++
		}
		if c.req.Watch != nil {
			c.watch(Update{Kind: UpdateAck, Ack: &ack, Result: c.result(e)})
		}
	}
}

// maxStrangers bounds what is kept of answers that nobody expected: whoever can
// write to a reply list can fill it.
const maxStrangers = 1000

// discard counts an answer that says nothing, and keeps the first as a sample.
func (c *collector) discard(why string) {
	if c.garbage++; c.garbage == 1 {
		c.garbageSample = oneLine(why, maxDetail)
	}
}

// unexpected makes an entry for an instance that answered although it was not
// expected: it sent its first heartbeat after the registry was read.
func (c *collector) unexpected(ack Ack, text bool) *entry {
	i, _ := fleet.ParseInstance(ack.Instance) // DecodeAck has parsed it
	cfg := c.d.Config
	e := Expected{Member: fleet.Member{Instance: i, Tier: cfg.TierOf(i.Service)}, Legacy: text}
	return &entry{unknown: true, Expected: e.with(cfg, opSpecs[c.plan.Op])}
}

// hear takes in one ack and reports whether it said anything new: the same
// ack twice counts once, the first final one wins, and a refusal never
// overrides it.
func (e *entry) hear(a *Ack, now time.Time) bool {
	switch {
	case e.done != nil:
		return false
	case a.Phase == Done && a.Status != Pending:
		e.done, e.doneAt = a, now
		return true
	case a.Phase == Refused:
		if e.refused != nil {
			return false
		}
		e.refused = a
		return true
	}
	// Accepted, or done in name only: the unit's job is still running.
	if e.accepted != nil {
		if e.accepted.Phase != a.Phase {
			e.accepted = a
			return true
		}
		return false
	}
	e.accepted, e.acceptedAt = a, now
	return true
}

func (c *collector) watch(u Update) {
	if c.req.Watch == nil {
		return
	}
	u.Op, u.Total, u.Settled = c.id, len(c.entries), c.finals
	if u.Kind == UpdatePublished {
		u.Instances = c.plan.Instances
	}
	c.req.Watch(u)
}
