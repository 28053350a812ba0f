package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// TestMain lets the test binary be its own worker processes.
func TestMain(m *testing.M) {
	// A profile has to be begun outside the bubble: its writer keeps real time.
	if f := os.Getenv("SIM_CPUPROFILE"); f != "" {
		out, err := os.Create(f)
		if err != nil {
			panic(err)
		}
		if err := pprof.StartCPUProfile(out); err != nil {
			panic(err)
		}
		stopProfile = pprof.StopCPUProfile
	}
	WorkerMain(func(ctx context.Context, job Job) (any, error) {
		var t testRun
		if err := json.Unmarshal(job.Data, &t); err != nil {
			return nil, err
		}
		defer stopProfile()
		return testRuns[t.Name](ctx, job, t)
	})
	os.Exit(m.Run())
}

// stopProfile ends a profile that is under way.
var stopProfile = func() {}

// testRuns are what the tests run in a bubble, by name.
var testRuns = map[string]func(ctx context.Context, job Job, t testRun) (any, error){}

// testRun is the data of a test's job.
type testRun struct {
	Name string
	Args map[string]string
}

// runWorkers runs one of testRuns for each seed, twice when again is set, and
// returns the outputs in the order of the jobs.
func runWorkers(t *testing.T, run testRun, jobs ...Job) []Output {
	t.Helper()
	data, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	for i := range jobs {
		jobs[i].Data = data
	}
	next := 0
	var out []Output
	pool := Pool{Timeout: 4 * time.Minute}
	err = pool.Run(t.Context(), func() (Job, bool) {
		if next == len(jobs) {
			return Job{}, false
		}
		next++
		return jobs[next-1], true
	}, func(o Output) { out = append(out, o) })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(out, func(a, b Output) int { return int(a.Job.Seed - b.Job.Seed) })
	return out
}

// mustSucceed fails the test for crashed and failed workers.
func mustSucceed(t *testing.T, out []Output) {
	t.Helper()
	for _, o := range out {
		if o.Crash != nil {
			t.Fatal(o.Crash)
		}
		if o.Err != "" {
			t.Fatalf("seed %d: %s", o.Job.Seed, o.Err)
		}
	}
}

// hosts makes a fleet of n hosts with four services of one checkout each.
func hosts(n int, shape string) []HostPlan {
	var out []HostPlan
	for i := range n {
		out = append(out, HostPlan{
			Name: fmt.Sprintf("host-%03d", i+1), Shape: shape,
			Services: map[string]fleet.Service{
				"inference": {Tier: "inference", Checkout: "/srv/stargazer", Instances: 2},
				"agents":    {Tier: "agents", Checkout: "/srv/stargazer"},
				"web":       {Tier: "web", Checkout: "/srv/web"},
			},
		})
	}
	return append(out, HostPlan{Name: "gw-1", Shape: shape, Services: map[string]fleet.Service{
		"gateway": {Tier: "gateway", Checkout: "/srv/stargazer"},
	}})
}

// at is a timeline entry.
func at(t time.Duration, name string, a Action) Step { return Step{At: t, Name: name, Action: a} }

// basePlan is a fleet to which nothing happens.
func basePlan(n int, shape string, timeline ...Step) *Plan {
	return &Plan{
		Name: "test", Config: fleet.Default(), Hosts: hosts(n, shape), Until: 150 * time.Second, Settle: 30 * time.Second,
		Models: DefaultModels(), Timeline: timeline,
	}
}

// everyFault weighs each chaos fault the same.
func everyFault() map[string]float64 {
	w := map[string]float64{}
	for _, f := range ChaosFaults() {
		w[f] = 1
	}
	return w
}

// stormPlan is 20 hosts with four services each, ops of every kind, and faults
// of every kind.
func stormPlan(shape string) *Plan {
	p := basePlan(20, shape,
		at(10*time.Second, "publish", &publish{ID: "r1", Op: "restart", Target: "all"}),
		at(11*time.Second, "publish_raw", &publishRaw{Bytes: `{"op":"restart"`, Repeat: 3}),
		at(12*time.Second, "duplicate", &duplicate{Op: "r1"}),
		at(45*time.Second, "publish", &publish{ID: "p1", Op: "pull", Target: "all"}),
		at(46*time.Second, "kill_lock_holder", &killLockHolder{Op: "p1", Host: "host-00*", Within: fleet.Duration(20 * time.Second)}),
		at(80*time.Second, "publish", &publish{ID: "u1", Op: "update", Target: "inference"}),
	)
	p.Chaos = &Chaos{Window: [2]time.Duration{5 * time.Second, 2 * time.Minute}, Interval: 4 * time.Second, Weights: everyFault(), MaxConcurrent: 4, For: 8 * time.Second}
	return p
}

func init() {
	testRuns["storm"] = func(ctx context.Context, job Job, t testRun) (any, error) {
		r, err := Run(ctx, stormPlan(t.Args["shape"]), job.Seed, Options{Commands: t.Args["commands"] != ""})
		if err != nil {
			return nil, err
		}
		if f := t.Args["events"]; f != "" {
			file, err := os.Create(fmt.Sprintf("%s-%d-%d", f, job.Seed, job.Procs))
			if err != nil {
				return nil, err
			}
			defer file.Close()
			if err := WriteEvents(file, r.Events); err != nil {
				return nil, err
			}
		}
		kinds := map[string]int{}
		for _, e := range r.Events {
			kinds[e.Kind]++
		}
		return stormOutput{r.Hash, r.Commands, kinds}, nil
	}
}

type stormOutput struct {
	Hash     string
	Commands int
	Kinds    map[string]int
}

// TestSameSeedSameLog runs storms twice each, at GOMAXPROCS 1 and 4, and wants
// equal logs, every byte to Redis included.
func TestSameSeedSameLog(t *testing.T) {
	for _, shape := range []string{DaemonHost, DaemonEmbedded} {
		t.Run(shape, func(t *testing.T) {
			var jobs []Job
			for seed := range testSeeds(4) {
				jobs = append(jobs, Job{Seed: seed, Procs: 1}, Job{Seed: seed, Procs: 4})
			}
			run := testRun{Name: "storm", Args: map[string]string{"shape": shape, "events": os.Getenv("SIM_EVENTS"), "commands": os.Getenv("SIM_EVENTS")}}
			out := runWorkers(t, run, jobs...)
			mustSucceed(t, out)
			faults := 0
			for i := 0; i < len(out); i += 2 {
				var a, b stormOutput
				if err := json.Unmarshal(out[i].Data, &a); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(out[i+1].Data, &b); err != nil {
					t.Fatal(err)
				}
				if a.Hash != b.Hash {
					t.Errorf("seed %d: got two logs: %s with %v, and %s with %v", out[i].Job.Seed, a.Hash, a.Kinds, b.Hash, b.Kinds)
				}
				faults += a.Kinds[EvFault]
				t.Logf("seed %d: %d commands, %d faults, %v", out[i].Job.Seed, a.Commands, a.Kinds[EvFault], out[i].Real)
			}
			if want := 5 * len(out) / 2; faults < want {
				t.Errorf("got %d faults in all, want at least %d", faults, want)
			}
		})
	}
}

// TestCrashedWorker wants the seed and the reason of a bubble that dies, and
// the other seeds unharmed.
func TestCrashedWorker(t *testing.T) {
	out := runWorkers(t, testRun{Name: "crash"}, Job{Seed: 1}, Job{Seed: 2}, Job{Seed: 3})
	if len(out) != 3 {
		t.Fatalf("got %d outputs, want 3", len(out))
	}
	for _, o := range out {
		crashed := o.Crash != nil
		if want := o.Job.Seed == 2; crashed != want {
			t.Errorf("seed %d: crashed = %v, want %v", o.Job.Seed, crashed, want)
		}
		if crashed && (!strings.Contains(o.Crash.Stderr, "planted panic") || o.Crash.Seed != 2) {
			t.Errorf("got %v, want the planted panic of seed 2", o.Crash)
		}
	}
}

func init() {
	testRuns["crash"] = func(_ context.Context, job Job, _ testRun) (any, error) {
		if job.Seed == 2 {
			panic("planted panic")
		}
		return job.Seed, nil
	}
	testRuns["clock"] = func(context.Context, Job, testRun) (any, error) {
		began, real := time.Now(), realNow()
		time.Sleep(time.Hour)
		return []time.Duration{time.Since(began), realNow() - real}, nil
	}
}

// TestBubble wants an hour of virtual time to pass in no time outside go test's
// own runner. When a toolchain breaks this, inBubble needs another way to a
// *testing.T.
func TestBubble(t *testing.T) {
	out := runWorkers(t, testRun{Name: "clock"}, Job{Seed: 1})
	mustSucceed(t, out)
	var took []time.Duration
	if err := json.Unmarshal(out[0].Data, &took); err != nil {
		t.Fatal(err)
	}
	if took[0] != time.Hour || took[1] > 30*time.Second {
		t.Errorf("an hour's sleep took %v virtual and %v real time, want 1h and next to nothing", took[0], took[1])
	}
}

// testSeeds is n, or SIM_SEEDS for a longer look.
func testSeeds(n int64) int64 {
	if s, err := strconv.ParseInt(os.Getenv("SIM_SEEDS"), 10, 64); err == nil {
		return s
	}
	return n
}
