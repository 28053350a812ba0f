package sim

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is one thing that happened in a run. A run's events, one JSON object a
// line (events.jsonl), are the source of every report and the only thing an
// invariant reads.
type Event struct {
	Seq      int               `json:"seq"`                // 1, 2, … in the order of the finished trace
	T        time.Duration     `json:"t"`                  // since the start of the run, in nanoseconds
	Actor    string            `json:"actor"`              // who: a process (host-001, web@host-001, operator/p1), redis, systemd@HOST, chaos, sim
	Kind     string            `json:"kind"`               // one of the Ev… constants
	Op       string            `json:"op,omitempty"`       // the scenario's name of the op, or its id when the scenario did not publish it
	Host     string            `json:"host,omitempty"`     // host it happened on or to
	Instance string            `json:"instance,omitempty"` // service@host
	Detail   string            `json:"detail,omitempty"`   // one line for people
	Attrs    map[string]string `json:"attrs,omitempty"`    // the kind's own facts; encoded in key order
	Cause    int               `json:"cause,omitempty"`    // Seq of the event that led to this one
}

// Attr returns attribute k, "" when it is not set.
func (e Event) Attr(k string) string { return e.Attrs[k] }

// The kinds of events. The attributes that each carries are listed behind it;
// a list is comma separated, a time in µs is Redis TIME as in the protocol.
const (
	// The run and its faults.
	EvRunStarted = "run_started" // seed, hosts, services
	EvRunEnded   = "run_ended"
	EvSettle     = "settle"   // every fault has been healed
	EvFault      = "fault"    // action, and the action's arguments
	EvHealed     = "healed"   // action; its Cause is the fault
	EvNote       = "note"     // something an action did that is no fault
	EvLog        = "log"      // level: a warning or error that production code logged
	EvInternal   = "internal" // an error of the simulator itself; the run's verdict is void
	EvAssert     = "assert"   // ok (true or false), what

	// Who exists: one per instance at the start, and when a host joins.
	EvMember = "member" // tier, unit, checkout, process, state, revision, done_timeout_ms
	EvJoin   = "join"   // Host: it was not there at the start
	EvLeave  = "leave"  // Host: gone for good
	EvState  = "state"  // at the end, one per instance: active (systemd's state), subscribed (true, false), running (revision), head (of its checkout), process, daemon (up, down), invocation

	// Processes. Actor is the process; Instance only when it is embedded.
	EvBoot   = "boot"   // invocation, instances (list that it serves)
	EvReady  = "ready"  // the daemon says that it is subscribed
	EvCrash  = "crash"  // how (crash, power, killed): no clean-up ran
	EvExit   = "exit"   // why: it ended in an orderly way, error when Run returned one
	EvFrozen = "frozen" // by a freeze
	EvThawed = "thawed"

	// Redis, as the server sees it (in real time: as the clients see it).
	// Actor is the process at the other end.
	EvSubscribed   = "subscribed"    // channel: Redis confirmed
	EvUnsubscribed = "unsubscribed"  // channel, why: the subscribed connection is gone
	EvPublish      = "publish"       // id, op, target, issued, expires (µs), gateway_deadline (µs), gateway_deadline_ms (since the start of the run), receivers, bytes, expected (instances the target selects), live (those of them that are active and whose process is subscribed), raw (true when it is no op)
	EvDelivered    = "delivered"     // id: the op reached the process's connection; raw as above
	EvAck          = "ack"           // id, phase, status, detail, revision, invocation, first (true for the first of its phase), text (true for a legacy answer)
	EvLock         = "lock"          // key, value, ttl_ms (−1: none), path: a pull lock was taken
	EvUnlock       = "unlock"        // key, value (whose lock it was), path: a pull lock was deleted by Actor
	EvLockExpired  = "lock_expired"  // key, value, path
	EvKeyNoTTL     = "key_no_ttl"    // key, cmd: a reply, release, seen, self, pull or pulled key that has no life after the command (or MULTI) that wrote it
	EvRelease      = "release"       // value (go, abort)
	EvHeartbeat    = "heartbeat"     // state, subscribed: only the first and each change
	EvKeyLeft      = "key_left"      // at the end, a key that must have a life and has none: key, type, ttl_ms (−1)
	EvRedis        = "redis"         // what: down, up, failover, flushed, readonly, oom, stalled, writable, resumed
	EvLinkDown     = "link_down"     // link, why: cut, output_buffer, …
	EvCommand      = "redis_command" // link, cmd: only when Options.Commands is set

	// systemd. Actor is systemd@HOST.
	EvRestartQueued   = "restart_queued"   // unit, process (that asked), self (true when it is its own unit), invocation (old), merged
	EvUnitStopped     = "unit_stopped"     // unit, invocation, why (restart, stop, crash, died), state (inactive, failed)
	EvUnitStarted     = "unit_started"     // unit, invocation, revision (HEAD at that moment), why (restart, start, boot, auto)
	EvUnitActive      = "unit_active"      // unit, invocation, revision, why, down_ms: systemd calls it active
	EvUnitFailed      = "unit_failed"      // unit, result
	EvRestartFinished = "restart_finished" // unit, result (of the job), invocation (new), active
	EvStartLimit      = "start_limit"      // unit: systemd stopped a service because it was started too often

	// git and the checkout. Actor is the process; path is the checkout.
	EvFlock       = "flock"        // path, mode (shared, exclusive)
	EvFunlock     = "funlock"      // path, mode, why (unlock, orphan_ended, crash)
	EvPullStarted = "pull_started" // path, old, next, by (instance): the marker was written
	EvPullEnded   = "pull_ended"   // path, old, new, ok, by: the marker was removed (or, with ok=false, the process died)
	EvGit         = "git"          // path, argv, exit, ms: a git command that touches remote or tree ended
	EvRevision    = "revision"     // path, old, new: HEAD moved
	EvTorn        = "tree_torn"    // path: git was killed while it changed the tree
	EvMended      = "tree_mended"  // path
	EvAfterPull   = "after_pull"   // path, exit
	EvPush        = "push"         // path ("*": every remote), revision: somebody pushed a commit

	// The operator and the chat.
	EvDispatch = "dispatch" // op, target, by: a dispatcher started
	EvSend     = "send"     // Detail: a line that the dispatcher sent to the chat
	EvReport   = "report"   // exit, duration_ms, ok, failed, refused, unfinished, silent (lists of instances)
	EvVerdict  = "verdict"  // class, status, phase, detail, revision: what the report says of one Instance
	EvNoReport = "no_report"
	EvSay      = "say" // known (true, false): a chat line
)

// eventKinds are all of them.
var eventKinds = []string{
	EvRunStarted, EvRunEnded, EvSettle, EvFault, EvHealed, EvNote, EvLog, EvInternal, EvAssert, EvMember,
	EvJoin, EvLeave, EvState, EvBoot, EvReady, EvCrash, EvExit, EvFrozen, EvThawed, EvSubscribed,
	EvUnsubscribed, EvPublish, EvDelivered, EvAck, EvLock, EvUnlock, EvLockExpired, EvKeyNoTTL, EvRelease,
	EvHeartbeat, EvKeyLeft, EvRedis, EvLinkDown, EvCommand, EvRestartQueued, EvUnitStopped, EvUnitStarted,
	EvUnitActive, EvUnitFailed, EvRestartFinished, EvStartLimit, EvFlock, EvFunlock, EvPullStarted, EvPullEnded,
	EvGit, EvRevision, EvTorn, EvMended, EvAfterPull, EvPush, EvDispatch, EvSend, EvReport, EvVerdict,
	EvNoReport, EvSay,
}

// Ref names a recorded event while the run goes on, to be given as the cause
// of a later one. The zero Ref is none.
type Ref int

// Trace collects a run's events. It is safe for concurrent use.
type Trace struct {
	mu     sync.Mutex
	start  time.Time
	events []traced
	sealed bool
	onward func(Event)
}

type traced struct {
	Event
	cause Ref
}

// NewTrace starts a trace whose events count their time from now. onward, when
// not nil, is called with every event as it is recorded; Seq and Cause of such
// an event number the order of recording, which is not yet the final one.
func NewTrace(onward func(Event)) *Trace { return &Trace{start: time.Now(), onward: onward} }

// Now is the time since the start of the run.
func (t *Trace) Now() time.Duration { return time.Since(t.start) }

// Add records e at the present instant. Events after [Trace.Seal] are dropped.
func (t *Trace) Add(e Event, cause Ref) Ref {
	t.mu.Lock()
	if t.sealed {
		t.mu.Unlock()
		return 0
	}
	e.T = time.Since(t.start)
	t.events = append(t.events, traced{e, cause})
	ref := Ref(len(t.events))
	t.mu.Unlock()
	if t.onward != nil {
		e.Seq, e.Cause = int(ref), int(cause)
		t.onward(e)
	}
	return ref
}

// Seal ends the recording and returns the log in its final order: time, actor,
// and for what one actor did at one instant its content, since several of a
// process's goroutines may have been at work. systemd, git and the other parts
// of the world do one thing after the other: theirs stay in order.
func (t *Trace) Seal() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealed = true
	order := make([]int, len(t.events))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &t.events[i].Event, &t.events[j].Event
		if c := cmp.Or(cmp.Compare(a.T, b.T), cmp.Compare(a.Actor, b.Actor)); c != 0 || a.byWorld() {
			return c
		}
		return cmp.Or(cmp.Compare(kindOrder[a.Kind], kindOrder[b.Kind]), cmp.Compare(a.content(), b.content()))
	})
	seq := make([]int, len(order)+1)
	for to, from := range order {
		seq[from+1] = to + 1
	}
	events := make([]Event, len(order))
	for to, from := range order {
		events[to] = t.events[from].Event
		events[to].Seq, events[to].Cause = to+1, seq[t.events[from].cause]
	}
	return events
}

// kindOrder puts the ends of one thing before the beginnings of the next.
var kindOrder = map[string]int{EvPullEnded: -3, EvUnlock: -2, EvFunlock: -1}

// byWorld says that e was done by a part of the world that does one thing after
// the other.
func (e Event) byWorld() bool {
	name, _, at := strings.Cut(e.Actor, "@")
	return at && (name == "systemd" || name == "git") || !at && (name == "sim" || name == "redis" || name == "remote")
}

// content is everything of e but time and actor, as text to sort by.
func (e Event) content() string {
	b, _ := json.Marshal(e.Attrs) // a map of strings always encodes
	return e.Kind + "\x00" + e.Op + "\x00" + e.Host + "\x00" + e.Instance + "\x00" + e.Detail + "\x00" + string(b)
}

// WriteEvents writes a log as events.jsonl.
func WriteEvents(w io.Writer, events []Event) error {
	bw := bufio.NewWriter(w)
	enc := json.NewEncoder(bw)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("writing event %d: %w", e.Seq, err)
		}
	}
	return bw.Flush()
}

// ReadEvents reads events.jsonl.
func ReadEvents(r io.Reader) ([]Event, error) {
	dec := json.NewDecoder(r)
	var events []Event
	for {
		var e Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
}
