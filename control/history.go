package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// historyLength is about how many entries the history keeps: two or three an op.
const historyLength = 10_000

// The kinds of entries of the history.
const (
	historyOp       = "op"       // about to be published
	historyDecision = "decision" // what the gateways were told
	historyOutcome  = "outcome"  // what it came to
)

// recordOp samples Redis TIME and, in the same round trip, writes op to the
// history. A history that cannot be written does not keep an op from being
// sent.
func (d *Dispatcher) recordOp(ctx context.Context, op Op, expected int) (now fleet.Time, historyErr, err error) {
	args, err := json.Marshal(op.Args)
	if err != nil {
		return 0, nil, fmt.Errorf("encoding the args of op %s: %w", op.ID, err)
	}
	pipe := d.Client.Pipeline()
	add := pipe.XAdd(ctx, d.historyEntry(
		"kind", historyOp, "id", op.ID, "op", op.Op, "target", op.Target,
		"requested_by", op.RequestedBy, "trace_id", op.TraceID,
		"args", string(args), "expected", strconv.Itoa(expected),
	))
	clock := pipe.Time(ctx)
	_, _ = pipe.Exec(ctx) // each command has its own error
	if err := clock.Err(); err != nil {
		return 0, nil, fmt.Errorf("asking Redis for its time: %w", clusterAdvice(err))
	}
	return fleet.TimeOf(clock.Val()), add.Err(), nil
}

// recordDecision writes what the gateways were told.
func (d *Dispatcher) recordDecision(ctx context.Context, id, decision string) error {
	return d.Client.XAdd(ctx, d.historyEntry("kind", historyDecision, "id", id, "decision", decision)).Err()
}

// recordOutcome writes what an op came to. A failure is noted in the report.
func (d *Dispatcher) recordOutcome(ctx context.Context, r *Report) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	missed, _ := json.Marshal(nonNil(r.Missed())) // strings always encode
	err := d.Client.XAdd(ctx, d.historyEntry(
		"kind", historyOutcome, "id", r.ID, "op", r.Op, "target", r.Target, "requested_by", r.RequestedBy,
		"summary", r.Summary, "exit", strconv.Itoa(r.Exit), "took_ms", strconv.FormatInt(r.TookMS, 10),
		"missed", string(missed), "no_wait", strconv.FormatBool(r.NoWait),
	)).Err()
	if err != nil {
		r.notef("the history could not be written: %v", err)
		d.log().Warn("the history could not be written", "op", r.ID, "err", err)
	}
}

func (d *Dispatcher) historyEntry(fields ...string) *redis.XAddArgs {
	values := make([]any, len(fields))
	for i, f := range fields {
		values[i] = f
	}
	return &redis.XAddArgs{Stream: d.Config.Keys().History(), MaxLen: historyLength, Approx: true, Values: values}
}

// PastOp is an op as the history tells it.
type PastOp struct {
	ID, Op, Target, RequestedBy string
	Args                        Args
	// Missed are the instances on which it did not succeed; Finished says that
	// the publisher lived to record them.
	Missed   []string
	Summary  string
	Finished bool
	NoWait   bool // it did not wait for the outcome: Missed leaves out whoever had accepted
}

// ErrNoOp says that the history knows no op of that id.
var ErrNoOp = errors.New("the history knows no such op")

// FindOp looks an op up in the history, newest entries first: what a retry
// starts from.
func (d *Dispatcher) FindOp(ctx context.Context, id string) (PastOp, error) {
	entries, err := d.Client.XRevRangeN(ctx, d.Config.Keys().History(), "+", "-", historyLength).Result()
	if err != nil {
		return PastOp{}, fmt.Errorf("reading the history for op %s: %w", id, err)
	}
	p := PastOp{}
	for _, e := range entries {
		field := func(name string) string { s, _ := e.Values[name].(string); return s }
		if field("id") != id {
			continue
		}
		switch field("kind") {
		case historyOutcome:
			p.Finished, p.Summary, p.NoWait = true, field("summary"), field("no_wait") == "true"
			if err := json.Unmarshal([]byte(field("missed")), &p.Missed); err != nil {
				return PastOp{}, fmt.Errorf("reading the outcome of op %s: %w", id, err)
			}
		case historyOp:
			p.ID, p.Op, p.Target, p.RequestedBy = id, field("op"), field("target"), field("requested_by")
			if err := json.Unmarshal([]byte(field("args")), &p.Args); err != nil {
				return PastOp{}, fmt.Errorf("reading the args of op %s: %w", id, err)
			}
			return p, nil
		}
	}
	return PastOp{}, fmt.Errorf("op %s: %w", id, ErrNoOp)
}
