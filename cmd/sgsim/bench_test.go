package main

import (
	"testing"

	"github.com/sgfleet/sgfleet/sim"
)

// seedsScenario is what seeds per second are measured on: 20 hosts × 4 services,
// one virtual minute, a fault every five seconds, every promise judged.
const seedsScenario = `sgsim: 1
name: seeds
until: 60s
settle: 15s
fleet: {generate: [{hosts: 20, services: {inference: {checkout: /srv/stargazer}, agents: {checkout: /srv/stargazer}, web: {}, gateway: {}}}]}
timeline:
  - {at: 10s, publish: {id: r1, op: restart, target: all}}
  - {at: 25s, publish: {id: p1, op: pull, target: all}}
chaos:
  window: [3s, 44s]
  interval: {dist: fixed, mean: 5s}
  for: 5s
  weights: {crash_service: 3, crash_daemon: 3, crash_host: 1, cut: 3, partition: 3, slow_git: 2, slow_restart: 2, redis_restart: 1}
  max_concurrent: 8
`

// BenchmarkSeeds reports how many seeds a second the workers get through, on
// all cores.
func BenchmarkSeeds(b *testing.B) {
	sc, _, err := sim.Parse("seeds.yaml", []byte(seedsScenario))
	if err != nil {
		b.Fatal(err)
	}
	seeds := make([]int64, 50)
	for i := range seeds {
		seeds[i] = int64(i + 1)
	}
	_, events, err := sim.RunSeed(b.Context(), sc, 1, sim.SeedOptions{})
	if err != nil {
		b.Fatal(err)
	}
	faults := 0
	for _, e := range events {
		if e.Kind == sim.EvFault {
			faults++
		}
	}
	if faults < 5 {
		b.Fatalf("seed 1 has %d faults, want at least 5", faults)
	}
	for b.Loop() {
		o, err := sim.RunScenario(b.Context(), sc, seeds, sim.RunOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if o.Failed > 0 {
			b.Fatalf("%d of %d seeds failed", o.Failed, o.Seeds)
		}
	}
	b.ReportMetric(float64(len(seeds)*b.N)/b.Elapsed().Seconds(), "seeds/s")
	b.ReportMetric(float64(faults), "faults/seed")
}
