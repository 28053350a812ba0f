package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// afterwards bounds each command that is sent when the collection is over, and
// so also when the operator has cancelled it.
const afterwards = 2 * time.Second

// writeRelease tells the gateways to go or to stay; what was written first
// stands. One that fails is tried again with the next step: whether its reply
// or the command itself was lost, the value is the same.
func (c *collector) writeRelease(ctx context.Context, what string) {
	key := c.d.Config.Keys().Release(c.id)
	ok, err := c.d.Client.SetNX(ctx, key, what, ReleaseLife).Result()
	if err == nil && !ok {
		what, err = c.d.Client.Get(ctx, key).Result()
	}
	if err != nil {
		if !errors.Is(err, redis.Nil) {
			c.d.log().Warn("the release could not be written, trying again", "op", c.id, "release", what, "err", err)
		}
		return
	}
	c.release, c.releasedAt = what, time.Now()
	if err := c.d.recordDecision(ctx, c.id, what); err != nil {
		c.d.log().Warn("the history could not be written", "op", c.id, "err", err)
	}
	c.watch(Update{Kind: UpdateReleased, Release: what})
}

// cutShort ends a collection before its time: gateways that still wait are
// told not to restart.
func (c *collector) cutShort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	c.cut = true
	waits := false
	for _, e := range c.entries {
		waits = waits || e.Gateway || c.isLast(e)
	}
	if !waits || c.release != "" {
		return
	}
	if c.writeRelease(ctx, releaseAbort); c.release == "" {
		c.notef("the gateways could not be told to stay: they restart at %s (Redis time)", c.gatewayDeadline.Time().Format(time.TimeOnly))
	}
}

// restartSelf lets the instance that this process is restart, now that
// everything else is over and reported. Its word releases every gateway, so it
// is not said while others may be at it: the collection was cut short and the
// abort could not be written, or nobody waited for the outcome. It restarts at
// its own deadline then.
func (c *collector) restartSelf(ctx context.Context) {
	e := c.byName[c.d.Self]
	if e == nil || !c.isLast(e) || e.accepted == nil || e.final() || c.release == releaseAbort {
		return
	}
	if c.release == "" && (c.cut || c.req.NoWait && c.gatewaysWait()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if err := c.d.Client.Set(ctx, c.d.Config.Keys().Release(c.id), releaseLast, ReleaseLife).Err(); err != nil {
		c.d.log().Warn("this instance's own release could not be written; it restarts at its own deadline", "op", c.id, "err", err)
	}
}

// gatewaysWait reports whether the op makes gateways wait, this process included.
func (c *collector) gatewaysWait() bool {
	return slices.ContainsFunc(c.entries, func(e *entry) bool { return e.Gateway })
}
