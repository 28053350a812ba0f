package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// TestMain lets the test binary be its own worker process: one bubble each.
func TestMain(m *testing.M) {
	if name := os.Getenv("SIM_TEST_WORKER"); name != "" {
		inBubble(func() int {
			var job testJob
			if err := json.Unmarshal([]byte(name), &job); err != nil {
				panic(err)
			}
			r, err := Run(context.Background(), job.plan(), job.Seed, Options{Commands: job.Commands})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			if job.Events != "" {
				f, err := os.Create(job.Events)
				if err != nil {
					panic(err)
				}
				_ = WriteEvents(f, r.Events)
				f.Close()
			}
			fmt.Printf("%s commands=%d events=%d virtual=%v real=%v\n", r.Hash, r.Commands, len(r.Events), r.Virtual, r.Real)
			return 0
		})
	}
	os.Exit(m.Run())
}

type testJob struct {
	Seed     int64
	Hosts    int
	Embedded bool
	Commands bool
	Events   string
}

func (j testJob) plan() *Plan {
	p := &Plan{
		Name: "test", Config: fleet.Default(), Until: 3 * time.Minute, Settle: 30 * time.Second, Models: DefaultModels(),
		Timeline: []Step{
			{At: 10 * time.Second, Name: "publish", Action: &publish{ID: "r1", Op: "restart", Target: "all"}},
			{At: 70 * time.Second, Name: "publish", Action: &publish{ID: "p1", Op: "pull", Target: "all"}},
		},
	}
	for i := range j.Hosts {
		h := HostPlan{Name: fmt.Sprintf("host-%03d", i+1), Services: map[string]fleet.Service{
			"inference": {Tier: "inference", Checkout: "/srv/stargazer", Instances: 3},
			"web":       {Tier: "web", Checkout: "/srv/stargazer"},
		}}
		if j.Embedded {
			h.Shape = DaemonEmbedded
		}
		p.Hosts = append(p.Hosts, h)
	}
	return p
}
