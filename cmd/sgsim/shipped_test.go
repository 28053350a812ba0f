package main

import (
	"testing"

	"github.com/sgfleet/sgfleet/sim"
)

// The shipped scenarios are many seeds, and at least half of them exercise what
// is hardest to keep deterministic: host daemons that each serve four services
// or more over one client. A hundred run twice, and must give equal event logs.
func TestShippedSeeds(t *testing.T) {
	files, err := scenarioFiles([]string{"../../scenarios"})
	if err != nil {
		t.Fatal(err)
	}
	seeds, shared, twice := 0, 0, 0
	for _, file := range files {
		sc, _, err := sim.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		hosts, four := sc.Plan().Hosts, 0
		for _, h := range hosts {
			instances := 0
			for _, s := range h.Services {
				instances += max(1, s.Instances)
			}
			if h.Shape == sim.DaemonHost && instances >= 4 {
				four++
			}
		}
		seeds += len(sc.Seeds.List)
		twice += (len(sc.Seeds.List) + recheckEvery - 1) / recheckEvery
		if 2*four > len(hosts) { // most hosts; a gateway often has one of its own
			shared += len(sc.Seeds.List)
		}
		t.Logf("%-28s %3d seeds, %d of %d hosts have a host daemon of 4 services or more", sc.Name, len(sc.Seeds.List), four, len(hosts))
	}
	if seeds < 500 {
		t.Errorf("the scenarios have %d seeds, want at least 500", seeds)
	}
	if 2*shared < seeds {
		t.Errorf("%d of %d seeds have host daemons of 4 services or more on most hosts, want half", shared, seeds)
	}
	if twice < 100 {
		t.Errorf("%d seeds run twice, want at least 100", twice)
	}
	t.Logf("%d of %d seeds, %d run twice", shared, seeds, twice)
}
