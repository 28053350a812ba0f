package sim

import "slices"

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
		// The last publish counts: a duplicate may rightly reach who was not
		// there for the first.
		pub := o.publishes[len(o.publishes)-1]
		for _, p := range o.publishes {
			if p < act {
				pub = p
			}
		}
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
			if i := r.accepted(o, name); i >= 0 && !slices.Contains(splitNames(r.Events[i].Attr("text")), "true") {
				judge(o, i, m.process, name, "accepted")
			}
		}
	}
	return f
}

// heard reports whether op o ever reached a process.
func (r *Record) heard(o *opRecord, process string) bool {
	return slices.ContainsFunc(r.Events[o.published():], func(e Event) bool {
		return e.Kind == EvDelivered && e.Op == o.name && e.Actor == process
	})
}
