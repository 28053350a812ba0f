package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// Record is a finished run, indexed for those who judge it. It is made of the
// event log alone.
type Record struct {
	Scenario *Scenario
	Seed     int64
	Events   []Event

	members   map[string]*member
	names     []string // of members, in the log's order
	ops       []*opRecord
	byName    map[string]*opRecord
	processes map[string][]life // process → its lives
	restarts  []restart
	pulls     []pull
	end       time.Duration
	settle    time.Duration // when every fault had healed; end when the run has no such event
}

// member is one instance of the fleet.
type member struct {
	fleet.Member
	name, process, checkout string
	doneTimeout             time.Duration
	joined                  int // index of its member event
	units                   []unitChange
	starts                  []int // indices of the unit's starts
}

// unitChange is one change of a unit's liveness.
type unitChange struct {
	at         int // index of the event
	active     bool
	invocation string
	revision   string
	why        string
}

// opRecord is everything the log says of one op.
type opRecord struct {
	name, kind, target string
	dispatch, report   int // indices, −1 when there is none
	publishes          []int
	acks               map[string][]int // instance → indices of its acks
	expected, live     []string         // at the first publish
}

// life is one run of a process, from boot to crash or exit.
type life struct {
	boot, ready, subscribed, end int // indices; −1 when it did not come to that
}

// restart is one restart that production code asked systemd for.
type restart struct {
	at       int // index of restart_queued
	done     int // index of restart_finished, −1 when the run ended before
	instance string
	process  string
	self     bool
	op       *opRecord // on whose behalf; nil when no op explains it
	open     bool      // the instance had accepted op and not yet reported on it
	// raw: a message without an id had reached its process, or the process is
	// the original system's; our promises do not bind it.
	raw bool
}

// pull is one pull of a checkout: from its marker to the marker's removal.
type pull struct {
	start, end int // indices; end −1 when the run ended before
	git        int // index of its last git command's end, 0 before the first
	host, path string
	by         string
	ok         bool
	op         *opRecord
}

func newRecord(sc *Scenario, seed int64, events []Event) *Record {
	r := &Record{
		Scenario: sc, Seed: seed, Events: events, members: map[string]*member{}, byName: map[string]*opRecord{}, processes: map[string][]life{},
	}
	for i := range events {
		r.index(i)
	}
	if len(events) > 0 {
		r.end = events[len(events)-1].T
	}
	if r.settle == 0 {
		r.settle = r.end
	}
	r.attribute()
	return r
}

func (r *Record) index(i int) {
	e := &r.Events[i]
	switch e.Kind {
	case EvSettle:
		r.settle = e.T
	case EvMember:
		r.addMember(i)
	case EvUnitStarted:
		if m := r.members[e.Instance]; m != nil {
			m.starts = append(m.starts, i)
		}
	case EvUnitActive:
		r.unit(i, true)
	case EvUnitStopped, EvUnitFailed:
		r.unit(i, false)
	case EvBoot:
		r.processes[e.Actor] = append(r.processes[e.Actor], life{i, -1, -1, -1})
	case EvReady, EvSubscribed, EvCrash, EvExit:
		lives := r.processes[e.Actor]
		if len(lives) == 0 {
			return
		}
		l := &lives[len(lives)-1]
		switch {
		case e.Kind == EvReady && l.ready < 0:
			l.ready = i
		case e.Kind == EvSubscribed && l.subscribed < 0:
			l.subscribed = i
		case (e.Kind == EvCrash || e.Kind == EvExit) && l.end < 0:
			l.end = i
		}
	case EvDispatch:
		if o := r.op(e.Op); o.dispatch < 0 {
			o.dispatch, o.kind, o.target = i, e.Attr("op"), e.Attr("target")
		}
	case EvPublish:
		r.publish(i)
	case EvAck:
		if o := r.op(e.Op); o != nil {
			o.acks[e.Instance] = append(o.acks[e.Instance], i)
		}
	case EvReport:
		if o := r.op(e.Op); o.report < 0 {
			o.report = i
		}
	}
}

func (r *Record) addMember(i int) {
	e := r.Events[i]
	inst, err := fleet.ParseInstance(e.Instance)
	if err != nil || r.members[e.Instance] != nil {
		return
	}
	ms, _ := strconv.ParseInt(e.Attr("done_timeout_ms"), 10, 64)
	m := &member{
		Member: fleet.Member{Instance: inst, Tier: e.Attr("tier")}, name: e.Instance, process: e.Attr("process"),
		checkout: e.Attr("checkout"), doneTimeout: time.Duration(ms) * time.Millisecond, joined: i,
	}
	m.units = []unitChange{{at: i, active: e.Attr("state") == "active", revision: e.Attr("revision"), why: "start"}}
	r.members[e.Instance] = m
	r.names = append(r.names, e.Instance)
}

func (r *Record) unit(i int, active bool) {
	e := r.Events[i]
	if m := r.members[e.Instance]; m != nil {
		m.units = append(m.units, unitChange{i, active, e.Attr("invocation"), e.Attr("revision"), e.Attr("why")})
	}
}

// op returns the record of the op of that name, making it when it is new.
func (r *Record) op(name string) *opRecord {
	if o := r.byName[name]; o != nil {
		return o
	}
	o := &opRecord{name: name, dispatch: -1, report: -1, acks: map[string][]int{}}
	r.byName[name] = o
	if name != "" {
		r.ops = append(r.ops, o)
	}
	return o
}

func (r *Record) publish(i int) {
	e := r.Events[i]
	if e.Attr("raw") == "true" && e.Op == "" {
		return
	}
	o := r.op(e.Op)
	o.publishes = append(o.publishes, i)
	if len(o.publishes) > 1 {
		return
	}
	o.live = splitNames(e.Attr("live"))
	o.expected = splitNames(e.Attr("expected"))
	if o.kind == "" {
		o.kind, o.target = e.Attr("op"), e.Attr("target")
	}
}

func splitNames(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// legacy reports whether an instance is controlled by the original system's own
// code.
func (r *Record) legacy(instance string) bool {
	m := r.members[instance]
	return m != nil && slices.ContainsFunc(r.Scenario.plan.Hosts, func(h HostPlan) bool {
		return h.Name == m.Host && h.Shape == DaemonLegacy
	})
}

// targets returns the members that op o selects, in the log's order.
func (r *Record) targets(o *opRecord) []*member {
	t, err := fleet.ParseTarget(o.target, nil)
	if err != nil {
		return nil
	}
	var out []*member
	for _, n := range r.names {
		if m := r.members[n]; t.Match(m.Member) {
			out = append(out, m)
		}
	}
	return out
}

// lifeAt returns the life that process was in when event i happened; nil when
// it was not running.
func (r *Record) lifeAt(process string, i int) *life {
	lives := r.processes[process]
	for k := len(lives) - 1; k >= 0; k-- {
		if l := &lives[k]; l.boot <= i {
			if l.end >= 0 && l.end < i {
				return nil
			}
			return l
		}
	}
	return nil
}

// at is the time of event i.
func (r *Record) at(i int) time.Duration { return r.Events[i].T }

// seqs turns indices into the sequence numbers that a report prints.
func (r *Record) seqs(indices ...int) []int {
	var out []int
	for _, i := range indices {
		if i >= 0 && i < len(r.Events) && !slices.Contains(out, r.Events[i].Seq) {
			out = append(out, r.Events[i].Seq)
		}
	}
	slices.Sort(out)
	return out
}

// published is the index of the first publish of o, −1 when it never reached
// the server.
func (o *opRecord) published() int {
	if len(o.publishes) == 0 {
		return -1
	}
	return o.publishes[0]
}

// restartsOn reports whether o restarts what it selects.
func (o *opRecord) restartsOn() bool { return o.kind == "restart" || o.kind == "update" }

// accepted is the index of the first accepted ack of instance, −1 without.
func (r *Record) accepted(o *opRecord, instance string) int {
	return r.firstAck(o, instance, control.Accepted)
}

// final is the index of the ack that counts as instance's last word on o: the
// first done, else the first refusal, else −1. That a second copy of an op is
// refused says nothing of the first.
func (r *Record) final(o *opRecord, instance string) int {
	if i := r.firstAck(o, instance, control.Done); i >= 0 {
		return i
	}
	i := r.firstAck(o, instance, control.Refused)
	if i >= 0 && r.accepted(o, instance) >= 0 && control.Status(r.Events[i].Attr("status")) == control.Duplicate {
		return -1
	}
	return i
}

func (r *Record) firstAck(o *opRecord, instance string, phase control.Phase) int {
	for _, i := range o.acks[instance] {
		if control.Phase(r.Events[i].Attr("phase")) == phase {
			return i
		}
	}
	return -1
}

// activeAt reports whether the unit was active when event i happened.
func (m *member) activeAt(i int) bool {
	active := false
	for _, c := range m.units {
		if c.at > i {
			break
		}
		active = c.active
	}
	return active
}
