package sim

import "strings"

func init() {
	registerInvariant(Invariant{
		Name:  "lock_owner_only",
		Help:  "a pull lock is released by its owner and by nobody else, and only after the owner's pull has ended",
		Armed: "releases of a pull lock",
		Judge: judgeLockOwnerOnly,
	})
}

func judgeLockOwnerOnly(r *Record, _ *opRecord) Finding {
	var f Finding
	taken := map[string]int{} // key → index of its newest lock event
	for i, e := range r.Events {
		switch e.Kind {
		case EvLock:
			taken[e.Attr("key")] = i
		case EvUnlock:
			f.Armed++
			lock, ok := taken[e.Attr("key")]
			if !ok {
				continue
			}
			owner, _, _ := strings.Cut(e.Attr("value"), ":")
			if own := r.Events[lock]; own.Actor != e.Actor && own.Attr("value") == e.Attr("value") {
				f.violate(r.seqs(lock, i), "%s released the lock %s that %s (%s) held", e.Actor, e.Attr("key"), own.Actor, owner)
				continue
			}
			if p := r.runningPull(e.Attr("path"), e.Host, owner, i); p != nil && p.start > lock && p.git > i {
				f.violate(r.seqs(lock, p.start, i), "the lock %s of %s was released while its pull was still running", e.Attr("key"), owner)
			}
		}
	}
	return f
}

// runningPull returns the pull of a checkout by one instance that runs at event
// i; nil when there is none.
func (r *Record) runningPull(path, host, by string, i int) *pull {
	for k := range r.pulls {
		p := &r.pulls[k]
		if p.path == path && (host == "" || p.host == host) && p.by == by && p.start < i && (p.end < 0 || p.end > i) {
			return p
		}
	}
	return nil
}
