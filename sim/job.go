package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// seedJob is one seed of one scenario, as a worker process gets it.
type seedJob struct {
	File     string `json:"file"`
	Text     []byte `json:"text"`
	Events   bool   `json:"events,omitempty"`   // send the event log back
	Commands bool   `json:"commands,omitempty"` // with every Redis command in it
	RedisURL string `json:"redis_url,omitempty"`
}

// jobReply is what a worker says of its job.
type jobReply struct {
	Run    SeedRun `json:"run"`
	Events []Event `json:"events,omitempty"`
}

// Work is what a worker process does: one seed of one scenario, in its bubble
// of virtual time. Give it to [WorkerMain].
func Work(ctx context.Context, j Job) (any, error) {
	var s seedJob
	if err := json.Unmarshal(j.Data, &s); err != nil {
		return nil, fmt.Errorf("reading the job: %w", err)
	}
	sc, _, err := Parse(s.File, s.Text)
	if err != nil {
		return nil, err
	}
	res, err := Run(ctx, sc.plan, j.Seed, Options{RedisURL: s.RedisURL, Commands: s.Commands})
	if err != nil {
		return nil, err
	}
	reply := jobReply{Run: SeedRun{Seed: j.Seed, Hash: res.Hash, Virtual: res.Virtual, Real: res.Real}}
	reply.Run.Verdict = Judge(sc, j.Seed, res.Events)
	if s.Events {
		reply.Events = res.Events
	}
	return reply, nil
}

// job makes a worker's job of one seed.
func (sc *Scenario) job(seed int64, s seedJob) Job {
	s.File, s.Text = sc.File, sc.Text
	data, _ := json.Marshal(s) // plain data always encodes
	return Job{Seed: seed, Data: data, RealTime: s.RedisURL != ""}
}

// RunOptions say how scenarios are run.
type RunOptions struct {
	Workers int // 0: one a core
	// Recheck runs every Nth seed again, with more than one thread, and
	// compares the event logs; 0: none.
	Recheck  int
	RedisURL string        // run in real time against the server there
	OnRun    func(SeedRun) // called with each seed as it ends, one at a time; may be nil
}

// RunScenario runs seeds of a scenario in worker processes and returns the sum.
func RunScenario(ctx context.Context, sc *Scenario, seeds []int64, o RunOptions) (*Outcome, error) {
	began := time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	jobs := make([]Job, 0, len(seeds))
	twice := map[int64]bool{}
	for i, seed := range seeds {
		j := sc.job(seed, seedJob{RedisURL: o.RedisURL})
		jobs = append(jobs, j)
		if o.Recheck > 0 && i%o.Recheck == 0 && o.RedisURL == "" {
			twice[seed] = true
			j.Procs = 4
			jobs = append(jobs, j)
		}
	}
	next := 0
	take := func() (Job, bool) {
		if next == len(jobs) {
			return Job{}, false
		}
		next++
		return jobs[next-1], true
	}
	var runs []SeedRun
	first := map[int64]SeedRun{}
	stopped := false
	err := Pool{Workers: o.Workers}.Run(ctx, take, func(out Output) {
		s := seedRun(out)
		if twice[s.Seed] {
			before, second := first[s.Seed]
			if !second {
				first[s.Seed] = s
				return
			}
			s = recheck(before, s)
		}
		runs = append(runs, s)
		if o.OnRun != nil {
			o.OnRun(s)
		}
		if sc.Seeds.StopOnFirst && s.Failed() && !stopped {
			stopped = true
			stop()
		}
	})
	if err != nil && !stopped {
		return nil, fmt.Errorf("running %s: %w", sc.Name, err)
	}
	out := Summarize(sc, runs)
	out.Real, out.Stopped = time.Since(began), stopped
	return out, nil
}

// recheck compares two runs of one seed and returns what is worse.
func recheck(a, b SeedRun) SeedRun {
	if a.Crash != "" || a.Internal != "" {
		return a
	}
	if b.Crash != "" || b.Internal != "" {
		return b
	}
	a.Rechecked = true
	if a.Hash != b.Hash {
		a.Differs = b.Hash
	}
	return a
}

// seedRun reads what a worker says of its job; one that died is a crash of its
// seed.
func seedRun(out Output) SeedRun {
	failed := SeedRun{Seed: out.Job.Seed, Real: out.Real}
	switch {
	case out.Crash != nil:
		failed.Crash = out.Crash.Exit + "\n" + out.Crash.Stderr
		return failed
	case out.Err != "":
		failed.Internal = out.Err
		return failed
	}
	var r jobReply
	if err := json.Unmarshal(out.Data, &r); err != nil {
		failed.Internal = "a worker's reply: " + err.Error()
		return failed
	}
	return r.Run
}

// SeedOptions say how one seed is run for its event log.
type SeedOptions struct {
	Commands bool   // log every Redis command, too
	RedisURL string // run in real time against the server there
	Threads  int    // of the worker; 0 means 1
}

// RunSeed runs one seed and returns its whole event log.
func RunSeed(ctx context.Context, sc *Scenario, seed int64, o SeedOptions) (SeedRun, []Event, error) {
	job, left := sc.job(seed, seedJob{Events: true, Commands: o.Commands, RedisURL: o.RedisURL}), true
	job.Procs = o.Threads
	var run SeedRun
	var events []Event
	err := Pool{Workers: 1}.Run(ctx, func() (Job, bool) {
		more := left
		left = false
		return job, more
	}, func(out Output) {
		run = seedRun(out)
		var r jobReply
		if run.Verdict != nil && json.Unmarshal(out.Data, &r) == nil {
			events = r.Events
		}
	})
	if err != nil {
		return run, nil, fmt.Errorf("running seed %d of %s: %w", seed, sc.Name, err)
	}
	return run, events, nil
}
