package sim

import (
	"context"
	"fmt"
	"strings"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// publishRaw publishes bytes that no dispatcher would send.
type publishRaw struct {
	Bytes  string `yaml:"bytes,omitempty"`  // as they are
	Size   string `yaml:"size,omitempty"`   // so many bytes of an op that would be valid if it were smaller: 16KiB, 1MiB
	Repeat int    `yaml:"repeat,omitempty"` // default once

	Every fleet.Duration `yaml:"every,omitempty"` // between repetitions; default at once
}

func init() {
	registerAction(ActionInfo{
		Name: "publish_raw", Summary: "publish bytes that no dispatcher would send: malformed, huge, hostile",
		Example: `{bytes: '{"op":"restart"', repeat: 3}`, New: func() Action { return &publishRaw{} },
	})
}

// Validate implements [Action].
func (a *publishRaw) Validate(*Plan) []Problem {
	var out []Problem
	if (a.Bytes == "") == (a.Size == "") {
		out = append(out, Problem{Message: "want exactly one of bytes and size"})
	}
	if a.Size != "" {
		if _, err := parseSize(a.Size); err != nil {
			out = append(out, Problem{Field: "size", Message: err.Error()})
		}
	}
	if a.Repeat < 0 {
		out = append(out, Problem{Field: "repeat", Message: "is negative"})
	}
	return out
}

func parseSize(s string) (int, error) {
	units := []struct {
		suffix string
		n      int
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"KB", 1000}, {"MB", 1000_000}, {"B", 1}}
	for _, u := range units {
		if num, ok := strings.CutSuffix(s, u.suffix); ok {
			var n int
			if _, err := fmt.Sscanf(num, "%d", &n); err != nil || n < 1 || n*u.n > 64<<20 {
				break
			}
			return n * u.n, nil
		}
	}
	return 0, fmt.Errorf("size %q: want a number with a unit, such as 16KiB or 1MiB, at most 64MiB", s)
}

// payload is what is sent.
func (a *publishRaw) payload() string {
	if a.Bytes != "" {
		return a.Bytes
	}
	n, err := parseSize(a.Size)
	if err != nil {
		return ""
	}
	head, tail := `{"v":1,"id":"01J0000000000000000000000X","op":"restart","target":"all","requested_by":"`, `"}`
	return head + strings.Repeat("x", max(0, n-len(head)-len(tail))) + tail
}

// Run implements [Action].
func (a *publishRaw) Run(w *World, _ Step) error {
	payload := a.payload()
	w.trace.Add(Event{Actor: "sim", Kind: EvNote, Detail: fmt.Sprintf("publish_raw: %d bytes, %d times", len(payload), max(1, a.Repeat))}, 0)
	w.sendRaw("operator/raw", payload, max(1, a.Repeat), a.Every)
	return nil
}

// sendRaw publishes a payload from a process of its own.
func (w *World) sendRaw(name, payload string, repeat int, every fleet.Duration) {
	w.operate(name, "", func(ctx context.Context, inc *incarnation) error {
		client, err := control.Connect(inc.proc.host.cfg, control.ConnectOptions{Dialer: inc.dialer})
		if err != nil {
			return err
		}
		defer client.Close()
		for i := range repeat {
			if i > 0 && every > 0 && !pauseFor(ctx, every.D()) {
				return nil
			}
			if err := client.Publish(ctx, inc.proc.host.cfg.Keys().Channel(), payload).Err(); err != nil {
				w.trace.Add(Event{Actor: inc.proc.name, Kind: EvNote, Detail: "publish failed: " + err.Error()}, 0)
			}
		}
		return nil
	})
}
