package fleet

import "time"

// Heartbeat is what a daemon says about one instance, every
// heartbeat interval, in the hash [Keys.Live]. An entry has no life of its own:
// one that is older than three intervals is DOWN and still expected.
type Heartbeat struct {
	Instance     string `json:"instance"`
	Service      string `json:"service"`
	Tier         string `json:"tier"`
	Host         string `json:"host"`
	MachineID    string `json:"machine_id,omitempty"`
	Unit         string `json:"unit"`
	Version      string `json:"version"` // of sgfleet
	PID          int    `json:"pid"`     // of the daemon
	InvocationID string `json:"invocation_id,omitempty"`
	ActiveState  string `json:"active_state,omitempty"` // systemd's: active, inactive, failed, activating, …
	Result       string `json:"result,omitempty"`       // systemd's: success, exit-code, start-limit-hit, …
	NRestarts    int    `json:"n_restarts,omitempty"`

	// RunningRevision is HEAD of the checkout when this invocation began;
	// CheckoutRevision is HEAD now. They differ when a pull is not restarted
	// into yet.
	RunningRevision  string `json:"running_revision,omitempty"`
	Checkout         string `json:"checkout,omitempty"`
	CheckoutRevision string `json:"checkout_revision,omitempty"`

	Started         Time   `json:"started,omitempty"`          // of this invocation
	SubscribedSince Time   `json:"subscribed_since,omitempty"` // zero while deaf
	DeafSince       Time   `json:"deaf_since,omitempty"`
	Held            string `json:"held,omitempty"`     // the hold's reason, "" when not held
	ControlledBy    string `json:"controlled_by"`      // host, self or legacy
	Mode            string `json:"mode"`               // act or observe
	Degraded        string `json:"degraded,omitempty"` // why this instance cannot be trusted to act
	LastOp          string `json:"last_op,omitempty"`  // id

	// DoneTimeoutMS is how long, in milliseconds, a restart of this unit may
	// take before its outcome counts as unfinished: stop timeout + start
	// timeout + 5 s, as the daemon that knows the unit sees it. The publisher
	// computes the gateways' deadline from it.
	DoneTimeoutMS int64 `json:"done_timeout_ms,omitempty"`

	IntervalMS int64 `json:"interval_ms,omitempty"` // heartbeat interval of the sender
	At         Time  `json:"at"`
}

// Member returns the instance and its tier, for matching a target.
func (h Heartbeat) Member() (Member, error) {
	i, err := ParseInstance(h.Instance)
	return Member{Instance: i, Tier: h.Tier}, err
}

// MissedBeats is the number of heartbeat intervals after which an instance
// that has not been heard of counts as DOWN.
const MissedBeats = 3

// MaxHeartbeatInterval is the longest interval that a config may set and that
// a heartbeat is believed to have: DOWN must not take longer to notice than
// anyone waits.
const MaxHeartbeatInterval = 10 * time.Minute

// Down reports whether the instance had missed its heartbeats at Redis time
// now. fallback is the interval assumed when the entry does not carry its own.
func (h Heartbeat) Down(now Time, fallback time.Duration) bool {
	interval := time.Duration(h.IntervalMS) * time.Millisecond
	if interval <= 0 || interval > MaxHeartbeatInterval {
		interval = fallback
	}
	// A failover to a server whose clock is behind leaves entries from its future:
	// a daemon that lives replaces its own within an interval.
	return now.Sub(h.At).Abs() > MissedBeats*interval
}

// Dropped reports whether the daemon of h's host, whose heartbeat is d, lives
// and serves h no longer: it writes all of its entries at once.
func (h Heartbeat) Dropped(d Heartbeat, now Time, fallback time.Duration) bool {
	return h.ControlledBy == ByHost && h.Service != DaemonService && d.Instance == DaemonOf(h.Host) &&
		h.Down(now, fallback) && !d.Down(now, fallback)
}

// DaemonOf is the instance of the host daemon.
func DaemonOf(host string) string { return Instance{Service: DaemonService, Host: host}.String() }

// Hold is a maintenance hold on a target: daemons that match it ack "held".
type Hold struct {
	Target string `json:"target"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	Since  Time   `json:"since"`
	Until  Time   `json:"until,omitempty"` // zero: until unhold
}
