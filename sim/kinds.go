package sim

// The kinds of event in a run's log, by who writes them. The log is the only
// thing that reports and invariants look at, so these names and attributes are
// the contract between the world, which writes what really happened, and the
// judges, which never see the world itself.
//
// Host, Instance and Op are fields of the event where they apply; Op is the
// scenario's own name of the op (publish: {id: p1}) where it has one, the op id
// otherwise. Attributes are listed after each kind.
const (
	// Who exists. One per instance at the start, and for a late one when it
	// joins.
	KindMember = "member" // tier, unit, checkout, process, state (active, inactive, failed), revision
	KindLeave  = "leave"  // the instance is decommissioned and no longer expected

	// Processes: a host daemon ("host-001"), or a service that embeds one
	// ("api@host-001").
	KindProcessStart = "process_start" // invocation; instances: comma list it serves
	KindProcessStop  = "process_stop"  // ended in an orderly way
	KindProcessCrash = "process_crash" // ended without clean-up; why
	KindSubscribed   = "subscribed"    // Redis has confirmed the subscription; channel
	KindUnsubscribed = "unsubscribed"  // the subscription's connection is gone; channel
	KindPanic        = "panic"         // a panic in production code; detail has the stack

	// systemd. A unit's start is the moment at which its service lives.
	KindUnitActive    = "unit_active"    // invocation, revision (HEAD at that moment), why (boot, restart, auto, recover)
	KindUnitDown      = "unit_down"      // why (restart, crash, fault, stop), state (inactive, failed)
	KindRestartQueued = "restart_queued" // production code asked for a restart; unit, process, invocation (old), self (true or absent)
	KindRestartEnded  = "restart_ended"  // unit, result (done, failed, canceled, timeout, …)

	// git. One pull of production code is a marker, a fetch, a merge.
	KindFetchBegin = "fetch_begin" // checkout, process
	KindFetchEnd   = "fetch_end"   // checkout, process, ok
	KindMerge      = "merge"       // checkout, process, old, new, ok
	KindGitKilled  = "git_killed"  // checkout, process: an orphan, or ended by a signal
	KindMarkerSet  = "marker_set"  // checkout, by, old, next; Op
	KindMarkerGone = "marker_gone" // checkout
	KindFlockTaken = "flock_taken" // checkout, process, mode (shared, exclusive)
	KindFlockFreed = "flock_freed" // checkout, process
	KindPush       = "push"        // a new revision at the remote; checkout, revision

	// Redis, as the server saw it.
	KindLockTaken    = "lock_taken"    // key, value, life ("" when it has none), process
	KindLockExtended = "lock_extended" // key, value, life, process
	KindLockFreed    = "lock_freed"    // key, value (whose it was), process (who deleted it)
	KindLockExpired  = "lock_expired"  // key, value
	KindKeyNoTTL     = "key_no_ttl"    // key, process, command: a reply, release, seen, self, pull or pulled key that has no life after the command (or MULTI) ended
	KindPublished    = "published"     // Op; process, receivers, bytes: PUBLISH reached the server
	KindDelivered    = "delivered"     // Op; process, Instance empty: the message reached a subscriber
	KindAck          = "ack"           // Op, Instance; phase, status, detail, revision, invocation, process: an ack arrived in the reply list
	KindRelease      = "release"       // Op; value (go, abort), process
	KindHeartbeat    = "heartbeat"     // Instance; state. Only the first and each change of state
	KindRedis        = "redis"         // detail: up, down, flushed, failed over, readonly, oom, stalled, …
	KindCommand      = "command"       // process, link, argv: every command, only in the determinism log
	KindRejected     = "rejected"      // Op (may be ""); process, reason: a daemon dropped a message without an ack

	// The operator and the chat gateway.
	KindDispatch = "dispatch"  // Op; op (restart, pull, …), target, by, expected (comma list), live (comma list of instances subscribed and active at this moment), down (those that are not)
	KindSay      = "say"       // a chat line in; detail
	KindSent     = "sent"      // a line that the dispatcher sent; detail
	KindReport   = "report"    // Op; exit, duration, and one attribute per class (ok, failed, refused, unfinished, silent): comma list of instances
	KindNoReport = "no_report" // Op; why: the dispatcher returned an error, or was killed

	// Faults, for the shading of timelines. Cause of an end is its begin.
	KindFaultBegin = "fault_begin" // action, detail
	KindFaultEnd   = "fault_end"   // action
	KindHealed     = "healed"      // every fault has been lifted, the settle time begins
	KindEnd        = "end"         // horizon; the final state follows in state events
	KindState      = "state"       // Instance; active, subscribed (true or false), revision (running), head (of its checkout), daemon (up, down)
	KindLog        = "log"         // a log line of production code; level, detail

	// Added by the judges.
	KindViolation = "violation" // invariant, detail
)
