package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// release is what a gateway is told about an op.
type release int

const (
	released release = iota // restart now: all others are done, or the publisher is dead
	aborted                 // the op was stopped
	unknown                 // Redis could not be asked, for too long
	stopped                 // the daemon stops
)

// awaitRelease keeps a gateway from restarting before everything else is done.
// The publisher's word is polled for; at the op's gateway deadline its absence
// means that the publisher has died. Absent is not unreachable: without an
// answer from Redis a gateway goes on asking for a while and then stays as it
// is, for the word may be abort.
func (r *run) awaitRelease(ctx context.Context, j *job) (release, string) {
	last := j.op.Args.Last == j.inst.name
	deadline := j.op.Args.GatewayDeadline
	switch {
	case j.op.Legacy:
		// The original's publisher writes no release; its collection is over
		// when its window is.
		deadline = j.op.IssuedAt.Add(r.Config.ControlReplyTimeout.D())
	case deadline == 0:
		deadline = j.op.IssuedAt.Add(r.Config.ControlReplyTimeout.D() + r.Config.GatewayGrace.D())
	}
	if last {
		// The publisher is this very process: it is alive, and waits for the
		// other gateways, too.
		deadline = deadline.Add(lastWait)
	}
	wait := hashDuration(ReleasePoll, j.inst.name, j.op.ID)
	for {
		if !sleep(ctx, wait) {
			return stopped, ""
		}
		wait = ReleasePoll
		word, err := r.releaseWord(ctx, j.op.ID)
		now := r.clock.now()
		switch {
		case word == releaseGo && !last, word == releaseLast:
			return released, ""
		case word == releaseAbort:
			return aborted, "the op was stopped by its publisher"
		case now < deadline || ctx.Err() != nil:
		case err == nil:
			r.log.Warn("no release at the deadline, the publisher must be dead; restarting", "op", j.op.ID, "instance", j.inst.name)
			return released, ""
		case now >= deadline.Add(r.Config.GatewayGrace.D()):
			return unknown, fmt.Sprintf("redis could not be asked whether the op was released: %v", err)
		}
	}
}

// waits reports whether an instance must be released before it restarts.
func (r *run) waits(j *job) bool {
	return opSpecs[j.op.Op].Restarts && (r.Config.IsGateway(j.inst.Tier) || j.op.Args.Last == j.inst.name)
}

// lastWait is what the instance that publishes an op by itself waits beyond the
// other gateways' deadline: for them to restart, as long as that may take.
const lastWait = 15 * time.Minute

func (r *run) releaseWord(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	word, err := r.Client.Get(ctx, r.keys.Release(id)).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return word, err
}
