package sim

func init() {
	registerInvariant(Invariant{
		Name:  "at_most_once",
		Help:  "an instance acts at most once on one op, however often it is published, delivered or its connection rebuilt, and never without having accepted one",
		Armed: "restarts that an op led to",
		Judge: judgeAtMostOnce,
	})
}

func judgeAtMostOnce(r *Record, op *opRecord) Finding {
	var f Finding
	first := map[string]restart{}
	for _, rs := range r.restarts {
		if op != nil && rs.op != op {
			continue
		}
		f.Armed++
		m := r.members[rs.instance]
		if rs.op == nil {
			f.violate(r.seqs(rs.at), "%s was restarted by %s although no op had reached it", rs.instance, rs.process)
			continue
		}
		key := rs.instance + " " + rs.op.name
		if before, again := first[key]; again {
			f.violate(r.seqs(rs.op.published(), r.accepted(rs.op, rs.instance), before.at, rs.at),
				"%s was restarted twice for %s", rs.instance, rs.op.name)
			continue
		}
		first[key] = rs
		if !rs.open && r.final(rs.op, rs.instance) >= 0 && m != nil && r.Events[r.final(rs.op, rs.instance)].Attr("text") != "true" {
			f.violate(r.seqs(rs.op.published(), r.accepted(rs.op, rs.instance), r.final(rs.op, rs.instance), rs.at),
				"%s was restarted for %s after it had given its last word on it", rs.instance, rs.op.name)
		}
	}
	return f
}
