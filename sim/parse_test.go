package sim

import (
	"strings"
	"testing"
	"time"
)

const goodScenario = `sgsim: 1
name: parse-good
description: everything that a file can say
seeds: {from: 3, count: 4, stop_on_first: true}
until: 4m
settle: 30s
config: {lock_ttl: 90, splay: 1s}
fleet:
  generate: [{hosts: 3, services: {inference: {replicas: 2, checkout: /srv/stargazer}, worker: {tier: agents, state: inactive}}}]
  hosts: {gw-1: {daemon: embedded, services: {gateway: {checkout: /srv/stargazer}}}}
models: {git_pull: {p50: 3s, p99: 20s, fail: 1%}}
expect:
  always: [no_replay, {pull_overlap: 0}, {restarts: {tier: agents, max: 0}}, {min_live: {tier: inference, percent: 50}}]
  finally: [{subscribed: all_live}]
  sometimes: [tree_torn, ack held]
  thresholds: {ack_latency: ["p(99)<2s", "max<5s"]}
allow: {gateway_last: there is one gateway only here}
`

func TestParse(t *testing.T) {
	sc, warnings, err := Parse("good.yaml", []byte(goodScenario))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if got := sc.Seeds; len(got.List) != 4 || got.List[0] != 3 || !got.StopOnFirst {
		t.Errorf("seeds: %+v", got)
	}
	p := sc.Plan()
	if len(p.Hosts) != 4 || p.Hosts[0].Name != "gw-1" || p.Hosts[0].Shape != DaemonEmbedded {
		t.Errorf("hosts: %+v", p.Hosts)
	}
	if got := len(p.Members()); got != 1+3*3 {
		t.Errorf("members: %d, want 10", got)
	}
	if got := p.Config.LockTTL.D(); got != 90*time.Second {
		t.Errorf("lock_ttl: %v", got)
	}
	if got := p.Models.GitPull.Fail; got != 0.01 {
		t.Errorf("fail: %v", got)
	}
	if got := p.Hosts[1].State["worker"]; got != "inactive" {
		t.Errorf("state: %q", got)
	}
}

// Every mistake of a file is reported in one go, each at its place.
func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, replace, with, want string }{
		{"unknown key", "description:", "desciption:", "unknown key \"desciption\""},
		{"hint", "description:", "desciption:", "did you mean description?"},
		{"no unit", "until: 4m", "until: 4", "did you mean 4s?"},
		{"version", "sgsim: 1", "sgsim: 2", "format version"},
		{"name", "name: parse-good", "name: Parse Good", "name: want lower-case"},
		{"tier", "tier: agents,", "tier: agent,", "no tier is called \"agent\""},
		{"expectation", "no_replay,", "no_repaly,", "unknown expectation \"no_repaly\""},
		{"bound", "max: 0}}, {min", "max: -1}}, {min", "is negative"},
		{"ref", "tier: inference, percent", "tier: inferense, percent", "no tier is called \"inferense\""},
		{"threshold", "p(99)<2s", "p99<2s", "is no threshold"},
		{"metric", "ack_latency:", "ack_latncy:", "did you mean ack_latency?"},
		{"sometimes", "tree_torn", "tree_tron", "did you mean tree_torn?"},
		{"event", "tree_torn", "event boott", "did you mean boot?"},
		{"allow", "there is one gateway only here", "because", "needs a reason"},
		{"where", "finally: [{subscribed: all_live}]", "finally: [{pull_overlap: 0}]", "may not stand under finally"},
		{"settle", "settle: 30s", "settle: 5m", "leaves nothing"},
		{"seeds", "count: 4", "count: 0", "is not between"},
		{"share", "fail: 1%", "fail: lots", "percentage"},
		{"enum", "daemon: embedded", "daemon: embeded", "did you mean embedded?"},
		{"list", "sometimes: [tree_torn, ack held]", "sometimes: tree_torn", "want a list"},
		{"syntax", "until: 4m", "until: [4m", "bad.yaml:"},
		{"relative", "checkout: /srv/stargazer}, worker", "checkout: srv/stargazer}, worker", "not an absolute path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(goodScenario, c.replace, c.with, 1)
			if text == goodScenario {
				t.Fatalf("the scenario has no %q", c.replace)
			}
			_, _, err := Parse("bad.yaml", []byte(text))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got:\n%v\nwant %q", err, c.want)
			}
			if !strings.HasPrefix(err.Error(), "bad.yaml:") {
				t.Errorf("no place: %v", err)
			}
		})
	}
}

func TestParseReportsAllAtOnce(t *testing.T) {
	text := strings.NewReplacer("until: 4m", "until: 4", "tree_torn", "tree_tron", "count: 4", "cuont: 4").Replace(goodScenario)
	_, _, err := Parse("bad.yaml", []byte(text))
	fe, ok := err.(*FileError)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if n, _ := fe.Counts(); n != 3 {
		t.Errorf("got %d errors, want 3:\n%v", n, err)
	}
}
