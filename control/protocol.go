// Package control is the protocol between an operator and the daemons, and its
// two ends: the [Daemon] that every host runs and the [Dispatcher] that
// broadcasts an op and collects what became of it.
//
// # The protocol
//
// An op is one small JSON object ([Op]) published once on one Redis pub/sub
// channel. Every daemon that is subscribed at that moment decides whether it
// applies, pushes an [Ack] with phase "accepted" on the op's own reply list,
// acts, and pushes another with phase "done". A daemon that refuses pushes one
// with phase "refused" that says which step refused and why.
//
// The one rule: an op reaches live subscribers only and is never replayed to a
// service that was down. Nothing retries a publish, an op carries its own
// expiry, and a daemon refuses an op that was issued before it was listening.
// All times are Redis TIME ([fleet.Time]); hosts' clocks do not matter.
//
// Gateways, which hold the live chat connection, restart last: they wait for
// the publisher's release (see [Dispatcher]) and fall back on the op's gateway
// deadline when the publisher died.
package control

import (
	"encoding/json"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// Limits of the protocol.
const (
	Version     = 1        // of ops and acks; N and N−1 are understood
	MaxOpBytes  = 16 << 10 // a larger message is not decoded
	MaxOpDepth  = 8        // of nested JSON values
	MaxOpLife   = 120 * time.Second
	OpIDLength  = 26        // a ULID
	ReplyLife   = time.Hour // of reply and release keys
	SeenLife    = 10 * time.Minute
	SelfLife    = 15 * time.Minute
	PulledLife  = 10 * time.Minute
	ReleasePoll = 500 * time.Millisecond
	ReleaseLife = time.Hour
)

// Op is what an operator broadcasts.
type Op struct {
	V           int        `json:"v"`
	ID          string     `json:"id"` // ULID
	Op          string     `json:"op"` // restart, pull, update, ping
	Target      string     `json:"target"`
	RequestedBy string     `json:"requested_by"`
	TraceID     string     `json:"trace_id,omitempty"`
	IssuedAt    fleet.Time `json:"issued_at"`
	ExpiresAt   fleet.Time `json:"expires_at"`
	Args        Args       `json:"args"`

	// Auth is the signature envelope, kept as received: checking it is a step
	// of the daemon's order of decisions.
	Auth json.RawMessage `json:"auth,omitempty"`

	// Legacy marks an op of the original system's shape (no v, id or times);
	// ReplyKey is then where it wants its text answer.
	Legacy   bool   `json:"-"`
	ReplyKey string `json:"-"`
	// ReplyField is set by the publisher of an op that legacy peers should obey
	// too: Encode then writes ReplyKey under this name.
	ReplyField string `json:"-"`
}

// Args are an op's parameters. All are optional.
type Args struct {
	// GatewayDeadline is when a gateway restarts although no release came: the
	// publisher must be dead by then.
	GatewayDeadline fleet.Time `json:"gateway_deadline,omitempty"`
	// Revision pins a pull or an update to one commit.
	Revision string `json:"revision,omitempty"`
	// Backward permits a Revision that is behind HEAD.
	Backward bool `json:"backward,omitempty"`
	// Last is the instance that publishes this op by itself, if the op
	// restarts it: it waits until the release says "last" (or "abort"), which
	// is when the publisher has collected and reported everything else.
	Last string `json:"last,omitempty"`
	// IncludeFailed restarts failed units as well as active ones.
	IncludeFailed bool `json:"include_failed,omitempty"`
}

// What a release key says.
const (
	releaseGo    = "go"    // every instance that is no gateway is done, or past its deadline: gateways restart
	releaseLast  = "last"  // as "go", and the instance of Args.Last restarts, too
	releaseAbort = "abort" // the op was stopped: what waits does not restart
)

// Phase says how far an instance has come with an op.
type Phase string

const (
	Accepted Phase = "accepted" // will act; a "done" follows
	Done     Phase = "done"     // final
	Refused  Phase = "refused"  // final, and nothing was done
)

// Status says what an ack means; see [Status.Class].
type Status string

const (
	OK      Status = "ok"
	Joined  Status = "joined"  // another local service pulled; Revision is its
	Skipped Status = "skipped" // nothing to do: stopped, or observe mode
	Failed  Status = "failed"
	Pending Status = "pending" // accepted, or the unit's job is still running at the deadline

	Busy         Status = "busy" // queue full, or a pull of the checkout is running
	Expired      Status = "expired"
	TooOld       Status = "too_old" // issued before this daemon was listening
	Skew         Status = "skew"    // a signature's time against the host's clock, or an op from the future
	InCooldown   Status = "cooldown"
	Denied       Status = "denied" // by signature or policy
	Held         Status = "held"
	WrongVersion Status = "version"
	Duplicate    Status = "duplicate"
)

// Reason says why an instance was skipped.
type Reason string

const (
	ReasonFailed     Reason = "failed" // the unit has failed, and neither it was named nor failed ones were asked for
	ReasonStopped    Reason = "stopped"
	ReasonObserve    Reason = "observe"
	ReasonNoCheckout Reason = "no_checkout" // nothing to pull
	ReasonAborted    Reason = "aborted"     // the release said abort
)

// Ack is what a daemon answers for one instance.
type Ack struct {
	ID           string     `json:"id"` // of the op
	Instance     string     `json:"instance"`
	Host         string     `json:"host"`
	Phase        Phase      `json:"phase"`
	Status       Status     `json:"status"`
	Detail       string     `json:"detail,omitempty"`   // one line, fit for chat
	Reason       Reason     `json:"reason,omitempty"`   // of a skipped one; an older daemon gives none
	Revision     string     `json:"revision,omitempty"` // HEAD of the checkout afterwards
	InvocationID string     `json:"invocation_id,omitempty"`
	TraceID      string     `json:"trace_id,omitempty"`
	At           fleet.Time `json:"at"`

	// Version of the answering sgfleet, on a ping's ack.
	Version string `json:"version,omitempty"`
	// Journal holds the unit's last journal lines after a failed restart,
	// capped.
	Journal []string `json:"journal,omitempty"`
}

// Identity is who and where this process is, and its only source of
// randomness and wall time. The simulator fills it from the seed.
type Identity struct {
	Host         string // operating system's hostname
	PID          int
	MachineID    string
	BootID       string
	InvocationID string           // of the process's own systemd unit, "" outside one
	Token        func() string    // random, at least 128 bits, [0-9a-z]; safe for concurrent use
	Wall         func() time.Time // only to judge a signature's age
}
