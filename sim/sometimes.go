package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// conditions are what a scenario may ask to have happened in at least one of
// its seeds: a check that its story really takes place.
var conditions = map[string]func(r *Record) bool{
	"lock_holder_died": func(r *Record) bool {
		return r.heldLock(func(i int) bool { return r.Events[i].Kind == EvCrash }, true)
	},
	"lock_expired_while_held": func(r *Record) bool {
		for i, e := range r.Events {
			if e.Kind == EvLockExpired {
				owner, _, _ := strings.Cut(e.Attr("value"), ":")
				if r.runningPull(e.Attr("path"), e.Host, owner, i) != nil {
					return true
				}
			}
		}
		return false
	},
	"lock_contended": func(r *Record) bool { return r.anyAck(control.Joined) },
	"redis_down_during_op": func(r *Record) bool {
		return r.duringOp(func(e Event) bool { return e.Kind == EvRedis && e.Attr("what") == "down" })
	},
	"failover_during_op": func(r *Record) bool {
		return r.duringOp(func(e Event) bool { return e.Kind == EvRedis && e.Attr("what") == "failover" })
	},
	"daemon_died_during_op":   func(r *Record) bool { return r.duringOp(func(e Event) bool { return e.Kind == EvCrash }) },
	"unsubscribed_at_publish": func(r *Record) bool { return judgeNoReplay(r, nil).Armed > 0 },
	"released_by_publisher":   func(r *Record) bool { return r.any(EvRelease) },
	"released_by_deadline":    gatewayByDeadline,
	"somebody_silent":         func(r *Record) bool { return r.reportHas("silent") },
	"somebody_failed":         func(r *Record) bool { return r.reportHas("failed") },
	"somebody_refused":        func(r *Record) bool { return r.reportHas("refused") },
	"restart_waited_for_pull": restartWaited,
	"tree_torn":               func(r *Record) bool { return r.any(EvTorn) },
	"tree_mended":             func(r *Record) bool { return r.any(EvMended) },
	"report_missing":          func(r *Record) bool { return r.any(EvNoReport) },
}

// Conditions lists the named ones.
func Conditions() []string { return slices.Sorted(maps.Keys(conditions)) }

// ackStatuses are what "ack STATUS" may name.
var ackStatuses = []string{
	string(control.OK), string(control.Joined), string(control.Skipped), string(control.Failed), string(control.Pending), string(control.Busy),
	string(control.Expired), string(control.TooOld), string(control.Skew), string(control.InCooldown), string(control.Denied),
	string(control.Held), string(control.WrongVersion), string(control.Duplicate),
}

// checkSometimes says what is wrong, and what to write instead, when s is no
// condition: a named one, "ack STATUS" or "event KIND".
func checkSometimes(s string) (message, hint string) {
	if _, ok := conditions[s]; ok {
		return "", ""
	}
	switch word, rest, _ := strings.Cut(s, " "); {
	case word == "ack" && rest != "":
		if slices.Contains(ackStatuses, rest) {
			return "", ""
		}
		return fmt.Sprintf("no ack has the status %q", rest), cmp.Or(fleet.DidYouMean(rest, ackStatuses), "known: "+strings.Join(ackStatuses, ", "))
	case word == "event" && rest != "":
		if slices.Contains(eventKinds, rest) {
			return "", ""
		}
		return fmt.Sprintf("no event is of the kind %q", rest), cmp.Or(fleet.DidYouMean(rest, eventKinds), "known: "+strings.Join(eventKinds, ", "))
	}
	return fmt.Sprintf("no condition is called %q", s), nearestOrList(s, Conditions(), "conditions")
}

func happened(r *Record, s string) bool {
	if c, ok := conditions[s]; ok {
		return c(r)
	}
	if status, ok := strings.CutPrefix(s, "ack "); ok {
		return r.anyAck(control.Status(status))
	}
	kind, _ := strings.CutPrefix(s, "event ")
	return r.any(kind)
}

func (r *Record) any(kind string) bool {
	return slices.ContainsFunc(r.Events, func(e Event) bool { return e.Kind == kind })
}

func (r *Record) anyAck(s control.Status) bool {
	return slices.ContainsFunc(r.Events, func(e Event) bool { return e.Kind == EvAck && e.Attr("status") == string(s) })
}

func (r *Record) reportHas(class string) bool {
	return slices.ContainsFunc(r.Events, func(e Event) bool { return e.Kind == EvReport && e.Attr(class) != "" })
}

// duringOp reports whether something happened while an op was in flight.
func (r *Record) duringOp(what func(Event) bool) bool {
	for _, o := range r.ops {
		if o.published() < 0 {
			continue
		}
		to := len(r.Events)
		if o.report >= 0 {
			to = o.report
		}
		if slices.ContainsFunc(r.Events[o.published():to], what) {
			return true
		}
	}
	return false
}

// heldLock reports whether what happened to the process that held a pull lock
// at that moment.
func (r *Record) heldLock(what func(i int) bool, byOwner bool) bool {
	held := map[string]string{} // key → process
	for i, e := range r.Events {
		switch e.Kind {
		case EvLock:
			held[e.Attr("key")] = e.Actor
		case EvUnlock, EvLockExpired:
			delete(held, e.Attr("key"))
		}
		if what(i) {
			for _, p := range held {
				if !byOwner || p == e.Actor {
					return true
				}
			}
		}
	}
	return false
}

func gatewayByDeadline(r *Record) bool {
	for _, rs := range r.restarts {
		m := r.members[rs.instance]
		if m == nil || rs.op == nil || rs.op.published() < 0 || !r.Scenario.Config.IsGateway(m.Tier) {
			continue
		}
		released := slices.ContainsFunc(r.Events[:rs.at], func(e Event) bool { return e.Kind == EvRelease && e.Op == rs.op.name })
		if !released {
			return true
		}
	}
	return false
}

// restartWaited reports whether a restart began in the very second in which the
// pull of its checkout ended.
func restartWaited(r *Record) bool {
	for _, rs := range r.restarts {
		m := r.members[rs.instance]
		if m == nil || m.checkout == "" {
			continue
		}
		for _, p := range r.pulls {
			if p.host == m.Host && p.path == m.checkout && p.end >= 0 && p.end < rs.at && r.at(rs.at)-r.at(p.end) < 1e9 && p.op != rs.op {
				return true
			}
		}
	}
	return false
}
