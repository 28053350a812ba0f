package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// Dispatcher is the operator's end of the protocol. Its fields are set once;
// Dispatch may then be called from several goroutines.
//
// It is the original's dispatch_control_op(redis, config, op, target,
// requested_by, send, trace_id): redis and config are fields here, the rest is
// a [Request] and send.
type Dispatcher struct {
	Config   *fleet.Config
	Client   *Client
	Identity Identity     // only Token is used, for the op's id
	Log      *slog.Logger // nil: nothing is logged

	// Self is the instance that this very process is, when a service (the chat
	// gateway) dispatches ops by itself; empty otherwise. An op that restarts
	// it does so last of all, when the report is sent: see [Args.Last].
	Self string
}

// Dispatch broadcasts an op and collects what becomes of it.
//
// The order: find out who is expected ([Dispatcher.Plan]) → tell the operator
// through send that the op is on its way → sample Redis TIME → publish, once →
// read acks until everybody has answered or is past their deadline, releasing
// the gateways when all others are done → report through send, and return it.
//
// An error with a nil Report means that nothing was published; it is a
// *[NotSentError]. With a Report, the error says that the collection was cut
// short (ctx ended) or that send failed; what became of each instance is in
// the Report, not in the error ([Report.Err] has it).
//
// send may be nil. It gets texts of at most [fleet.MaxChat] bytes, and is called
// by this goroutine only.
func (d *Dispatcher) Dispatch(ctx context.Context, req Request, send func(ctx context.Context, text string) error) (*Report, error) {
	if send == nil {
		send = func(context.Context, string) error { return nil }
	}
	legacy, err := newLegacyPeers(d.Config)
	if err != nil {
		return nil, &NotSentError{ExitUsage, err}
	}
	plan, err := d.Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	op := d.newOp(plan, req)
	if err := checkOutgoing(op); err != nil {
		return nil, err
	}
	if err := send(ctx, plan.ack(op)); err != nil {
		return nil, notSentf(ExitError, "announcing %s %s: %w (nothing was published)", op.Op, op.Target, err)
	}
	c := newCollector(d, plan, req, legacy, op.ID)
	if err := d.publish(ctx, c, op); err != nil {
		return nil, err
	}
	err = c.run(ctx)
	report := c.report(ctx, op)
	d.recordOutcome(ctx, report)
	if trouble := report.Err(); trouble != nil {
		d.log().Warn("op did not succeed everywhere", "op", op.ID, "err", trouble)
	}
	if sendErr := sendAll(context.WithoutCancel(ctx), send, report.Text()); err == nil && sendErr != nil {
		err = fmt.Errorf("sending the report of op %s: %w", op.ID, sendErr)
	}
	c.restartSelf(ctx)
	return report, err
}

func sendAll(ctx context.Context, send func(context.Context, string) error, texts []string) error {
	for _, t := range texts {
		if err := send(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// newOp makes the op but for its times, which are sampled right before it is
// published: the operator's ACK may take a while to be sent.
func (d *Dispatcher) newOp(plan *Plan, req Request) Op {
	op := Op{
		V: Version, ID: newID(plan.Registry.Now, d.Identity.Token()),
		Op: req.Op, Target: plan.Target.String(),
		RequestedBy: cmp.Or(req.RequestedBy, "unknown"), TraceID: req.TraceID, Args: req.Args,
	}
	if plan.broadcast {
		op.ReplyField, op.ReplyKey = d.Config.Legacy.ReplyField, d.Config.Keys().Reply(op.ID)
	}
	op.Args.Last, op.Args.GatewayDeadline = "", 0 // a retry comes with those of the op before
	// A gateway whose publisher waits for no outcome goes by the deadline of all
	// gateways.
	if slices.ContainsFunc(plan.Instances, func(e Expected) bool {
		return e.restarts && e.Instance.String() == d.Self && !(req.NoWait && e.Gateway)
	}) {
		op.Args.Last = d.Self
	}
	return op
}

// checkOutgoing holds an op against what every daemon will hold it against, so
// that a bad argument is an error here and not a refusal by each of them.
func checkOutgoing(op Op) error {
	op.IssuedAt, op.ExpiresAt, op.Args.GatewayDeadline = 1, 2, 0
	if r := checkV1(&op, ""); r != nil {
		return notSentf(ExitUsage, "%s", r.Detail)
	}
	if _, err := op.Encode(); err != nil {
		return &NotSentError{ExitUsage, err}
	}
	return nil
}

// publish samples the time and publishes op, once. An error means that it was
// certainly not published; when the reply is lost that is not certain, and the
// acks will tell.
func (d *Dispatcher) publish(ctx context.Context, c *collector, op Op) error {
	now, historyErr, err := d.recordOp(ctx, op, len(c.plan.Instances))
	if err != nil {
		return &NotSentError{ExitError, err}
	}
	if historyErr != nil {
		c.notef("the history could not be written: %v", historyErr)
	}
	op.IssuedAt, op.ExpiresAt = now, now.Add(min(d.Config.OpLife.D(), MaxOpLife))
	op.Args.GatewayDeadline = c.plan.gatewayDeadline(d.Config, now, c.req.NoWait)
	payload, err := op.Encode()
	if err != nil {
		return &NotSentError{ExitUsage, err}
	}
	c.issued, c.expires, c.gatewayDeadline = now, op.ExpiresAt, op.Args.GatewayDeadline
	c.start = time.Now()
	n, err := d.Client.Publish(ctx, d.Config.Keys().Channel(), payload).Result()
	switch {
	case err == nil:
		c.receivers, c.published = n, publishedYes
	case certainlyNotSent(err):
		return notSentf(ExitError, "publishing %s %s: %w", op.Op, op.Target, clusterAdvice(err))
	default:
		c.published = publishedUnknown
		c.notef("the reply to PUBLISH was lost (%v): the op was sent once or not at all", err)
		d.log().Warn("reply to PUBLISH lost, collecting all the same", "op", op.ID, "err", err)
	}
	c.watch(Update{Kind: UpdatePublished})
	return nil
}

// certainlyNotSent tells an error that Redis or a dial gave from one that left
// the fate of a command open.
func certainlyNotSent(err error) bool {
	var reply redis.Error
	if errors.As(err, &reply) && !errors.Is(err, redis.Nil) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrClosed)
}

func (d *Dispatcher) log() *slog.Logger {
	if d.Log != nil {
		return d.Log
	}
	return slog.New(slog.DiscardHandler)
}

// ack is the text that tells the operator what is about to be sent.
func (p *Plan) ack(op Op) string {
	hosts := map[string]bool{}
	gateways := 0
	var down, held []fleet.Instance
	for _, e := range p.Instances {
		hosts[e.Host] = true
		if e.Gateway {
			gateways++
		}
		if e.Down {
			down = append(down, e.Instance)
		}
		if e.Held != "" {
			held = append(held, e.Instance)
		}
	}
	s := fmt.Sprintf("%s %s: asking %s on %s [op %s]", op.Op, clip(op.Target, 200),
		count(len(p.Instances), "instance"), count(len(hosts), "host"), op.ID)
	if gateways > 0 && gateways < len(p.Instances) {
		if gateways == 1 {
			s += "; the gateway goes last"
		} else {
			s += "; the gateways go last"
		}
	}
	for _, w := range []struct {
		names []fleet.Instance
		what  string
	}{{down, "down"}, {held, "held"}} {
		if len(w.names) > 0 {
			s += "; " + w.what + ": " + clip(strings.Join(fleet.FoldInstances(w.names), ", "), 500)
		}
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
