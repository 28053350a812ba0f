package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// DefaultHeartbeatInterval is assumed of a heartbeat that does not say how
// often it is sent.
const DefaultHeartbeatInterval = 10 * time.Second

// Registry is the live fleet at one moment: every instance that ever sent a
// heartbeat and was not forgotten, and every hold.
type Registry struct {
	Now       Time        // Redis TIME of the reading
	Beats     []Heartbeat // in tier order, then by service, host and index
	Holds     []Hold      // by target
	Malformed []error     // entries that could not be read, or only in part
}

// ReadRegistry reads heartbeats, holds and Redis TIME in one round trip. An
// entry that cannot be read is reported in Malformed and does not stop the
// rest. Tiers other than the original's come last; [Registry.Arrange] puts
// them into a config's order.
func ReadRegistry(ctx context.Context, c redis.Cmdable, keys Keys) (Registry, error) {
	pipe := c.Pipeline()
	now := pipe.Time(ctx)
	live := pipe.HGetAll(ctx, keys.Live())
	hold := pipe.HGetAll(ctx, keys.Hold())
	if _, err := pipe.Exec(ctx); err != nil {
		return Registry{}, fmt.Errorf("reading the registry (TIME, %s, %s): %w", keys.Live(), keys.Hold(), err)
	}
	r := Registry{Now: TimeOf(now.Val())}
	for field, value := range sorted(live.Val()) {
		h, err := decodeBeat(field, value)
		if err != nil {
			r.Malformed = append(r.Malformed, fmt.Errorf("%s %s: %w", keys.Live(), printable(field), err))
		}
		if h.Instance != "" {
			r.Beats = append(r.Beats, h)
		}
	}
	var bad []error
	r.Holds, bad = DecodeHolds(keys, hold.Val())
	r.Malformed = append(r.Malformed, bad...)
	r.Arrange(nil)
	return r, nil
}

// sorted ranges over a map in the order of its keys.
func sorted(m map[string]string) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// maxHeartbeat bounds an entry of the live hash: anything that can write there
// can also write too much.
const maxHeartbeat = 64 << 10

// decodeBeat reads one entry of the live hash. A field of another type than
// expected (of a newer version, say) is an error beside a usable heartbeat: an
// instance that is known must not drop out of what is expected.
func decodeBeat(field, value string) (Heartbeat, error) {
	i, err := ParseInstance(field)
	if err != nil {
		return Heartbeat{}, err
	}
	if len(value) > maxHeartbeat {
		return Heartbeat{}, fmt.Errorf("heartbeat of %d bytes, at most %d are read", len(value), maxHeartbeat)
	}
	var h Heartbeat
	err = json.Unmarshal([]byte(value), &h)
	if wrongType := (*json.UnmarshalTypeError)(nil); err != nil && !errors.As(err, &wrongType) {
		return Heartbeat{}, fmt.Errorf("heartbeat is not JSON: %w", err)
	}
	if h.Instance != "" && h.Instance != field || h.Service != "" && h.Service != i.Service || h.Host != "" && h.Host != i.Host {
		return Heartbeat{}, fmt.Errorf("heartbeat of another instance: %s (service %s, host %s)",
			printable(h.Instance), printable(h.Service), printable(h.Host))
	}
	if h.Tier != "" && !ValidName(h.Tier) {
		return Heartbeat{}, fmt.Errorf("heartbeat with tier %q", h.Tier)
	}
	h.Instance, h.Service, h.Host = field, i.Service, i.Host
	return h, err
}

// Arrange sorts the heartbeats: by tier in cfg's order (nil: the original's),
// then by service, host and index, numbers in names by value.
func (r *Registry) Arrange(cfg *Config) {
	tiers := ServiceTiers
	if cfg != nil {
		tiers = cfg.TierNames()
	}
	slices.SortFunc(r.Beats, func(a, b Heartbeat) int {
		return cmpMember(tiers, a.member(), b.member())
	})
}

// cmpMember orders members by tier (an unknown tier after all known ones, a
// daemon after everything), then by instance.
func cmpMember(tiers []string, a, b Member) int {
	rank := func(m Member) int {
		if m.Service == DaemonService {
			return len(tiers) + 1
		}
		return tierRank(tiers, m.Tier)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Tier, b.Tier), cmpInstance(a.Instance, b.Instance))
}

// member is Member for a heartbeat whose instance is known to parse.
func (h Heartbeat) member() Member {
	m, _ := h.Member()
	return m
}

// Members returns every known instance, DOWN ones included, for matching and
// checking a target.
func (r Registry) Members() []Member {
	out := make([]Member, len(r.Beats))
	for i, h := range r.Beats {
		out[i] = h.member()
	}
	return out
}

// Held returns the hold that covers m, if any.
func (r Registry) Held(m Member) (Hold, bool) { return Held(r.Holds, r.Now, m) }

// conflicts finds, among live instances, what makes a fleet untrustworthy: two
// controllers of one unit, and two machines under one host name. The result
// maps an instance to the reason.
func (r Registry) conflicts() map[string]string {
	type unit struct{ host, unit string }
	units := map[unit][]Heartbeat{}
	machines := map[string]map[string]bool{} // host → machine ids
	for _, h := range r.Beats {
		if h.Down(r.Now, DefaultHeartbeatInterval) || h.Service == DaemonService {
			continue
		}
		if h.Unit != "" {
			u := unit{h.Host, ServiceUnit(h.Unit)}
			units[u] = append(units[u], h)
		}
		if h.MachineID != "" {
			if machines[h.Host] == nil {
				machines[h.Host] = map[string]bool{}
			}
			machines[h.Host][h.MachineID] = true
		}
	}
	out := map[string]string{}
	for _, h := range r.Beats {
		if h.Down(r.Now, DefaultHeartbeatInterval) {
			continue
		}
		switch {
		case h.Degraded != "":
			out[h.Instance] = h.Degraded
		case len(machines[h.Host]) > 1:
			out[h.Instance] = fmt.Sprintf("%d machines call themselves %s", len(machines[h.Host]), h.Host)
		}
		for _, o := range units[unit{h.Host, ServiceUnit(h.Unit)}] {
			if h.Unit != "" && o.Instance != h.Instance && h.Service != DaemonService && out[h.Instance] == "" {
				out[h.Instance] = fmt.Sprintf("%s is also controlled as %s (controlled_by %s and %s)",
					h.Unit, o.Instance, cmp.Or(h.ControlledBy, ByHost), cmp.Or(o.ControlledBy, ByHost))
			}
		}
	}
	return out
}

// Forget removes an instance that was decommissioned, so that it is no longer
// expected. One that still sends heartbeats would be back with the next one
// and is refused unless force is set.
func Forget(ctx context.Context, c redis.Cmdable, keys Keys, instance string, force bool) error {
	r, err := ReadRegistry(ctx, c, keys)
	if err != nil {
		return err
	}
	var known []string
	for _, h := range r.Beats {
		known = append(known, h.Instance)
		if h.Instance == instance && !force && !h.Down(r.Now, DefaultHeartbeatInterval) {
			return fmt.Errorf("%s sent a heartbeat %s ago and would be back with the next; stop its daemon first, or use --force",
				instance, Humane(r.Now.Sub(h.At)))
		}
	}
	// An entry that could not be read is not in known, and may be forgotten.
	n, err := c.HDel(ctx, keys.Live(), instance).Result()
	if err != nil {
		return fmt.Errorf("forgetting %s: %w", instance, err)
	}
	if n == 0 {
		return fmt.Errorf("no instance is called %q%s", instance, hint(instance, known))
	}
	return nil
}
