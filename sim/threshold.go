package sim

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// metric is something that is measured in every run and bounded over all seeds.
type metric struct {
	help    string
	samples func(r *Record) []time.Duration
}

// metrics are what thresholds may bound, written as k6 does: "p(99)<2s".
var metrics = map[string]metric{
	"ack_latency":  {"publish → accepted ack, per instance", ackLatency},
	"op_time":      {"dispatch → report, per op", opTime},
	"restart_time": {"restart asked for → its job's end", restartTime},
	"pull_time":    {"one pull, from marker to marker", pullTime},
	"down_time":    {"a unit not active, per restart", downTime},
	"resubscribe":  {"a subscription lost → subscribed again, per process", resubscribe},
	"gateway_wait": {"publish → restart of a gateway", gatewayWait},
}

func metricNames() []string { return slices.Sorted(maps.Keys(metrics)) }

// threshold is one bound on a metric.
type threshold struct {
	text  string
	stat  string // p, max, min, avg, med
	p     float64
	less  bool
	equal bool
	bound time.Duration
}

var thresholdForm = regexp.MustCompile(`^\s*(p\(\s*([0-9.]+)\s*\)|max|min|avg|med)\s*(<=|>=|<|>)\s*(\S+)\s*$`)

func parseThreshold(metric, s string) (threshold, error) {
	m := thresholdForm.FindStringSubmatch(s)
	if m == nil {
		return threshold{}, fmt.Errorf("%q is no threshold: want p(N), max, min, avg or med, then <, <=, > or >=, then a time", s)
	}
	t := threshold{text: s, stat: m[1], less: m[3][0] == '<', equal: len(m[3]) == 2}
	if m[2] != "" {
		p, err := strconv.ParseFloat(m[2], 64)
		if err != nil || p < 0 || p > 100 {
			return t, fmt.Errorf("%q: %s is no percentile", s, m[2])
		}
		t.stat, t.p = "p", p
	}
	d, err := time.ParseDuration(m[4])
	if err != nil {
		return t, fmt.Errorf("%q: %s is measured in time, and %q is none (2s, 500ms)", s, metric, m[4])
	}
	t.bound = d
	return t, nil
}

// value computes the threshold's statistic of samples.
func (t threshold) value(samples []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(samples))
	switch t.stat {
	case "max":
		return s[len(s)-1]
	case "min":
		return s[0]
	case "med":
		return quantile(s, 50)
	case "avg":
		sum := time.Duration(0)
		for _, d := range s {
			sum += d
		}
		return sum / time.Duration(len(s))
	}
	return quantile(s, t.p)
}

func (t threshold) holds(v time.Duration) bool {
	switch {
	case t.equal && v == t.bound:
		return true
	case t.less:
		return v < t.bound
	}
	return v > t.bound
}

// quantile of sorted samples, by nearest rank.
func quantile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
}

func ackLatency(r *Record) (out []time.Duration) {
	for _, o := range r.ops {
		for _, name := range r.names {
			if i := r.accepted(o, name); i >= 0 && o.published() >= 0 {
				out = append(out, r.at(i)-r.at(o.published()))
			}
		}
	}
	return out
}

func opTime(r *Record) (out []time.Duration) {
	for _, o := range r.ops {
		if o.dispatch >= 0 && o.report >= 0 {
			out = append(out, r.at(o.report)-r.at(o.dispatch))
		}
	}
	return out
}

func restartTime(r *Record) (out []time.Duration) {
	for _, rs := range r.restarts {
		if rs.done >= 0 {
			out = append(out, r.at(rs.done)-r.at(rs.at))
		}
	}
	return out
}

func pullTime(r *Record) (out []time.Duration) {
	for _, p := range r.pulls {
		if p.end >= 0 {
			out = append(out, r.at(p.end)-r.at(p.start))
		}
	}
	return out
}

func downTime(r *Record) (out []time.Duration) {
	for _, name := range r.names {
		down := -1
		for _, u := range r.members[name].units {
			switch {
			case !u.active && down < 0:
				down = u.at
			case u.active && down >= 0:
				out = append(out, r.at(u.at)-r.at(down))
				down = -1
			}
		}
	}
	return out
}

func resubscribe(r *Record) (out []time.Duration) {
	lost := map[string]int{}
	for i, e := range r.Events {
		switch e.Kind {
		case EvUnsubscribed:
			if _, ok := lost[e.Actor]; !ok {
				lost[e.Actor] = i
			}
		case EvSubscribed:
			if at, ok := lost[e.Actor]; ok {
				out = append(out, e.T-r.at(at))
				delete(lost, e.Actor)
			}
		case EvCrash, EvExit:
			delete(lost, e.Actor)
		}
	}
	return out
}

func gatewayWait(r *Record) (out []time.Duration) {
	for _, rs := range r.restarts {
		if m := r.members[rs.instance]; m != nil && rs.op != nil && rs.op.published() >= 0 && r.Scenario.Config.IsGateway(m.Tier) {
			out = append(out, r.at(rs.at)-r.at(rs.op.published()))
		}
	}
	return out
}

// Metrics lists the metrics that thresholds may bound: name and meaning.
func Metrics() [][2]string {
	var out [][2]string
	for _, name := range metricNames() {
		out = append(out, [2]string{name, metrics[name].help})
	}
	return out
}
