//go:build e2e

package e2e

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Two hosts do not hear an op: one has lost power, the other is cut off. Both
// are named, and neither replays it when it is back.
func unheard(f *fleet) {
	defer checkOnly(f, "h4")()
	before := f.invocations("h1", "h2", "h4")
	f.hosts("off", "h3")
	f.hosts("cut", "h2")
	r := f.op(4, "restart", "inference,agents")
	silent := slices.Sorted(maps.Keys(r.named("silent")))
	if !slices.Equal(silent, []string{"agents@h2", "agents@h3", "inference@h2", "inference@h3"}) {
		f.t.Errorf("silent: %v", silent)
	}
	f.hosts("join", "h2")
	f.hosts("up", "h3")
	booted := f.invocations("h3")
	f.t.Logf("back after %v", f.whole().Round(100*time.Millisecond))
	// A subscription that outlived the partition still gets the op from TCP, and
	// the daemon sees by Redis's time that it is too late; where the watchdog
	// was quicker, the new one never hears of it.
	f.until(20*time.Second, "h2 refuses the late op or subscribes again", func() bool {
		log := f.sh("h2", "journalctl -u sgfleet -o cat --since=-40s")
		return strings.Contains(log, "expired") || strings.Contains(log, "subscribed again")
	})
	time.Sleep(2 * time.Second) // longer than the splay: a replay would have begun by now
	if after := f.invocations("h3"); !maps.Equal(booted, after) {
		f.t.Errorf("something was replayed on h3:\n%v\n%v", booted, after)
	}
	after := f.invocations("h1", "h2", "h4")
	each([]string{"h1", "h2", "h4"}, func(h, s string) {
		k := h + "/" + s
		if want := h != "h2" && (s == "inference" || s == "agents"); (before[k] != after[k]) != want {
			f.t.Errorf("%s restarted: %v, want %v", k, before[k] != after[k], want)
		}
	})
}

// whole waits until every instance is back in the roster and heard of.
func (f *fleet) whole() time.Duration {
	f.t.Helper()
	return f.until(60*time.Second, "the roster is whole", func() bool {
		_, _, code := f.operator("ping", "all", "--timeout", "3s", "-o", "json")
		return code == 0
	})
}

func redisRestart(f *fleet) {
	before := f.invocations(hosts...)
	f.sh("hub", "systemctl kill -s KILL redis-server; sleep 1; systemctl reset-failed redis-server || true; systemctl start redis-server")
	took := f.whole()
	if took > 15*time.Second {
		f.t.Errorf("subscribed again after %v, want at most 15 s", took)
	}
	f.t.Logf("subscribed again after %v", took.Round(100*time.Millisecond))
	if after := f.invocations(hosts...); !maps.Equal(before, after) {
		f.t.Errorf("a service was restarted:\n%v\n%v", before, after)
	}
}

func reboot(f *fleet) {
	f.hosts("off", "h4")
	f.hosts("up", "h4")
	f.t.Logf("roster whole %v after the boot", f.whole().Round(100*time.Millisecond))
}
