package sim

func init() {
	registerInvariant(Invariant{
		Name:  "keys_without_ttl",
		Help:  "every reply, release, lock, outcome and guard key has a life of its own from the command that writes it on, so that nothing is left behind for ever",
		Armed: "acks, locks and releases that were written",
		Judge: func(r *Record, _ *opRecord) Finding {
			var f Finding
			for i, e := range r.Events {
				switch e.Kind {
				case EvAck, EvLock, EvRelease:
					f.Armed++
					if e.Kind == EvLock && e.Attr("ttl_ms") == "-1" {
						f.violate(r.seqs(i), "%s took the lock %s without a life", e.Actor, e.Attr("key"))
					}
				case EvKeyNoTTL:
					f.violate(r.seqs(i, e.Cause-1), "%s left %s without a life after %s", e.Actor, e.Attr("key"), e.Attr("cmd"))
				case EvKeyLeft:
					if e.Attr("ttl_ms") == "-1" {
						f.violate(r.seqs(i), "at the end %s has no life", e.Attr("key"))
					}
				}
			}
			return f
		},
	})
}
