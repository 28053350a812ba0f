package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sgfleet/sgfleet/fleet"
)

// largePlan is hosts with ten services each, one restart of all, and virtual
// time to pass.
func largePlan(hosts int, until, heartbeat time.Duration) *Plan {
	cfg := fleet.Default()
	cfg.HeartbeatInterval = fleet.Duration(heartbeat)
	p := &Plan{
		Name: "large", Config: cfg, Until: until, Settle: 10 * time.Second, Models: DefaultModels(),
		Timeline: []Step{at(30*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "all"})},
	}
	for i := range hosts {
		p.Hosts = append(p.Hosts, HostPlan{Name: fmt.Sprintf("host-%04d", i+1), Services: map[string]fleet.Service{
			"inference": {Tier: "inference", Checkout: "/srv/stargazer", Instances: 7},
			"agents":    {Tier: "agents", Checkout: "/srv/stargazer", Instances: 2},
			"web":       {Tier: "web", Checkout: "/srv/web"},
		}})
	}
	return p
}

func init() {
	testRuns["large"] = func(ctx context.Context, job Job, t testRun) (any, error) {
		hosts, _ := strconv.Atoi(t.Args["hosts"])
		until, _ := time.ParseDuration(t.Args["until"])
		beat, _ := time.ParseDuration(t.Args["beat"])
		r, err := Run(ctx, largePlan(hosts, until, beat), job.Seed, Options{})
		if err != nil {
			return nil, err
		}
		return map[string]time.Duration{"real": r.Real, "virtual": r.Virtual, "commands": time.Duration(r.Commands)}, nil
	}
	testRuns["minimal"] = func(ctx context.Context, job Job, t testRun) (any, error) {
		hosts, _ := strconv.Atoi(t.Args["hosts"])
		until, _ := time.ParseDuration(t.Args["until"])
		beat, _ := time.ParseDuration(t.Args["beat"])
		return minimalFleet(ctx, hosts, until, beat)
	}
}

// minimalFleet is the floor: go-redis clients on simulated links to miniredis
// that do nothing but what the daemons do when idle: per host, one pipelined
// heartbeat for each interval and one PING of the subscription each 5 s.
func minimalFleet(ctx context.Context, hosts int, until, beat time.Duration) (map[string]time.Duration, error) {
	began := realNow()
	w, err := NewWorld(ctx, &Plan{
		Config: fleet.Default(), Models: DefaultModels(), Until: until, Settle: 0,
		Hosts: []HostPlan{{Name: "none", Services: map[string]fleet.Service{"web": {Tier: "web"}}, State: map[string]string{"web": "inactive"}, Absent: true}},
	}, 1, Options{})
	if err != nil {
		return nil, err
	}
	w.net.q = moduli[3]
	payload := make([]byte, 600)
	for i := range payload {
		payload[i] = 'x'
	}
	for i := range hosts {
		p := w.newProcess(w.control, fmt.Sprintf("min-%d", i), nil)
		p.run = func(ctx context.Context, inc *incarnation) error {
			c := redis.NewClient(&redis.Options{
				Addr: "10.0.0.1:6379", Dialer: inc.dialer, Protocol: 2, DisableIdentity: true, MaxRetries: -1,
				ReadBufferSize: 4096, WriteBufferSize: 4096,
				MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			})
			defer c.Close()
			sub := c.Subscribe(ctx, "sg:channel:control")
			defer sub.Close()
			if _, err := sub.Receive(ctx); err != nil {
				return err
			}
			var names []string
			var pairs []any
			for s := range 11 {
				names = append(names, fmt.Sprintf("s%d@%s", s, inc.proc.name))
				pairs = append(pairs, names[s], payload)
			}
			beats, pings := time.NewTicker(beat), time.NewTicker(5*time.Second)
			defer beats.Stop()
			defer pings.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-pings.C:
					if err := sub.Ping(ctx); err != nil {
						return err
					}
					if _, err := sub.Receive(ctx); err != nil {
						return err
					}
				case <-beats.C:
					_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
						p.Time(ctx)
						p.HGetAll(ctx, "sg:control:hold")
						p.HMGet(ctx, "sg:control:live", names...)
						p.HSet(ctx, "sg:control:live", pairs...)
						return nil
					})
					if err != nil {
						return err
					}
				}
			}
		}
		w.dir.after(time.Duration(i+1)*(5*time.Second/time.Duration(hosts)), "boot "+p.name, func() { p.boot("") })
	}
	time.Sleep(until)
	r, err := w.Close()
	if err != nil {
		return nil, err
	}
	return map[string]time.Duration{"real": realNow() - began, "virtual": until, "commands": time.Duration(r.Commands)}, nil
}

// BenchmarkFleet reports how fast virtual time passes beside a minimal fleet in
// the same process count, and what memory it takes.
func BenchmarkFleet(b *testing.B) {
	sizes := []struct {
		hosts int
		until string
		beat  string
	}{
		{10, "10m", "10s"},
		{10, "10m", "24h"},
		{100, "1h", "10s"},
		{100, "1h", "24h"},
		{1000, "10m", "10s"},
		{1000, "10m", "24h"},
	}
	for _, s := range sizes {
		b.Run(fmt.Sprintf("services=%d/virtual=%s/heartbeat=%s", s.hosts*10, s.until, s.beat), func(b *testing.B) {
			var product, floor, virtual time.Duration
			var rss int64
			for b.Loop() {
				for _, name := range []string{"large", "minimal"} {
					o := benchWorker(b, name, map[string]string{"hosts": strconv.Itoa(s.hosts), "until": s.until, "beat": s.beat})
					var took map[string]time.Duration
					if err := json.Unmarshal(o.Data, &took); err != nil {
						b.Fatal(err)
					}
					if name == "minimal" {
						floor += took["real"]
						continue
					}
					product += took["real"]
					virtual += took["virtual"]
					rss = max(rss, o.MaxRSS)
					b.ReportMetric(float64(took["commands"]), "commands/run")
				}
			}
			b.ReportMetric(virtual.Seconds()/product.Seconds(), "virtual:real")
			b.ReportMetric(product.Seconds()/floor.Seconds(), "×minimal")
			b.ReportMetric(float64(rss)/(1<<20), "peak-MB")
			b.ReportMetric(product.Seconds()/float64(b.N), "s/run")
		})
	}
}

func benchWorker(b *testing.B, name string, args map[string]string) Output {
	b.Helper()
	data, err := json.Marshal(testRun{Name: name, Args: args})
	if err != nil {
		b.Fatal(err)
	}
	done := false
	var out Output
	err = Pool{Workers: 1}.Run(b.Context(), func() (Job, bool) {
		first := !done
		done = true
		return Job{Seed: 1, Data: data, Procs: 2}, first
	}, func(o Output) { out = o })
	if err != nil {
		b.Fatal(err)
	}
	if out.Crash != nil {
		b.Fatal(out.Crash)
	}
	if out.Err != "" {
		b.Fatal(out.Err)
	}
	return out
}
