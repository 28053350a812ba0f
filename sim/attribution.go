package sim

import (
	"slices"

	"github.com/sgfleet/sgfleet/control"
)

// attribute says on behalf of which op each restart and pull was done: the
// first op of its kind that the instance had accepted and not yet acted on.
func (r *Record) attribute() {
	a := &attribution{
		open: map[string][]*opRecord{}, acted: map[string]bool{}, delivered: map[string]*opRecord{}, raw: map[string]int{},
		running: map[string]int{}, serves: map[string][]string{},
	}
	for _, name := range r.names {
		p := r.members[name].process
		a.serves[p] = append(a.serves[p], name)
	}
	for i, e := range r.Events {
		switch e.Kind {
		case EvBoot:
			a.boot(r, i)
		case EvDelivered:
			if o := r.byName[e.Op]; o != nil && e.Op != "" {
				a.delivered[e.Actor] = o
			} else {
				a.raw[e.Actor] = i
			}
		case EvAck:
			a.ack(r, i)
		case EvRestartQueued:
			a.restart(r, i)
		case EvRestartFinished:
			for k := len(r.restarts) - 1; k >= 0; k-- {
				if r.restarts[k].instance == e.Instance && r.restarts[k].done < 0 {
					r.restarts[k].done = i
				}
			}
		case EvPullStarted:
			p := pull{start: i, end: -1, host: e.Host, path: e.Attr("path"), by: e.Attr("by")}
			a.pull(r, &p, e)
			a.running[p.host+" "+p.path] = len(r.pulls)
			r.pulls = append(r.pulls, p)
		case EvGit:
			if k, ok := a.running[e.Host+" "+e.Attr("path")]; ok {
				r.pulls[k].git = i
			}
		case EvPullEnded:
			if k, ok := a.running[e.Host+" "+e.Attr("path")]; ok {
				r.pulls[k].end, r.pulls[k].ok = i, e.Attr("ok") == "true"
				delete(a.running, e.Host+" "+e.Attr("path"))
			}
		}
	}
}

// attribution is what attribute knows at one moment of the log.
type attribution struct {
	open      map[string][]*opRecord // instance → accepted, not final
	acted     map[string]bool        // instance + kind of act + op
	delivered map[string]*opRecord   // process → the op that reached it last
	raw       map[string]int         // process → index of the last message without an id that reached it
	running   map[string]int         // host + path → index in pulls
	serves    map[string][]string    // process → instances
}

// boot is a new life of a process: what it had accepted before is forgotten.
func (a *attribution) boot(r *Record, i int) {
	e := r.Events[i]
	delete(a.delivered, e.Actor)
	delete(a.raw, e.Actor)
	for _, name := range a.serves[e.Actor] {
		a.open[name] = nil
	}
}

func (a *attribution) ack(r *Record, i int) {
	e := r.Events[i]
	o := r.byName[e.Op]
	switch {
	case o == nil:
	case control.Phase(e.Attr("phase")) == control.Accepted:
		// A copy that was sent again after a partition opens nothing.
		if e.Attr("first") != "false" && !slices.Contains(a.open[e.Instance], o) {
			a.open[e.Instance] = append(a.open[e.Instance], o)
		}
	case control.Phase(e.Attr("phase")) == control.Done:
		// A refusal ends nothing: it may be that of a duplicate.
		a.open[e.Instance] = slices.DeleteFunc(slices.Clone(a.open[e.Instance]), func(x *opRecord) bool { return x == o })
	}
}

// pull finds the op of a pull. The log knows by whom it is from the lock in
// Redis, which may still be a dead holder's when another one has taken over.
func (a *attribution) pull(r *Record, p *pull, e Event) {
	candidates := []string{p.by}
	for _, name := range a.serves[e.Actor] {
		if m := r.members[name]; name != p.by && m.checkout == p.path && m.Host == p.host {
			candidates = append(candidates, name)
		}
	}
	for _, again := range []bool{false, true} { // who has not pulled yet, first
		for _, name := range candidates {
			o, ok := pickOp(a.open[name], name+" pull ", a.acted, "pull", "update")
			if ok && a.acted[name+" pull "+o.name] == again {
				p.op, p.by = o, name
				a.acted[name+" pull "+o.name] = true
				return
			}
		}
	}
	if e.Op != "" && e.Instance == p.by {
		p.op = r.byName[e.Op]
	}
}

func (a *attribution) restart(r *Record, i int) {
	e := r.Events[i]
	rs := restart{at: i, done: -1, instance: e.Instance, process: e.Attr("process"), self: e.Attr("self") == "true"}
	if rs.process == "" {
		return // somebody's own systemctl
	}
	rs.op, rs.open = pickOp(a.open[e.Instance], e.Instance+" restart ", a.acted, "restart", "update")
	if r.legacy(rs.instance) {
		rs.raw, rs.op = true, a.delivered[rs.process]
	} else if !rs.open {
		// An op of the original system's shape has no id to answer under.
		_, rs.raw = a.raw[rs.process]
	}
	if rs.op == nil && !rs.raw {
		rs.op = a.delivered[rs.process]
	}
	if rs.op != nil {
		a.acted[e.Instance+" restart "+rs.op.name] = true
	}
	r.restarts = append(r.restarts, rs)
}

func pickOp(open []*opRecord, key string, acted map[string]bool, kinds ...string) (*opRecord, bool) {
	var last *opRecord
	for _, o := range open {
		if !slices.Contains(kinds, o.kind) && o.kind != "" {
			continue
		}
		if !acted[key+o.name] {
			return o, true
		}
		last = o
	}
	return last, last != nil
}
