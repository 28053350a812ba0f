package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// answer is one ack on its way to the op's reply list.
type answer struct {
	op   *Op
	ack  Ack
	only bool // no other ack of the instance comes before or after it
}

// insist runs f until it works: on a pooled connection, then on two fresh
// ones, since every pooled connection may be as dead as the first (Redis
// restarted, a firewall forgot them). It gives up after limit, and sooner when
// ctx ends.
//
// f may have taken effect although it failed: a reply can be lost. The last
// real error is returned.
func (c *Client) insist(ctx context.Context, limit time.Duration, f func(context.Context, redis.UniversalClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for try := range 3 {
		err := c.try(ctx, limit/time.Duration(4-try), try > 0, f)
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = clusterAdvice(err)
		}
		// A server that is being restarted refuses at once; give it a moment.
		if try == 2 || !sleep(ctx, limit/20*time.Duration(1+4*try)) {
			break
		}
	}
	return last
}

func (c *Client) try(ctx context.Context, limit time.Duration, fresh bool, f func(context.Context, redis.UniversalClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !fresh {
		return f(ctx, c.UniversalClient)
	}
	n := c.fresh()
	defer n.Close()
	return f(ctx, n)
}

// push appends answers to their ops' reply lists, and extra commands with
// them, in one MULTI; it returns once Redis has confirmed it. Every list gets
// its life in the same MULTI, so that none can outlive it.
//
// A lost reply makes the same acks appear twice, which counts once.
func (c *Client) push(ctx context.Context, limit time.Duration, keys fleet.Keys, answers []answer, extra ...func(context.Context, redis.Pipeliner)) error {
	type list struct {
		key    string
		values []any
	}
	var lists []*list
	byKey := map[string]*list{}
	for _, a := range answers {
		key, value, ok := a.encode(keys)
		if !ok {
			continue
		}
		l := byKey[key]
		if l == nil {
			l = &list{key: key}
			byKey[key] = l
			lists = append(lists, l)
		}
		l.values = append(l.values, value)
	}
	if len(lists) == 0 && len(extra) == 0 {
		return nil
	}
	err := c.insist(ctx, limit, func(ctx context.Context, rc redis.UniversalClient) error {
		_, err := rc.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for _, l := range lists {
				p.RPush(ctx, l.key, l.values...)
				p.PExpire(ctx, l.key, ReplyLife)
			}
			for _, f := range extra {
				f(ctx, p)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("pushing %d acks: %w", len(answers), err)
	}
	return nil
}

// encode says where an answer goes and in what form. A legacy op gets one line
// of text per instance, on the reply key that it named, if it did; its
// collector counts lines, so a second one would end it early.
func (a answer) encode(keys fleet.Keys) (key string, value []byte, ok bool) {
	if a.op.Legacy {
		if a.op.ReplyKey == "" || !a.only && !a.legacyLine() {
			return "", nil, false
		}
		return a.op.ReplyKey, []byte(legacyText(a.op.Op, a.ack)), true
	}
	b, err := json.Marshal(a.ack)
	if err != nil { // strings and numbers only
		return "", nil, false
	}
	return keys.Reply(a.op.ID), b, true
}

// legacyLine picks the one ack of an instance that a legacy op is answered
// with: the final one, except that a restart may outlast the collector's
// window and is answered when it is accepted, as the original does.
func (a answer) legacyLine() bool {
	restarts := opSpecs[a.op.Op].Restarts
	switch a.ack.Phase {
	case Accepted:
		return restarts
	case Done:
		return !restarts
	}
	return true
}

// legacyText is the line of text that services of the original system expect
// as an ack.
func legacyText(op string, a Ack) string {
	s := a.Instance + " " + op + ": " + string(a.Status)
	if a.Phase == Accepted {
		s = a.Instance + " " + op + ": accepted"
	}
	if a.Detail != "" {
		s += " (" + a.Detail + ")"
	}
	return s
}
