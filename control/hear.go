package control

import (
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

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
