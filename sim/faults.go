package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// fault is a disturbance that lasts.
type fault struct {
	action string
	ref    Ref
	heal   func()
	cancel func() // takes the scheduled end back
	over   bool
}

// disturb records a fault and sees to its end: after span, and at the latest
// when the settle time begins. It runs in the director. attrs are pairs.
func (w *World) disturb(action string, span time.Duration, e Event, heal func()) *fault {
	f := &fault{action: action, heal: heal}
	e.Kind = EvFault
	if e.Actor == "" {
		e.Actor = "sim"
	}
	if e.Attrs == nil {
		e.Attrs = map[string]string{}
	}
	e.Attrs["action"] = action
	f.ref = w.trace.Add(e, w.fault())
	w.mu.Lock()
	w.cause = f.ref
	w.faults = append(w.faults, f)
	n := len(w.faults)
	w.mu.Unlock()
	if span > 0 && heal != nil {
		f.cancel = w.dir.after(span, "heal "+strconv.Itoa(n), func() { w.end(f) })
	}
	return f
}

// end heals a fault.
func (w *World) end(f *fault) {
	if f.over {
		return
	}
	f.over = true
	if f.cancel != nil {
		f.cancel()
	}
	if f.heal == nil {
		return
	}
	w.acting(w.trace.Add(Event{Actor: "sim", Kind: EvHealed, Attrs: map[string]string{"action": f.action}}, f.ref), f.heal)
}

// acting runs fn with what it does caused by ref.
func (w *World) acting(ref Ref, fn func()) {
	w.mu.Lock()
	before := w.cause
	w.cause = ref
	w.mu.Unlock()
	fn()
	w.mu.Lock()
	w.cause = before
	w.mu.Unlock()
}

// active counts the faults that last and have not healed.
func (w *World) active() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, f := range w.faults {
		if !f.over && f.heal != nil {
			n++
		}
	}
	return n
}

// settle heals everything.
func (w *World) settle() {
	w.mu.Lock()
	faults := slices.Clone(w.faults)
	w.mu.Unlock()
	for _, f := range faults {
		w.end(f)
	}
	w.trace.Add(Event{Actor: "sim", Kind: EvSettle}, 0)
}

// schedule puts the plan's timeline, chaos and end into the director's queue.
func (w *World) schedule() {
	start := w.hash.began
	calm := max(0, w.plan.Until-w.plan.Settle)
	at := time.Duration(0)
	for i, s := range w.plan.Timeline {
		key := fmt.Sprintf("0 step %04d", i)
		switch {
		case s.Every > 0:
			at = s.Every
			for t := s.Every; t < calm; t += s.Every {
				w.dir.at(start.Add(t), key, func() { w.do(s) })
			}
			continue
		case s.After > 0:
			at += s.After
		default:
			at = s.At
		}
		w.dir.at(start.Add(at), key, func() { w.do(s) })
	}
	if w.plan.Chaos != nil {
		newChaos(w, calm).schedule()
	}
	w.dir.at(start.Add(calm), "1 settle", w.settle)
	w.dir.at(start.Add(w.plan.Until), "2 end", func() { close(w.over) })
}

// do carries out one step of the timeline.
func (w *World) do(s Step) {
	w.acting(0, func() {
		if err := s.Action.Run(w, s); err != nil {
			w.internal(fmt.Sprintf("%s: %s: %v", s.Where, s.Name, err))
		}
	})
}

// Do carries out an action at once: what a demo does instead of a timeline.
func (w *World) Do(name string, a Action) error {
	done := make(chan error, 1)
	w.dir.after(0, "do "+name, func() {
		w.acting(0, func() { done <- a.Run(w, Step{Name: name, Action: a}) })
	})
	return <-done
}

// picked is what a Where selects: the instances, and the hosts they are on.
type picked struct {
	members []*service
	hosts   []*host
	daemon  *process // sgfleet@HOST was named: the host daemon itself
}

// pick resolves where, choosing among what matches by the run's seed.
func (w *World) pick(s Step, where Where) (picked, error) {
	rnd := w.rand("pick", s.Where, s.Name, strconv.FormatInt(int64(w.trace.Now()), 10))
	var out picked
	if where.Host != "" {
		names := w.plan.hostsMatching(where.Host)
		n, err := where.Pick.count(len(names))
		if err != nil {
			return out, err
		}
		for _, i := range choose(rnd.Perm, len(names), n) {
			if h := w.host(names[i]); h.isPresent() {
				out.hosts = append(out.hosts, h)
			}
		}
		for _, m := range w.members {
			if slices.Contains(out.hosts, m.h) {
				out.members = append(out.members, m)
			}
		}
		return out, nil
	}
	if p := w.daemonNamed(where.Service); p != nil {
		return picked{hosts: []*host{p.host}, daemon: p}, nil
	}
	target := where.Service + where.Target
	found, err := w.plan.Target(target)
	if err != nil {
		return out, err
	}
	n, err := where.Pick.count(len(found))
	if err != nil {
		return out, err
	}
	for _, i := range choose(rnd.Perm, len(found), n) {
		for _, m := range w.members {
			if m.Instance == found[i].Instance && m.h.isPresent() {
				out.members = append(out.members, m)
				if !slices.Contains(out.hosts, m.h) {
					out.hosts = append(out.hosts, m.h)
				}
			}
		}
	}
	return out, nil
}

// choose returns n of 0 … total−1 in rising order.
func choose(perm func(int) []int, total, n int) []int {
	c := perm(total)[:n]
	slices.Sort(c)
	return c
}

// attrs renders a selection for an event.
func (p picked) attrs(more ...string) map[string]string {
	a := map[string]string{}
	if len(p.hosts) > 0 {
		var names []string
		for _, h := range p.hosts {
			names = append(names, h.name)
		}
		a["hosts"] = strings.Join(names, ",")
	}
	if len(p.members) > 0 {
		var names []string
		for _, m := range p.members {
			names = append(names, m.unit.instance)
		}
		a["instances"] = strings.Join(names, ",")
	}
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] != "" {
			a[more[i]] = more[i+1]
		}
	}
	return a
}

// daemonNamed finds the host daemon that sgfleet@HOST names.
func (w *World) daemonNamed(service string) *process {
	i, err := fleet.ParseInstance(service)
	if err != nil || i.Service != fleet.DaemonService {
		return nil
	}
	p := w.process(i.Host)
	if p == nil || p.instance != "" {
		return nil
	}
	return p
}
