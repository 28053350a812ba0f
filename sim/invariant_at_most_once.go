package sim

import "github.com/sgfleet/sgfleet/control"

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
		if op != nil && rs.op != op || rs.raw {
			continue
		}
		f.Armed++
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
		if fin := r.firstAck(rs.op, rs.instance, control.Done); !rs.open && fin >= 0 && fin < rs.at {
			f.violate(r.seqs(rs.op.published(), r.accepted(rs.op, rs.instance), fin, rs.at),
				"%s was restarted for %s after it had given its last word on it", rs.instance, rs.op.name)
		}
	}
	return f
}
