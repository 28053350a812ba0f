package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ReadHolds reads the holds, in the order of their targets, with the Redis
// TIME that Held needs. Entries that could not be read in full are returned as
// holds all the same, with an error beside them: whoever asked for a hold must
// not lose it to one bad byte.
func ReadHolds(ctx context.Context, c redis.Cmdable, keys Keys) (holds []Hold, now Time, bad []error, err error) {
	pipe := c.Pipeline()
	clock := pipe.Time(ctx)
	hold := pipe.HGetAll(ctx, keys.Hold())
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, 0, nil, fmt.Errorf("reading the holds (%s): %w", keys.Hold(), err)
	}
	holds, bad = DecodeHolds(keys, hold.Val())
	return holds, TimeOf(clock.Val()), bad, nil
}

// DecodeHolds reads the hold hash. The field is the target and decides what is
// held; a value that is no JSON loses only who, why and until.
func DecodeHolds(keys Keys, fields map[string]string) (holds []Hold, bad []error) {
	for field, value := range sorted(fields) {
		var h Hold
		err := json.Unmarshal([]byte(value), &h)
		if err != nil {
			h = Hold{Reason: "the hold's entry is unreadable"}
		} else if _, err = ParseTarget(field, nil); err != nil {
			h.Reason = "its target is unreadable, so it holds everything"
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s %s: %w (sgfleet unhold removes it)", keys.Hold(), printable(field), err))
		}
		h.Target = field
		holds = append(holds, h)
	}
	return holds, bad
}

// Active reports whether h holds at Redis time now.
func (h Hold) Active(now Time) bool { return h.Until == 0 || now < h.Until }

// String says who holds, why and for how long, in one line.
func (h Hold) String() string {
	s := "held"
	if h.By != "" {
		s += " by " + printable(h.By)
	}
	if h.Reason != "" {
		s += ": " + printable(h.Reason)
	}
	if h.Until != 0 {
		s += " (until " + h.Until.Time().Format("2006-01-02 15:04:05Z") + ")"
	}
	return s
}

// Held returns the first hold that covers m at Redis time now. A hold whose
// target cannot be read (a newer version wrote it, say) covers everything: not
// to act is the safe mistake.
func Held(holds []Hold, now Time, m Member) (Hold, bool) {
	for _, h := range holds {
		if !h.Active(now) {
			continue
		}
		t, err := ParseTarget(h.Target, nil)
		if err != nil || t.Match(m) {
			return h, true
		}
	}
	return Hold{}, false
}

// SetHold stores h, replacing a hold of the same target. Since is set to Redis
// TIME; Until, when set, must be later than that. The target is stored in its
// canonical form.
func SetHold(ctx context.Context, c redis.Cmdable, keys Keys, h Hold) (Hold, error) {
	t, err := ParseTarget(h.Target, nil)
	if err != nil {
		return Hold{}, err
	}
	now, err := c.Time(ctx).Result()
	if err != nil {
		return Hold{}, fmt.Errorf("holding %s: reading Redis TIME: %w", t, err)
	}
	h.Target, h.Since = t.String(), TimeOf(now)
	if h.Until != 0 && h.Until <= h.Since {
		return Hold{}, fmt.Errorf("holding %s: until %s is already past (Redis has %s)",
			t, h.Until.Time().Format("15:04:05Z"), h.Since.Time().Format("15:04:05Z"))
	}
	value, err := json.Marshal(h)
	if err != nil {
		return Hold{}, err
	}
	if err := c.HSet(ctx, keys.Hold(), h.Target, value).Err(); err != nil {
		return Hold{}, fmt.Errorf("holding %s: %w", t, err)
	}
	return h, nil
}

// ClearHold removes the hold of exactly this target. Without one it is an error
// that names the holds there are.
func ClearHold(ctx context.Context, c redis.Cmdable, keys Keys, target string) error {
	field := target
	if t, err := ParseTarget(target, nil); err == nil {
		field = t.String()
	}
	n, err := c.HDel(ctx, keys.Hold(), field).Result()
	if err != nil {
		return fmt.Errorf("releasing the hold of %s: %w", field, err)
	}
	if n > 0 {
		return nil
	}
	holds, _, _, err := ReadHolds(ctx, c, keys)
	if err != nil {
		return err
	}
	var targets []string
	for _, h := range holds {
		targets = append(targets, h.Target)
	}
	if len(targets) == 0 {
		return errors.New("nothing is held")
	}
	return fmt.Errorf("no hold of %q%s", field, hint(field, targets))
}
