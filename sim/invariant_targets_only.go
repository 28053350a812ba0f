package sim

import "slices"

func init() {
	registerInvariant(Invariant{
		Name:  "targets_only",
		Help:  "an instance that an op does not select neither answers nor acts on it; a target that is empty, mistyped or matches nobody moves nobody",
		Armed: "live instances that an op does not select",
		Judge: judgeTargetsOnly,
	})
}

func judgeTargetsOnly(r *Record, op *opRecord) Finding {
	var f Finding
	selected := map[*opRecord]map[string]bool{}
	for _, o := range r.each(op) {
		if o.published() < 0 {
			continue
		}
		sel := map[string]bool{}
		for _, m := range r.targets(o) {
			sel[m.name] = true
		}
		selected[o] = sel
		for _, name := range r.names {
			if l := r.lifeAt(r.members[name].process, o.published()); !sel[name] && l != nil && l.subscribed >= 0 {
				f.Armed++
			}
		}
		for _, name := range r.names {
			if acks := o.acks[name]; len(acks) > 0 && !sel[name] {
				f.violate(r.seqs(o.published(), acks[0]), "%s answered %s, whose target %q does not select it", name, o.name, o.target)
			}
		}
	}
	for _, rs := range r.restarts {
		if sel, ok := selected[rs.op]; ok && !rs.raw && !sel[rs.instance] {
			f.violate(r.seqs(rs.op.published(), rs.at), "%s was restarted for %s, whose target %q does not select it", rs.instance, rs.op.name, rs.op.target)
		}
	}
	for _, p := range r.pulls {
		sel, ok := selected[p.op]
		if !ok || slices.ContainsFunc(r.names, func(n string) bool {
			m := r.members[n]
			return sel[n] && m.Host == p.host && m.checkout == p.path
		}) {
			continue
		}
		f.violate(r.seqs(p.op.published(), p.start), "%s on %s was pulled for %s, whose target %q selects no service of that checkout", p.path, p.host, p.op.name, p.op.target)
	}
	return f
}
