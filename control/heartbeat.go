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

// showTimeout limits one look at a unit, so that a bus that hangs does not make
// the whole host look DOWN.
const showTimeout = 2 * time.Second

// beat is what the heartbeats of a daemon remember. Its fields belong to whoever
// has the turn, except for the channels.
type beat struct {
	turn    chan struct{}  // holds one token while somebody looks at units and writes what was seen
	wake    chan struct{}  // a heartbeat is due soon
	changed chan restarted // what restarts have found out

	holds  []fleet.Hold
	lastAt fleet.Time // of our own newest heartbeat
	units  map[string]*unitSeen
	wrote  map[string]string // our own newest entries
}

// restarted tells the heartbeats what a restart of ours has seen.
type restarted struct {
	instance, invocation, revision string
}

// unitSeen is what is known about an instance's present invocation.
type unitSeen struct {
	invocation string
	revision   string     // HEAD when that invocation began, "" when not known
	began      fleet.Time // when it began, or was first seen
	note       string     // why the instance is degraded
	noteUntil  fleet.Time
}

func newBeat(instances int) beat {
	return beat{
		turn: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), changed: make(chan restarted, 4*instances),
		units: map[string]*unitSeen{}, wrote: map[string]string{},
	}
}

// take waits for the turn. Entries are then written in the order in which their
// units were looked at, and none is replaced by an older one.
func (b *beat) take(ctx context.Context) bool {
	select {
	case b.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *beat) giveBack() { <-b.turn }

// soon asks for a heartbeat before its time: something has changed.
func (b *beat) soon() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// restarted records that a restart brought up invocation while the checkout was
// at revision. It is only dropped when nobody has written heartbeats for long.
func (b *beat) restarted(i *instance, invocation, revision string) {
	select {
	case b.changed <- restarted{i.name, invocation, revision}:
	default:
	}
}

// errTwoHosts ends the daemon: two machines call themselves by one name.
var errTwoHosts = errors.New("another machine runs under this name")

// enter writes the first heartbeat, unless another machine is alive under the
// name of one of our instances. What the registry says about the present
// invocations is taken over: it remembers which revision they began on, which
// cannot be seen later.
func (r *run) enter(ctx context.Context) error {
	own, now, err := r.readOwn(ctx)
	if err != nil {
		return err
	}
	for _, i := range r.instances {
		h, ok := own[i.name]
		if !ok {
			continue
		}
		if h.MachineID != "" && h.MachineID != r.Identity.MachineID && !h.Down(now, r.Config.HeartbeatInterval.D()) {
			return fmt.Errorf("%s: %w: machine %s sent a heartbeat %v ago, this is %s; set host in the config of one of them, or wait %v if it was replaced",
				i.name, errTwoHosts, h.MachineID, now.Sub(h.At).Round(time.Second), r.Identity.MachineID, fleet.MissedBeats*r.Config.HeartbeatInterval.D())
		}
		if h.InvocationID != "" {
			r.beat.units[i.name] = &unitSeen{invocation: h.InvocationID, revision: h.RunningRevision, began: h.Started}
		}
	}
	r.beat.lastAt = now
	return r.writeBeat(ctx)
}

// readOwn reads our instances' entries of the registry, the holds and the time.
func (r *run) readOwn(ctx context.Context) (map[string]fleet.Heartbeat, fleet.Time, error) {
	var clock *redis.TimeCmd
	var live *redis.SliceCmd
	var hold *redis.MapStringStringCmd
	names := r.names()
	err := r.Client.insist(ctx, r.tuning.AckTimeout, func(ctx context.Context, rc redis.UniversalClient) error {
		_, err := rc.Pipelined(ctx, func(p redis.Pipeliner) error {
			clock, live, hold = p.Time(ctx), p.HMGet(ctx, r.keys.Live(), names...), p.HGetAll(ctx, r.keys.Hold())
			return nil
		})
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading the registry: %w", err)
	}
	now := fleet.TimeOf(clock.Val())
	r.clock.set(now)
	r.beat.holds, _ = fleet.DecodeHolds(r.keys, hold.Val())
	return decodeOwn(names, live.Val()), now, nil
}

func (r *run) names() []string {
	names := make([]string, len(r.instances))
	for n, i := range r.instances {
		names[n] = i.name
	}
	return names
}

// decodeOwn reads HMGET's answer; what cannot be read is overwritten soon.
func decodeOwn(names []string, values []any) map[string]fleet.Heartbeat {
	own := map[string]fleet.Heartbeat{}
	for n, v := range values {
		var h fleet.Heartbeat
		if s, ok := v.(string); ok && n < len(names) && json.Unmarshal([]byte(s), &h) == nil {
			own[names[n]] = h
		}
	}
	return own
}

// heartbeats writes one for every instance, in one command, every interval.
// Daemons are spread over the interval by their names; one that is due because
// something changed (subscribed again, an op ended) is spread over a second.
func (r *run) heartbeats(ctx context.Context) {
	interval := r.Config.HeartbeatInterval.D()
	next := time.NewTimer(interval/2 + hashDuration(interval/2, r.name, "heartbeat"))
	defer next.Stop()
	lastErr := ""
	for ctx.Err() == nil {
		changed := false
		select { // a change comes first when both are due: which must not be chance
		case <-r.beat.wake:
			changed = true
		default:
			select {
			case <-ctx.Done():
				return
			case <-next.C:
				next.Reset(interval)
			case <-r.beat.wake:
				changed = true
			}
		}
		if changed && !sleep(ctx, hashDuration(min(time.Second, interval/10), r.name, "changed")) {
			return
		}
		err := r.writeBeat(ctx)
		r.session.checkMaster()
		switch {
		case err == nil:
			lastErr = ""
		case ctx.Err() != nil:
		default:
			r.metrics.add(metricHeartbeatErr, 1)
			if err.Error() != lastErr {
				lastErr = err.Error()
				r.log.Warn("heartbeat not written", "err", err)
			}
		}
	}
}

// writeBeat looks at every unit and writes every entry. In the same round trip
// it reads what was there before: an entry that somebody else has written since
// our last one means that two daemons control one unit.
func (r *run) writeBeat(ctx context.Context) error {
	if !r.beat.take(ctx) {
		return ctx.Err()
	}
	defer r.beat.giveBack()
	fields, err := r.encodeBeats(ctx, r.instances)
	if err != nil {
		return err
	}
	var clock *redis.TimeCmd
	var before *redis.SliceCmd
	var hold *redis.MapStringStringCmd
	names := r.names()
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	_, err = r.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock, before, hold = p.Time(ctx), p.HMGet(ctx, r.keys.Live(), names...), p.HGetAll(ctx, r.keys.Hold())
		p.HSet(ctx, r.keys.Live(), fields...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the heartbeat: %w", clusterAdvice(err))
	}
	now := fleet.TimeOf(clock.Val())
	r.clock.set(now)
	r.beat.holds, _ = fleet.DecodeHolds(r.keys, hold.Val())
	entries := before.Val()
	for n, v := range entries {
		// What we wrote ourselves tells nothing: most entries need no decoding.
		if s, ok := v.(string); ok && s == r.beat.wrote[names[n]] {
			entries[n] = nil
		}
	}
	r.findOthers(decodeOwn(names, entries), now)
	for n := 0; n < len(fields); n += 2 {
		r.beat.wrote[names[n/2]] = string(fields[n+1].([]byte))
	}
	r.beat.lastAt = now
	r.metrics.add(metricHeartbeats, 1)
	return nil
}

// encodeBeats looks at some instances' units: names and entries by turns.
func (r *run) encodeBeats(ctx context.Context, instances []*instance) ([]any, error) {
	r.takeRestarted()
	fields := make([]any, 0, 2*len(instances))
	for _, i := range instances {
		b, err := json.Marshal(r.describe(ctx, i))
		if err != nil {
			return nil, fmt.Errorf("encoding the heartbeat of %s: %w", i.name, err)
		}
		fields = append(fields, i.name, b)
	}
	return fields, nil
}

// beatWait is how long a final ack waits for the heartbeats that go with it.
const beatWait = time.Second

// beatsWith returns a command that writes the heartbeats of those on which the
// ops of batch have ended, and of those who share a checkout that was pulled:
// in one MULTI with the acks, so that whoever has read the acks reads no roster
// from before. giveBack is called when it has been sent.
//
// A bus that hangs holds up no ack; there is no command then, and a heartbeat
// follows before long.
func (r *run) beatsWith(ctx context.Context, batch []answer) (write []func(context.Context, redis.Pipeliner), giveBack func()) {
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	ended, pulled := map[string]bool{}, map[string]bool{}
	for _, a := range batch {
		ended[a.ack.Instance] = true
	}
	for _, a := range batch {
		for _, i := range r.instances {
			if opSpecs[a.op.Op].Pulls && i.name == a.ack.Instance && i.Checkout != "" {
				pulled[i.Checkout] = true
			}
		}
	}
	var those []*instance
	for _, i := range r.instances {
		if ended[i.name] || pulled[i.Checkout] {
			those = append(those, i)
		}
	}
	if len(those) == 0 || !r.beat.take(ctx) {
		return nil, func() {}
	}
	for path := range pulled {
		r.heads.forget(path) // a look that began before the pull may have ended after it
	}
	fields, err := r.encodeBeats(ctx, those)
	if err != nil || ctx.Err() != nil {
		r.beat.giveBack()
		return nil, func() {}
	}
	set := func(ctx context.Context, p redis.Pipeliner) { p.HSet(ctx, r.keys.Live(), fields...) }
	return []func(context.Context, redis.Pipeliner){set}, r.beat.giveBack
}

// takeRestarted takes in what restarts have found out since the last heartbeat.
func (r *run) takeRestarted() {
	for {
		select {
		case c := <-r.beat.changed:
			if c.invocation == "" {
				continue
			}
			r.beat.seen(c.instance).become(c.invocation, c.revision, r.clock.now())
		default:
			return
		}
	}
}

func (b *beat) seen(name string) *unitSeen {
	u := b.units[name]
	if u == nil {
		u = &unitSeen{}
		b.units[name] = u
	}
	return u
}

func (u *unitSeen) become(invocation, revision string, now fleet.Time) {
	if u.invocation != invocation {
		u.invocation, u.revision, u.began = invocation, revision, now
	}
}

// started corrects when the invocation began: it may be older than the first
// look at it. What two clocks make of it differs a little from look to look.
func (u *unitSeen) started(at fleet.Time) {
	if at.Sub(u.began).Abs() > startedGrain {
		u.began = at
	}
}

// startedGrain is how exactly the registry tells when an invocation began.
const startedGrain = time.Second

// findOthers notes who else writes our entries.
func (r *run) findOthers(before map[string]fleet.Heartbeat, now fleet.Time) {
	for _, i := range r.instances {
		h, ok := before[i.name]
		u := r.beat.seen(i.name)
		if ok && h.At > r.beat.lastAt && (h.PID != r.Identity.PID || h.MachineID != r.Identity.MachineID) {
			note := fmt.Sprintf("another daemon controls it, too: pid %d", h.PID)
			if h.MachineID != r.Identity.MachineID {
				note += " on machine " + h.MachineID
			}
			if u.note != note {
				r.log.Error("two daemons control one unit", "instance", i.name, "other_pid", h.PID, "other_machine", h.MachineID)
				r.beat.soon()
			}
			u.note, u.noteUntil = note, now.Add(fleet.MissedBeats*r.Config.HeartbeatInterval.D())
		} else if now >= u.noteUntil {
			u.note = ""
		}
	}
}
