package fleet

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// beat returns a plausible heartbeat, sent at Redis time at.
func beat(instance, tier string, at Time) Heartbeat {
	i, err := ParseInstance(instance)
	if err != nil {
		panic(err)
	}
	return Heartbeat{
		Instance: instance, Service: i.Service, Tier: tier, Host: i.Host, MachineID: "m-" + i.Host,
		Unit: "stargazer-" + i.Service + ".service", Version: "1.2.3", PID: 7, ActiveState: "active", Result: "success",
		ControlledBy: ByHost, Mode: ModeAct, IntervalMS: 10_000, SubscribedSince: 1, At: at,
	}
}

func put(t *testing.T, c *redis.Client, key, field string, value any) {
	t.Helper()
	if h, ok := value.(Heartbeat); ok {
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		value = string(b)
	}
	if err := c.HSet(t.Context(), key, field, value).Err(); err != nil {
		t.Fatal(err)
	}
}

func redisNow(t *testing.T, c *redis.Client) Time {
	t.Helper()
	now, err := c.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return TimeOf(now)
}

func instances(r Registry) []string {
	var out []string
	for _, h := range r.Beats {
		out = append(out, h.Instance)
	}
	return out
}

func TestReadRegistry(t *testing.T) {
	c := redistest.Start(t).Client()
	keys := Keys{Prefix: "sg:"}
	empty, err := ReadRegistry(t.Context(), c, keys)
	if err != nil || len(empty.Beats)+len(empty.Holds)+len(empty.Malformed) != 0 || empty.Now == 0 {
		t.Fatalf("an empty Redis reads as %+v, %v", empty, err)
	}
	now := redisNow(t, c)
	for instance, tier := range map[string]string{
		"web@h10": "web", "web@h2": "web", "gateway@gw": "gateway", "inference@h1#2": "inference", "inference@h1#10": "inference",
		"inference@h1#1": "inference", "batch@h1": "offline", "agents@h1": "agents",
	} {
		put(t, c, keys.Live(), instance, beat(instance, tier, now))
	}
	put(t, c, keys.Live(), "sgfleet@h1", beat("sgfleet@h1", "", now))
	put(t, c, keys.Live(), "broken@h1", "{")
	put(t, c, keys.Live(), "no instance", beat("web@h2", "web", now))
	put(t, c, keys.Live(), "huge@h1", strings.Repeat(" ", maxHeartbeat+1))
	put(t, c, keys.Live(), "liar@h1", beat("web@h2", "web", now))
	put(t, c, keys.Live(), "newer@h1", `{"instance":"newer@h1","service":"newer","tier":"web","host":"h1","pid":"twelve","at":1,"unheard_of":[1]}`)
	put(t, c, keys.Live(), "tierless@h1", `{"tier":"\u001b[2J"}`)

	r, err := ReadRegistry(t.Context(), c, keys)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"gateway@gw", "inference@h1#1", "inference@h1#2", "inference@h1#10", "agents@h1", "newer@h1", "web@h2", "web@h10",
		"batch@h1", "sgfleet@h1",
	}
	if d := cmp.Diff(want, instances(r)); d != "" {
		t.Errorf("beats (-want +got):\n%s", d)
	}
	if r.Now < now || r.Now.Sub(now) > time.Minute {
		t.Errorf("Now = %d, want Redis TIME, %d or a little later", r.Now, now)
	}
	var bad []string
	for _, err := range r.Malformed {
		bad = append(bad, err.Error())
	}
	got := strings.Join(bad, "\n")
	for _, want := range []string{
		"sg:control:live broken@h1: heartbeat is not JSON",
		`sg:control:live no instance: instance "no instance": want service@host`,
		"sg:control:live huge@h1: heartbeat of 65537 bytes",
		"sg:control:live liar@h1: heartbeat of another instance: web@h2",
		"sg:control:live newer@h1: json: cannot unmarshal string into Go struct field Heartbeat.pid",
		`sg:control:live tierless@h1: heartbeat with tier "\x1b[2J"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("malformed entries\n%s\nlack %s", got, want)
		}
	}
	if len(bad) != 6 {
		t.Errorf("%d malformed entries, want 6:\n%s", len(bad), got)
	}
	if m := r.Members(); len(m) != len(r.Beats) || m[1] != (Member{Instance{"inference", "h1", 1}, "inference"}) {
		t.Errorf("Members = %v", m)
	}

	cfg := Default()
	cfg.Tiers = []Tier{{Name: "offline"}, {Name: "web"}, {Name: "gateway"}}
	r.Arrange(cfg)
	want = []string{
		"batch@h1", "newer@h1", "web@h2", "web@h10", "gateway@gw", "agents@h1", "inference@h1#1", "inference@h1#2",
		"inference@h1#10", "sgfleet@h1",
	}
	if d := cmp.Diff(want, instances(r)); d != "" {
		t.Errorf("beats in the config's order (-want +got):\n%s", d)
	}
}

func TestReadRegistryWithoutRedis(t *testing.T) {
	s := redistest.Start(t)
	c := s.Client()
	s.Kill()
	_, err := ReadRegistry(t.Context(), c, Keys{Prefix: "sg:"})
	if err == nil || !strings.Contains(err.Error(), "reading the registry (TIME, sg:control:live, sg:control:hold)") {
		t.Errorf("ReadRegistry of a dead server: %v", err)
	}
	s.Restart()
	put(t, c, "sg:control:live", "web@h1", beat("web@h1", "web", 1))
	if err := c.Set(t.Context(), "sg:control:hold", "a string", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err = ReadRegistry(t.Context(), c, Keys{Prefix: "sg:"}); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("ReadRegistry of a string: %v", err)
	}
}

func TestDown(t *testing.T) {
	const now = Time(1_000_000_000)
	for _, tt := range []struct {
		ago        time.Duration
		intervalMS int64
		want       bool
	}{
		{30 * time.Second, 10_000, false},
		{30*time.Second + time.Microsecond, 10_000, true},
		{31 * time.Second, 0, true},
		{31 * time.Second, -1, true},
		{31 * time.Second, 9_000_000_000_000_000, true}, // not believed
		{31 * time.Second, 20_000, false},
		{-30 * time.Second, 10_000, false},
		{-time.Hour, 10_000, true}, // Redis time was set back since, and nobody has sent one
	} {
		h := Heartbeat{At: now.Add(-tt.ago), IntervalMS: tt.intervalMS}
		if got := h.Down(now, 10*time.Second); got != tt.want {
			t.Errorf("%v after a beat with interval %d ms: down %v, want %v", tt.ago, tt.intervalMS, got, tt.want)
		}
	}
}

func TestConflicts(t *testing.T) {
	const now = Time(1_000_000_000)
	ok := beat("web@h1", "web", now)
	self := beat("web@h1#1", "web", now)
	self.ControlledBy = BySelf
	self.Unit = "stargazer-web" // the same unit without its suffix
	twin := beat("inference@h2", "inference", now)
	other := beat("agents@h2", "agents", now)
	other.MachineID = "another"
	said := beat("gateway@h3", "gateway", now)
	said.Degraded = "another process beats as gateway@h3"
	dead := beat("web@h4", "web", now.Add(-time.Hour))
	rival := beat("web@h4#1", "web", now)
	daemon := beat("sgfleet@h1", "", now)
	daemon.Unit = "stargazer-web"
	r := Registry{Now: now, Beats: []Heartbeat{ok, self, twin, other, said, dead, rival, daemon}}
	want := map[string]string{
		"web@h1":       "stargazer-web.service is also controlled as web@h1#1 (controlled_by host and self)",
		"web@h1#1":     "stargazer-web is also controlled as web@h1 (controlled_by self and host)",
		"inference@h2": "2 machines call themselves h2",
		"agents@h2":    "2 machines call themselves h2",
		"gateway@h3":   "another process beats as gateway@h3",
	}
	if d := cmp.Diff(want, r.conflicts()); d != "" {
		t.Errorf("conflicts (-want +got):\n%s", d)
	}
}

func TestForget(t *testing.T) {
	c := redistest.Start(t).Client()
	keys := Keys{Prefix: "sg:"}
	now := redisNow(t, c)
	put(t, c, keys.Live(), "web@h1", beat("web@h1", "web", now))
	put(t, c, keys.Live(), "web@h2", beat("web@h2", "web", now.Add(-time.Hour)))
	put(t, c, keys.Live(), "rubbish", "{")
	forget := func(instance string, force bool, want string) {
		t.Helper()
		err := Forget(t.Context(), c, keys, instance, force)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("Forget(%s, %v) = %v, want %q", instance, force, err, want)
		}
	}
	forget("web@h3", false, `no instance is called "web@h3" (did you mean web@h1?)`)
	forget("web@h1", false, "would be back with the next; stop its daemon first, or use --force")
	forget("web@h2", false, "")
	forget("web@h2", false, "no instance is called")
	forget("rubbish", false, "")
	forget("web@h1", true, "")
	if left := c.HLen(t.Context(), keys.Live()).Val(); left != 0 {
		t.Errorf("%d entries left", left)
	}
}

func TestHolds(t *testing.T) {
	c := redistest.Start(t).Client()
	keys := Keys{Prefix: "sg:"}
	ctx := t.Context()
	if err := ClearHold(ctx, c, keys, "web"); err == nil || err.Error() != "nothing is held" {
		t.Errorf("ClearHold without holds: %v", err)
	}
	now := redisNow(t, c)
	h, err := SetHold(ctx, c, keys, Hold{Target: " inference , !inference@h3 ", By: "ann", Reason: "new disks", Until: now.Add(time.Hour)})
	if err != nil || h.Since < now || h.Target != "inference,!inference@h3" {
		t.Fatalf("SetHold = %+v, %v", h, err)
	}
	for _, bad := range []struct {
		h    Hold
		want string
	}{
		{Hold{Target: ""}, "is empty"},
		{Hold{Target: "web", Until: now - 1}, "is already past"},
	} {
		if _, err := SetHold(ctx, c, keys, bad.h); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("SetHold(%+v) = %v, want %s", bad.h, err, bad.want)
		}
	}
	put(t, c, keys.Hold(), "host:old", `{"target":"host:old","until":5}`)
	put(t, c, keys.Hold(), "host:torn", `{"by":`)

	holds, clock, bad, err := ReadHolds(ctx, c, keys)
	if err != nil || len(holds) != 3 || len(bad) != 1 || clock < now {
		t.Fatalf("ReadHolds = %v, %v, %v, %v", holds, clock, bad, err)
	}
	if !strings.Contains(bad[0].Error(), "sg:control:hold host:torn: ") || !strings.Contains(bad[0].Error(), "sgfleet unhold removes it") {
		t.Errorf("bad hold: %v", bad[0])
	}
	for _, tt := range []struct{ instance, want string }{
		{"inference@h1", "held by ann: new disks (until "},
		{"inference@h3", ""},
		{"web@old", ""}, // run out
		{"web@torn", "held: the hold's entry is unreadable"},
	} {
		i, _ := ParseInstance(tt.instance)
		got, ok := Held(holds, clock, Member{i, i.Service})
		if ok != (tt.want != "") || ok && !strings.HasPrefix(got.String(), tt.want) {
			t.Errorf("Held(%s) = %v, %v; want %q", tt.instance, got, ok, tt.want)
		}
	}

	if err := ClearHold(ctx, c, keys, "infrence"); err == nil || !strings.Contains(err.Error(), `no hold of "infrence"`) {
		t.Errorf("ClearHold(infrence) = %v", err)
	}
	if err := ClearHold(ctx, c, keys, "inference, !inference@h3"); err != nil {
		t.Error(err)
	}
	r, err := ReadRegistry(ctx, c, keys)
	if err != nil || len(r.Holds) != 2 || len(r.Malformed) != 1 {
		t.Errorf("ReadRegistry = %+v, %v", r, err)
	}

	// A target that this version cannot read holds everything, and can be
	// released by its exact text.
	put(t, c, keys.Hold(), "rack:7", `{"by":"bob"}`)
	r, err = ReadRegistry(ctx, c, keys)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := r.Held(Member{Instance{"web", "h1", 0}, "web"}); !ok || got.String() != "held by bob: its target is unreadable, so it holds everything" {
		t.Errorf("an unreadable target: %v, %v", got, ok)
	}
	if err := ClearHold(ctx, c, keys, "rack:7"); err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, _, err := ReadHolds(canceled, c, keys); err == nil || !strings.Contains(err.Error(), "reading the holds (sg:control:hold)") {
		t.Errorf("ReadHolds with a cancelled context: %v", err)
	}
}

func FuzzDecodeBeat(f *testing.F) {
	f.Add("web@h1", `{"instance":"web@h1","at":1}`)
	f.Add("web@h1#2", `{"pid":"x"}`)
	f.Add("", `null`)
	f.Fuzz(func(t *testing.T, field, value string) {
		h, err := decodeBeat(field, value)
		if h.Instance == "" {
			if err == nil {
				t.Error("neither a heartbeat nor an error")
			}
			return
		}
		if h.Instance != field || h.member().String() != field {
			t.Errorf("heartbeat of %q says %q", field, h.Instance)
		}
		_ = h.Down(0, time.Second)
	})
}

func TestHumane(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 850 * time.Millisecond: "850ms", 3200 * time.Millisecond: "3.2s", 4 * time.Second: "4s", 9999 * time.Millisecond: "9.9s",
		45*time.Second + 999*time.Millisecond: "45s", 184 * time.Second: "3m04s", time.Hour - 1: "59m59s", 5*time.Hour + 12*time.Minute: "5h12m",
		24*time.Hour - 1: "23h59m", 12*24*time.Hour + 3*time.Hour: "12d03h", -time.Minute: "-1m00s",
	} {
		if got := Humane(d); got != want {
			t.Errorf("Humane(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text – ünïcode": "plain text – ünïcode", "a\nb\x1b[2Jc": "a b [2Jc", "\u202ebad\u200b": " bad ", "\xff": " ",
		strings.Repeat("x", 300): strings.Repeat("x", 200) + "…",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}
