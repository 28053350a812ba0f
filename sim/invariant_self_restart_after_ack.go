package sim

func init() {
	registerInvariant(Invariant{
		Name:  "self_restart_after_ack",
		Help:  "who restarts itself does so only after Redis has its accepted ack: it cannot speak any more once it is down",
		Armed: "restarts of an instance by its own daemon",
		Judge: func(r *Record, op *opRecord) Finding {
			var f Finding
			for _, rs := range r.restarts {
				if !rs.self || rs.raw || op != nil && rs.op != op || rs.op == nil {
					continue
				}
				f.Armed++
				if acc := r.accepted(rs.op, rs.instance); acc < 0 || acc > rs.at {
					f.violate(r.seqs(rs.op.published(), rs.at, acc), "%s restarted itself for %s before Redis had its ack", rs.instance, rs.op.name)
				}
			}
			return f
		},
	})
}
