package mutants

// mutant is one planted bug. No scenario and no file of the simulator knows of
// it.
type mutant struct {
	patch    string // NN-NAME.patch
	scenario string // under scenarios/
	seeds    string // few, on which clean code is green
	check    string // the invariant or expectation that must catch it
	realTime string // scenario in which it must fail against a real redis-server, too
}

var table = []mutant{
	{"01-op-kept-and-read-at-boot", "late-instance", "1..3", "no_replay", "quick-restart"},
	{"02-last-op-again-after-reconnect", "redis-failover-mid-op", "1..3", "at_most_once", ""},
	{"03-publish-retried", "deaf-daemon", "1..3", "at_most_once", "quick-deaf"},
	{"04-restart-before-ack", "self-restart", "1..3", "self_restart_after_ack", ""},
	{"05-final-ack-sent-once", "partition-during-update", "1..3", "one_final_ack", ""},
	{"06-collector-counts-lines", "self-restart", "1..3", "report_matches_truth", ""},
	{"07-reply-list-recreated", "lock-life-runs-out", "1..3", "keys_without_ttl", ""},
	{"08-lock-life-shorter-than-pull", "lock-life-runs-out", "1..3", "pull_overlap", ""},
	{"09-plain-del", "lock-life-runs-out", "1..3", "lock_owner_only", "frozen-holder"},
	{"10-setnx-then-expire", "pull-host-daemon", "1..3", "keys_without_ttl", ""},
	{"11-lock-key-without-host", "pull-host-daemon", "1..3", "pulls", "quick-pull"},
	{"12-next-pull-skipped", "pull-host-daemon", "1..3", "pulls", ""},
	{"13-loser-restarts-at-once", "pull-host-daemon", "1..3", "revision", ""},
	{"14-index-lock-acked-ok", "stale-index-lock", "1..3", "report_matches_truth", ""},
	{"15-gateways-wait-for-acks-only", "gateway-last", "1..3", "gateway_last", ""},
	{"16-dead-entry-waited-for", "down-service-no-replay", "1..3", "finished", ""},
	{"17-no-splay", "gentle-restart", "1..3", "concurrent_restarts", ""},
	{"18-handler-blocks-reader", "answers-while-busy", "1..3", "acks", ""},
	{"19-host-clock", "clock-skew", "1..3", "no_replay", ""},
	{"20-malformed-op-panics", "restart-storm", "1..2", "alive", ""},
	{"21-empty-target-is-all", "mistyped-targets", "1..3", "targets_only", ""},
	{"22-heartbeat-before-subscription", "newcomers", "1..3", "acks", ""},
}
