package control

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Metrics counts what a daemon does. The zero value is ready; one Metrics may
// be shared by several daemons of a process.
type Metrics struct {
	mu     sync.Mutex
	values map[string]int64 // by full name, labels included
}

// The names of the counters. Each reject reason and each status of a final ack
// has its own series.
const (
	metricReceived     = "sgfleet_messages_received_total"
	metricOverflow     = "sgfleet_messages_dropped_total"
	metricRefused      = "sgfleet_ops_refused_total"
	metricDone         = "sgfleet_ops_done_total"
	metricAcksLost     = "sgfleet_acks_lost_total"
	metricSubscribed   = "sgfleet_subscriptions_total"
	metricUnsigned     = "sgfleet_ops_unsigned_total"
	metricHeartbeats   = "sgfleet_heartbeats_total"
	metricHeartbeatErr = "sgfleet_heartbeats_failed_total"
	metricListening    = "sgfleet_subscribed"
)

var metricHelp = map[string]string{
	metricReceived:     "messages received on the control channel",
	metricOverflow:     "messages dropped because too many were waiting to be decided on",
	metricRefused:      "ops refused, by the step that refused them",
	metricDone:         "ops ended, by op and status",
	metricAcksLost:     "acks that redis did not confirm in time",
	metricSubscribed:   "subscriptions confirmed by redis",
	metricUnsigned:     "unsigned ops obeyed because signatures are not enforced",
	metricHeartbeats:   "heartbeats written",
	metricHeartbeatErr: "heartbeats that could not be written",
	metricListening:    "1 while subscribed, 0 while deaf",
}

// Refused is how many ops were refused for reason, each instance counted.
func (m *Metrics) Refused(reason RejectReason) int64 { return m.get(refusedSeries(reason)) }

func refusedSeries(reason RejectReason) string {
	return fmt.Sprintf("%s{reason=%q}", metricRefused, string(reason))
}

func (m *Metrics) refused(reason RejectReason) { m.add(refusedSeries(reason), 1) }

func (m *Metrics) done(op string, status Status) {
	m.add(fmt.Sprintf("%s{op=%q,status=%q}", metricDone, op, string(status)), 1)
}

func (m *Metrics) add(series string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string]int64{}
	}
	m.values[series] += n
}

func (m *Metrics) set(series string, n int64) {
	m.add(series, 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[series] = n
}

func (m *Metrics) get(series string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[series]
}

// WriteText writes every series in the text format that Prometheus reads.
// Reasons that never occurred are there with 0, so that an alert on an
// increase sees the first one.
func (m *Metrics) WriteText(w io.Writer) error {
	for _, r := range RejectReasons {
		m.add(refusedSeries(r), 0)
	}
	m.mu.Lock()
	lines := make([]string, 0, len(m.values))
	for name, v := range m.values {
		lines = append(lines, fmt.Sprintf("%s %d\n", name, v))
	}
	m.mu.Unlock()
	slices.Sort(lines)
	var b strings.Builder
	last := ""
	for _, l := range lines {
		name, _, _ := strings.Cut(l, " ")
		name, _, _ = strings.Cut(name, "{")
		if name != last {
			kind := "counter"
			if name == metricListening {
				kind = "gauge"
			}
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, metricHelp[name], name, kind)
			last = name
		}
		b.WriteString(l)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
