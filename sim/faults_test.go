package sim

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// faultPlans are small runs whose events the tests below look at.
var faultPlans = map[string]func() *Plan{
	"memory": func() *Plan { // the daemon dies with four accepted ops in its queues
		return basePlan(2, DaemonHost,
			at(10*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "all"}),
			at(10*time.Second+60*time.Millisecond, "crash", &crash{Where: Where{Service: "sgfleet@host-001"}, Span: Span{For: fleet.Duration(20 * time.Second)}}),
		)
	},
	"orphan": func() *Plan {
		return basePlan(2, DaemonHost,
			at(time.Second, "slow_git", &slowGit{Where: Where{Host: "host-001"}, Factor: 8}),
			at(10*time.Second, "publish", &publish{ID: "p1", Op: "pull", Target: "inference"}),
			at(10*time.Second, "kill_lock_holder", &killLockHolder{Op: "p1", Host: "host-001", Within: fleet.Duration(20 * time.Second)}),
		)
	},
	"power": func() *Plan {
		return basePlan(2, DaemonEmbedded,
			at(10*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "agents@host-002"}),
			at(20*time.Second, "crash", &crash{Where: Where{Host: "host-001"}, Span: Span{For: fleet.Duration(20 * time.Second)}}),
			at(25*time.Second, "publish", &publish{ID: "r2", Op: "restart", Target: "all", Timeout: fleet.Duration(time.Minute)}),
		)
	},
	"cut": func() *Plan {
		return basePlan(2, DaemonHost,
			at(20*time.Second, "partition", &partition{From: "host-001", To: "redis", Mode: "cut", Span: Span{For: fleet.Duration(5 * time.Second)}}))
	},
	"blackhole": func() *Plan {
		return basePlan(2, DaemonHost,
			at(20*time.Second, "partition", &partition{From: "redis", To: "host-001", Mode: "drop", OneWay: true, Span: Span{For: fleet.Duration(40 * time.Second)}}))
	},
	"failover": func() *Plan {
		return basePlan(2, DaemonHost,
			at(10*time.Second, "slow_git", &slowGit{Where: Where{Host: "*"}, Factor: 8}),
			at(11*time.Second, "publish", &publish{ID: "p1", Op: "pull", Target: "inference"}),
			at(13*time.Second, "redis", &redisFault{Action: "failover", Down: fleet.Duration(time.Second), Lag: fleet.Duration(5 * time.Second)}))
	},
	"oom": func() *Plan {
		return basePlan(2, DaemonHost,
			at(10*time.Second, "redis", &redisFault{Action: "oom", Span: Span{For: fleet.Duration(10 * time.Second)}}),
			at(12*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "inference"}),
			at(60*time.Second, "publish", &publish{ID: "r2", Op: "restart", Target: "inference"}))
	},
	"unsent": func() *Plan { // it ends when daemons have acks that Redis did not take yet
		p := basePlan(2, DaemonHost,
			at(10*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "all"}),
			at(10*time.Second+500*time.Millisecond, "redis", &redisFault{Action: "restart", Down: fleet.Duration(time.Hour)}))
		p.Until, p.Settle = 30*time.Second, 0
		return p
	},
	"coming and going": func() *Plan {
		p := basePlan(2, DaemonHost,
			at(20*time.Second, "join", &joinHost{Host: "late"}),
			at(30*time.Second, "assert", &assert{Where: Where{Host: "late"}, State: "active"}),
			at(40*time.Second, "leave", &leaveHost{Host: "host-002"}),
			at(50*time.Second, "hold", &hold{Target: "agents"}),
			at(60*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "all"}))
		p.Hosts = append(p.Hosts, HostPlan{Name: "late", Absent: true, Services: map[string]fleet.Service{"web": {Tier: "web"}}})
		return p
	},
}

func init() {
	testRuns["fault"] = func(ctx context.Context, job Job, t testRun) (any, error) {
		r, err := Run(ctx, faultPlans[t.Args["plan"]](), job.Seed, Options{})
		if err != nil {
			return nil, err
		}
		return r.Events, nil
	}
}

// faultEvents runs one of faultPlans.
func faultEvents(t *testing.T, plan string) events {
	t.Helper()
	out := runWorkers(t, testRun{Name: "fault", Args: map[string]string{"plan": plan}}, Job{Seed: 1})
	mustSucceed(t, out)
	var e events
	if err := json.Unmarshal(out[0].Data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

type events []Event

// where returns the events of a kind that f picks.
func (e events) where(kind string, f func(Event) bool) events {
	var out events
	for _, x := range e {
		if x.Kind == kind && (f == nil || f(x)) {
			out = append(out, x)
		}
	}
	return out
}

func by(actor string) func(Event) bool { return func(e Event) bool { return e.Actor == actor } }

func TestCrashLosesMemory(t *testing.T) {
	e := faultEvents(t, "memory")
	crash := e.where(EvCrash, by("host-001"))
	if len(crash) != 1 {
		t.Fatalf("got %d crashes of host-001, want 1", len(crash))
	}
	died := crash[0].T
	accepted := e.where(EvAck, func(x Event) bool { return x.Host == "host-001" && x.Attr("phase") == "accepted" })
	if len(accepted) == 0 {
		t.Fatal("host-001 had accepted nothing when it died: the test tests nothing")
	}
	boots := e.where(EvBoot, by("host-001"))
	if len(boots) != 2 {
		t.Fatalf("got %d boots of host-001, want 2", len(boots))
	}
	for _, x := range e {
		if x.Actor == "host-001" && x.T > died && x.T < boots[1].T && x.Kind != EvUnsubscribed && x.Kind != EvFunlock {
			t.Errorf("%s of host-001 at %v, after its death at %v", x.Kind, x.T, died)
		}
	}
	late := e.where(EvRestartQueued, func(x Event) bool { return x.Host == "host-001" && x.T > died })
	if len(late) != 0 {
		t.Errorf("got %d restarts that only the dead daemon knew of, the first at %v", len(late), late[0].T)
	}
	if done := e.where(EvAck, func(x Event) bool { return x.Host == "host-002" && x.Attr("phase") == "done" }); len(done) != 4 {
		t.Errorf("host-002 is done with %d instances, want 4", len(done))
	}
}

func TestOrphanGitKeepsTheFlock(t *testing.T) {
	e := faultEvents(t, "orphan")
	crash := e.where(EvCrash, by("host-001"))
	if len(crash) == 0 {
		t.Fatal("nobody was killed while pulling")
	}
	died := crash[0].T
	freed := e.where(EvFunlock, func(x Event) bool {
		return x.Host == "host-001" && x.T >= died && x.Attr("mode") == "exclusive" && x.Attr("path") == "/srv/stargazer"
	})
	if len(freed) == 0 || freed[0].Attr("why") != "orphan_ended" || freed[0].T < died+100*time.Millisecond {
		t.Fatalf("the dead daemon's flock was freed by %v, want by the end of its orphan, well after %v", freed, died)
	}
	taken := e.where(EvFlock, func(x Event) bool {
		return x.Host == "host-001" && x.T > died && x.T < freed[0].T && x.Attr("path") == "/srv/stargazer"
	})
	if len(taken) != 0 {
		t.Errorf("the flock was taken at %v while the orphan ran until %v", taken[0].T, freed[0].T)
	}
}

func TestPowerFailure(t *testing.T) {
	e := faultEvents(t, "power")
	got := e.where(EvAck, func(x Event) bool { return x.Op == "r2" && x.Host == "host-001" })
	if len(got) != 0 {
		t.Errorf("a host without power acked %v", got[0])
	}
	report := e.where(EvReport, func(x Event) bool { return x.Op == "r2" })
	if len(report) != 1 || strings.Count(report[0].Attr("silent"), "@host-001") != 4 {
		t.Errorf("got %v, want the four instances of host-001 silent", report)
	}
	for _, x := range e.where(EvState, nil) {
		if x.Attr("active") != "active" || x.Attr("subscribed") != "true" {
			t.Errorf("at the end %s is %v, want active and subscribed", x.Instance, x.Attrs)
		}
	}
}

// TestReconnect wants a daemon to notice a cut at once and a black hole within
// its watchdog's time, and to be back soon after either heals.
func TestReconnect(t *testing.T) {
	for _, c := range []struct {
		plan         string
		healed, back time.Duration
	}{{"cut", 25 * time.Second, 32 * time.Second}, {"blackhole", 60 * time.Second, 75 * time.Second}} {
		e := faultEvents(t, c.plan)
		subs := e.where(EvSubscribed, by("host-001"))
		last := subs[len(subs)-1].T
		if last < 20*time.Second || last > c.back {
			t.Errorf("%s: subscribed for the last time at %v, want between the fault's end at %v and %v", c.plan, last, c.healed, c.back)
		}
	}
}

func TestFailoverLosesTheNewestWrites(t *testing.T) {
	e := faultEvents(t, "failover")
	locks := e.where(EvLock, nil)
	if len(locks) == 0 || locks[0].T > 13*time.Second {
		t.Fatal("no lock was held at the failover: the test tests nothing")
	}
	// A lock that was lost is not there to be unlocked by its owner.
	for _, x := range e.where(EvUnlock, nil) {
		if x.Attr("value") == locks[0].Attr("value") {
			t.Errorf("the lock %s survived a failover that lost 5 s of writes", x.Attr("value"))
		}
	}
	overlap := map[string]time.Duration{}
	for _, x := range e {
		key := x.Host + x.Attr("path")
		switch x.Kind {
		case EvPullStarted:
			if at, busy := overlap[key]; busy {
				t.Errorf("two pulls of %s at once, begun at %v and %v", key, at, x.T)
			}
			overlap[key] = x.T
		case EvPullEnded:
			delete(overlap, key)
		}
	}
}

// TestRefusedWrites wants a full Redis to refuse a whole MULTI, and the fleet
// to work once there is room.
func TestRefusedWrites(t *testing.T) {
	e := faultEvents(t, "oom")
	if got := e.where(EvAck, func(x Event) bool { return x.Op == "r1" && x.T < 20*time.Second }); len(got) != 0 {
		t.Errorf("got the ack %v from a server that was out of memory", got[0])
	}
	if got := e.where(EvKeyNoTTL, nil); len(got) != 0 {
		t.Errorf("got %v: half a MULTI was carried out", got[0])
	}
	report := e.where(EvReport, func(x Event) bool { return x.Op == "r2" })
	if len(report) != 1 || report[0].Attr("exit") != "0" {
		t.Errorf("got %v, want r2 to succeed everywhere", report)
	}
}

func TestComingAndGoing(t *testing.T) {
	e := faultEvents(t, "coming and going")
	for _, x := range e.where(EvAssert, nil) {
		if x.Attr("ok") != "true" {
			t.Errorf("assertion failed: %s", x.Detail)
		}
	}
	report := e.where(EvReport, func(x Event) bool { return x.Op == "r1" })
	if len(report) != 1 {
		t.Fatalf("got %d reports, want 1", len(report))
	}
	ok, refused := strings.Split(report[0].Attr("ok"), ","), strings.Split(report[0].Attr("refused"), ",")
	if !slices.Contains(ok, "web@late") {
		t.Errorf("ok: %v, want web@late among them", ok)
	}
	if len(refused) != 1 || refused[0] != "agents@host-001" {
		t.Errorf("refused: %v, want the held agents@host-001 only", refused)
	}
	if all := report[0].Attr("ok") + report[0].Attr("silent"); strings.Contains(all, "host-002") {
		t.Errorf("host-002 has left and is still expected: %s", all)
	}
}

// A run that ends while daemons have acks to send ends well: they try for a
// while, and a goroutine of go-redis that no one can wait for dials again until
// it sees that its pool is closed.
func TestEndsWithAcksUnsent(t *testing.T) {
	e := faultEvents(t, "unsent")
	final := func(x Event) bool { return x.Attr("phase") == "done" }
	if restarts, acks := len(e.where(EvRestartFinished, nil)), len(e.where(EvAck, final)); restarts == 0 || acks > 0 {
		t.Fatalf("%d restarts ended and %d were acked: the test tests nothing", restarts, acks)
	}
}
