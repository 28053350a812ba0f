package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// report puts every instance into its class. Those that did not come to an end
// are looked up in the registry once more, to say why.
func (c *collector) report(ctx context.Context, op Op) *Report {
	r := &Report{
		ID: c.id, Op: op.Op, Target: op.Target, RequestedBy: op.RequestedBy, TraceID: op.TraceID,
		IssuedAt: c.issued, Published: c.published, Receivers: c.receivers, Release: c.release, NoWait: c.req.NoWait,
		TookMS: c.ended.Sub(c.start).Milliseconds(), Unattributed: c.unattributed, Notes: c.notes,
	}
	beats, now := c.beatsNow(ctx)
	if c.readErr != nil {
		r.notef("acks could not be read at the end: %s", oneLine(c.readErr.Error(), maxDetail))
	}
	c.noteGarbage(r)
	c.openLegacy = c.countOpenLegacy()
	for _, e := range c.entries {
		res := c.result(e)
		if b, ok := beats[res.Instance]; ok {
			res.LastSeen = b.At
		}
		if !e.final() && res.Class != ClassOK && !e.Legacy {
			res.Class, res.Detail = c.explain(e, beats, now)
		}
		r.Instances = append(r.Instances, res)
	}
	c.noteStillAlive(r)
	c.noteRevisions(r)
	r.finish()
	return r
}

// noteStillAlive says so when the op outlives its collection: an instance that
// was cut off and kept its subscription then gets it from TCP, late, and is
// right to act on it.
func (c *collector) noteStillAlive(r *Report) {
	spec := opSpecs[r.Op]
	left := c.expires.Sub(c.issued) - c.ended.Sub(c.start)
	if !spec.Pulls && !spec.Restarts || left <= 0 || c.receivers == 0 && c.published == publishedYes {
		return
	}
	n := 0
	for _, e := range c.entries {
		if e.accepted == nil && !e.final() && !e.Legacy && c.maybeSubscribed(e.Beat) {
			n++
		}
	}
	if n > 0 {
		r.notef("%s may still receive this op and act on it until it expires, in %s", count(n, "silent instance"), fleet.Humane(left))
	}
}

// maybeSubscribed reports whether the sender of b may have been subscribed when
// the op was published, although it was not heard of. One that was cut off right
// before its next heartbeat gives its subscription up after silenceClose.
func (c *collector) maybeSubscribed(b fleet.Heartbeat) bool {
	interval := time.Duration(cmp.Or(b.IntervalMS, c.d.Config.HeartbeatInterval.D().Milliseconds())) * time.Millisecond
	return b.SubscribedSince != 0 && b.DeafSince == 0 && c.issued.Sub(b.At) <= interval+silenceClose
}

// noteGarbage says what could not be read, if there was any.
func (c *collector) noteGarbage(r *Report) {
	if n := len(c.plan.Registry.Malformed); n > 0 {
		r.notef("%d of the registry's entries could not be read, so that instances may be missing here: %s",
			n, oneLine(c.plan.Registry.Malformed[0].Error(), maxDetail))
	}
	if c.garbage > 0 {
		r.notef("%s could not be used: %s", count(c.garbage, "answer"), c.garbageSample)
	}
}

// beatsNow reads the registry when an instance needs explaining; otherwise,
// and when that fails, it is what it was before the op.
func (c *collector) beatsNow(ctx context.Context) (map[string]fleet.Heartbeat, fleet.Time) {
	reg := c.plan.Registry
	if slices.ContainsFunc(c.entries, func(e *entry) bool { return !e.final() && !e.Legacy }) && !c.req.NoWait {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
		defer cancel()
		fresh, err := fleet.ReadRegistry(ctx, c.d.Client, c.d.Config.Keys())
		if err != nil {
			c.d.log().Warn("the registry could not be read again", "op", c.id, "err", err)
		} else {
			reg = fresh
		}
	}
	beats := make(map[string]fleet.Heartbeat, len(reg.Beats))
	for _, b := range reg.Beats {
		beats[b.Instance] = b
	}
	return beats, reg.Now
}

// result is an instance's state as the acks tell it.
func (c *collector) result(e *entry) Result {
	res := Result{
		Instance: e.Instance.String(), Service: e.Service, Host: e.Host, Tier: e.Tier,
		Gateway: e.Gateway, Legacy: e.Legacy, Unknown: e.unknown,
		AcceptedMS: -1, DoneMS: -1, LastSeen: e.Beat.At,
	}
	if e.accepted != nil {
		res.AcceptedMS = e.acceptedAt.Sub(c.start).Milliseconds()
		res.Late = e.acceptedAt.After(c.replyDeadline())
	}
	last := e.accepted
	switch {
	case e.done != nil:
		last = e.done
		res.Class = e.done.Status.Class()
		res.DoneMS = e.doneAt.Sub(c.start).Milliseconds()
	case e.final():
		last = e.refused
		res.Class = ClassRefused
	case e.accepted != nil && c.req.NoWait:
		res.Class = ClassOK
	case e.accepted != nil:
		res.Class = ClassUnfinished
	case e.Legacy:
		res.Class, res.Detail = c.unattributedClass()
	default:
		res.Class = ClassSilent
	}
	if last != nil {
		res.Phase, res.Status, res.Detail = last.Phase, last.Status, last.Detail
		res.Reason = last.Reason
		res.Revision, res.InvocationID = last.Revision, last.InvocationID
		res.Version, res.Journal = last.Version, last.Journal
	}
	if want := c.req.ExpectVersion; want != "" && res.Class == ClassOK && res.Version != want {
		res.Class, res.Status = ClassFailed, Failed
		res.Detail = "runs sgfleet " + cmp.Or(res.Version, "of an unknown version") + ", expected " + want
	}
	return res
}

// unattributedClass is what a legacy instance comes to that no answer names:
// never silent when somebody answered, for it may have been that one.
func (c *collector) unattributedClass() (Class, string) {
	answers, open := len(c.unattributed), c.openLegacy
	switch {
	case answers == 0:
		return ClassSilent, "no answer (legacy service)"
	case answers >= open:
		return ClassOK, "answered (unattributed)"
	}
	return ClassUnfinished, fmt.Sprintf("%d of %d legacy services answered, it is not known which", answers, open)
}

// explain says why an instance that has not come to an end is silent or
// unfinished.
func (c *collector) explain(e *entry, beats map[string]fleet.Heartbeat, now fleet.Time) (Class, string) {
	b, known := beats[e.Instance.String()]
	ago := func(t fleet.Time) string { return fleet.Humane(now.Sub(t)) + " ago" }
	down := known && b.Down(now, c.d.Config.HeartbeatInterval.D())
	reborn := known && e.Beat.InvocationID != "" && b.InvocationID != "" && b.InvocationID != e.Beat.InvocationID
	if e.accepted != nil {
		return c.explainAccepted(e, b, down, reborn, ago)
	}
	switch {
	case !known:
		return ClassSilent, "no ack, and no heartbeat any more"
	case b.Dropped(beats[fleet.DaemonOf(e.Host)], now, c.d.Config.HeartbeatInterval.D()):
		return ClassSilent, fmt.Sprintf("no longer served by %s, last heartbeat %s; if that is meant: sgfleet forget %s", e.Host, ago(b.At), e.Instance)
	case down:
		return ClassSilent, "DOWN, last heartbeat " + ago(b.At)
	case b.DeafSince != 0:
		return ClassSilent, "deaf since " + ago(b.DeafSince) + ": alive, but not subscribed"
	case b.SubscribedSince == 0:
		return ClassSilent, "deaf: alive, but not subscribed"
	case b.SubscribedSince > c.issued:
		return ClassSilent, "no ack: it subscribed only after the op was published, " + ago(b.SubscribedSince)
	case b.Degraded != "":
		return ClassSilent, "no ack, last heartbeat " + ago(b.At) + ", which said: degraded, " + oneLine(b.Degraded, maxDetail)
	case reborn:
		return ClassSilent, "no ack, though it was restarted meanwhile"
	case c.readErr != nil:
		return ClassSilent, "no ack could be read"
	}
	return ClassSilent, "no ack, last heartbeat " + ago(b.At)
}

func (c *collector) explainAccepted(e *entry, b fleet.Heartbeat, down, reborn bool, ago func(fleet.Time) string) (Class, string) {
	waited := round(c.ended.Sub(e.acceptedAt))
	says := ""
	if e.accepted.Detail != "" {
		says = "; it said: " + e.accepted.Detail
	}
	switch {
	case c.isLast(e) && c.release != releaseAbort:
		return ClassUnfinished, "restarts now, last of all"
	case (e.Gateway || c.isLast(e)) && c.release == releaseAbort:
		return ClassUnfinished, "accepted, then told not to restart"
	case down:
		return ClassSilent, fmt.Sprintf("accepted, and not heard of since: last heartbeat %s%s", ago(b.At), says)
	case e.restarts && e.Beat.ControlledBy == fleet.BySelf && !reborn && b.At <= e.accepted.At:
		return ClassSilent, "accepted a restart of itself and never came back" + says
	case reborn:
		return ClassUnfinished, fmt.Sprintf("restarted, but no final answer after %v%s", waited, says)
	case e.accepted.Phase == Done:
		return ClassUnfinished, fmt.Sprintf("still at it after %v%s", waited, says)
	}
	return ClassUnfinished, fmt.Sprintf("accepted, not done after %v%s", waited, says)
}

// noteRevisions says so when instances that succeeded run on different
// revisions of one checkout's path: a push came in between.
func (c *collector) noteRevisions(r *Report) {
	if !opSpecs[r.Op].Pulls {
		return
	}
	byCheckout := map[string]map[string]int{}
	for _, i := range r.Instances {
		e := c.byName[i.Instance]
		if i.Class != ClassOK || i.Revision == "" || e.Beat.Checkout == "" {
			continue
		}
		if byCheckout[e.Beat.Checkout] == nil {
			byCheckout[e.Beat.Checkout] = map[string]int{}
		}
		byCheckout[e.Beat.Checkout][i.Revision]++
	}
	for _, path := range sortedKeys(byCheckout) {
		revisions := byCheckout[path]
		if len(revisions) < 2 {
			continue
		}
		names := sortedKeys(revisions)
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(revisions[b], revisions[a]) })
		text := ""
		for _, n := range names {
			text += fmt.Sprintf(" %s (%d)", short(n), revisions[n])
		}
		r.notef("%s is at different revisions:%s; pull again, or pin one with --ref", path, text)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
