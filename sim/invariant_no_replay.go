package sim

import (
	"slices"
	"strconv"
	"time"
)

func init() {
	registerInvariant(Invariant{
		Name:  "no_replay",
		Help:  "an op reaches live subscribers only: who was down, deaf or not yet born when it was published never acts on it",
		Armed: "instances that an op selects but that it never reached, or whose daemon ended after it did",
		Judge: judgeNoReplay,
	})
}

func judgeNoReplay(r *Record, op *opRecord) Finding {
	var f Finding
	for _, o := range r.each(op) {
		pub := o.published()
		if pub < 0 {
			continue
		}
		for _, m := range r.targets(o) {
			if l := r.lifeAt(m.process, pub); l == nil || l.end >= 0 || !r.heard(o, m.process) {
				f.Armed++
			}
		}
	}
	judge := func(o *opRecord, act int, process, instance, what string) {
		if o == nil || op != nil && o != op || o.published() < 0 {
			return
		}
		// The first publish counts: a copy of it is as old as that.
		pub := o.published()
		l := r.lifeAt(process, act)
		if l == nil || l.subscribed >= 0 && l.subscribed < pub {
			return
		}
		f.violate(r.seqs(pub, l.boot, l.subscribed, act), "%s %s for %s, though its daemon %s began to listen only after %s was published",
			instance, what, o.name, process, o.name)
	}
	for _, rs := range r.restarts {
		if rs.raw {
			continue
		}
		judge(rs.op, rs.at, rs.process, rs.instance, "was restarted")
	}
	for _, p := range r.pulls {
		if m := r.members[p.by]; m != nil {
			judge(p.op, p.start, m.process, p.by, "pulled "+p.path)
		}
	}
	for _, o := range r.ops {
		for _, name := range r.names {
			m := r.members[name]
			i := r.accepted(o, name)
			if i < 0 || r.Events[i].Attr("text") == "true" {
				continue
			}
			judge(o, i, m.process, name, "accepted")
			if op == nil || o == op {
				r.acceptedTooLate(&f, o, m, i)
			}
		}
	}
	return f
}

// acceptedTooLate finds an instance that accepted an op which reached it only
// after it had expired.
func (r *Record) acceptedTooLate(f *Finding, o *opRecord, m *member, acc int) {
	if o.published() < 0 {
		return
	}
	pub := r.Events[o.published()]
	issued, _ := strconv.ParseInt(pub.Attr("issued"), 10, 64)
	expires, _ := strconv.ParseInt(pub.Attr("expires"), 10, 64)
	if expires <= issued {
		return
	}
	// A second of slack: the op is issued a moment before it is published.
	limit := pub.T + time.Duration(expires-issued)*time.Microsecond + time.Second
	last := -1
	for i := acc; i >= o.published(); i-- {
		if e := r.Events[i]; e.Kind == EvDelivered && e.Op == o.name && e.Actor == m.process {
			if last = i; e.T <= limit {
				return // it came in time
			}
		}
	}
	if last >= 0 {
		f.violate(r.seqs(o.published(), last, acc), "%s accepted %s, which reached it only %v after it had been published and had expired by then",
			m.name, o.name, round(r.at(last)-pub.T))
	}
}

// heard reports whether op o ever reached a process.
func (r *Record) heard(o *opRecord, process string) bool {
	return slices.ContainsFunc(r.Events[o.published():], func(e Event) bool {
		return e.Kind == EvDelivered && e.Op == o.name && e.Actor == process
	})
}
