package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// logOf makes an event log of lines "SECONDS KIND ACTOR INSTANCE OP key=value…";
// "-" is nothing.
func logOf(t *testing.T, text string) []Event {
	t.Helper()
	var out []Event
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 5 {
			t.Fatalf("line %q: want at least five fields", line)
		}
		var sec float64
		if _, err := fmt.Sscan(f[0], &sec); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		get := func(s string) string { return strings.TrimPrefix(s, "-") }
		e := Event{Seq: len(out) + 1, T: time.Duration(sec * float64(time.Second)), Kind: f[1], Actor: get(f[2]), Instance: get(f[3]), Op: get(f[4]), Attrs: map[string]string{}}
		if _, host, ok := strings.Cut(e.Instance, "@"); ok {
			e.Host = host
		}
		for _, kv := range f[5:] {
			k, v, _ := strings.Cut(kv, "=")
			if k == "host" {
				e.Host = v
				continue
			}
			e.Attrs[k] = v
		}
		out = append(out, e)
	}
	return out
}

// twoHosts is the beginning of every log below: web and gateway, each on a host
// with a daemon.
const twoHosts = `
0 member h1 web@h1 - tier=web process=h1 state=active checkout=/srv/a revision=r0 done_timeout_ms=60000
0 member h2 gateway@h2 - tier=gateway process=h2 state=active done_timeout_ms=60000
0 member self web@self - tier=web process=web@self state=active done_timeout_ms=60000
1 boot h1 - - instances=web@h1
1 boot h2 - - instances=gateway@h2
1 boot web@self web@self - instances=web@self
2 subscribed h1 - - channel=c
2 subscribed h2 - - channel=c
2 subscribed web@self web@self - channel=c
2 heartbeat h1 web@h1 -
2 heartbeat h2 gateway@h2 -
2 heartbeat web@self web@self -
10 dispatch operator - r1 op=restart target=all
`

const publishedAll = `
10 publish operator - r1 op=restart target=all expected=web@h1,gateway@h2,web@self live=web@h1,gateway@h2,web@self gateway_deadline_ms=120000
10 delivered h1 - r1
10 delivered h2 - r1
10 delivered web@self - r1
`

func testScenario(t *testing.T) *Scenario {
	t.Helper()
	sc, _, err := Parse("test.yaml", []byte(`sgsim: 1
name: test
fleet:
  hosts:
    h1: {services: {web: {checkout: /srv/a}}}
    h2: {services: {gateway: {}}}
    self: {daemon: embedded, services: {web: {}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

// Each invariant finds what breaks it, and lets pass what only looks like it.
func TestInvariants(t *testing.T) {
	for _, c := range []struct {
		name, invariant, log string
		want                 string // part of the violation's detail; "" means none
	}{
		{"acts on what it heard", "no_replay", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1`, ""},
		{"acts in its next life", "no_replay", publishedAll + `
11 crash h1 - -
20 boot h1 - - instances=web@h1
21 subscribed h1 - -
22 ack h1 web@h1 r1 phase=accepted first=true
23 restart_queued systemd@h1 web@h1 r1 process=h1`, "web@h1 was restarted for r1"},
		{"restarts twice", "at_most_once", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
13 restart_finished systemd@h1 web@h1 r1 result=done
14 restart_queued systemd@h1 web@h1 r1 process=h1`, "web@h1 was restarted twice for r1"},
		{"restarts without an op", "at_most_once", `
10 publish operator - r1 op=ping target=gateway expected=gateway@h2 live=gateway@h2
12 restart_queued systemd@h1 web@h1 - process=h1`, "although no op had reached it"},
		{"a person's own systemctl", "at_most_once", publishedAll + `
12 restart_queued systemd@h1 web@h1 -`, ""},
		{"answers what is not for it", "targets_only", `
10 publish operator - r2 op=restart target=gateway expected=gateway@h2 live=gateway@h2
11 ack h1 web@h1 r2 phase=accepted first=true`, "does not select it"},
		{"an empty target moves nobody", "targets_only", `
10 publish operator - r2 op=restart target= expected= live=
10 delivered h1 - r2
11 restart_queued systemd@h1 web@h1 r2 process=h1`, "does not select it"},
		{"releases another's lock", "lock_owner_only", publishedAll + `
11 lock h1 web@h1 r1 key=k value=web@h1:t1 path=/srv/a ttl_ms=90000
12 unlock h2 - - key=k value=web@h1:t1 path=/srv/a`, "h2 released the lock k that h1"},
		{"releases its lock too early", "lock_owner_only", publishedAll + `
11 lock h1 web@h1 r1 key=k value=web@h1:t1 path=/srv/a ttl_ms=90000 host=h1
12 pull_started h1 web@h1 r1 path=/srv/a by=web@h1 host=h1
13 unlock h1 - - key=k value=web@h1:t1 path=/srv/a host=h1
14 git h1 - - path=/srv/a host=h1
15 pull_ended h1 - - path=/srv/a ok=true host=h1`, "while its pull was still running"},
		{"a lock without a life", "keys_without_ttl", `
11 lock h1 web@h1 - key=k value=v ttl_ms=-1`, "without a life"},
		{"a reply without a life", "keys_without_ttl", `
11 key_no_ttl h1 - - key=sg:control:reply:x cmd=RPUSH`, "left sg:control:reply:x without a life"},
		{"the gateway waits", "gateway_last", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
11 ack h2 gateway@h2 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
15 ack h1 web@h1 r1 phase=done status=ok first=true
16 restart_queued systemd@h2 gateway@h2 r1 process=h2`, ""},
		{"the gateway does not wait", "gateway_last", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
11 ack h2 gateway@h2 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
13 restart_queued systemd@h2 gateway@h2 r1 process=h2
15 ack h1 web@h1 r1 phase=done status=ok first=true`, "while web@h1 was still at it"},
		{"the publisher is dead", "gateway_last", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
11 ack h2 gateway@h2 r1 phase=accepted first=true
121 restart_queued systemd@h2 gateway@h2 r1 process=h2`, ""},
		{"two words", "one_final_ack", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
15 ack h1 web@h1 r1 phase=done status=ok first=true
16 ack h1 web@h1 r1 phase=done status=failed first=false`, "first ok, then failed"},
		{"the same word again", "one_final_ack", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
15 ack h1 web@h1 r1 phase=done status=ok first=true
16 ack h1 web@h1 r1 phase=done status=ok first=false`, ""},
		{"no word", "one_final_ack", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
14 restart_finished systemd@h1 web@h1 r1 result=done
200 run_ended sim - -`, "never said what became of it"},
		{"no word, but Redis was down", "one_final_ack", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
13 redis redis - - what=down
14 restart_finished systemd@h1 web@h1 r1 result=done
200 run_ended sim - -`, ""},
		{"no word from the next life", "one_final_ack", publishedAll + `
11 ack web@self web@self r1 phase=accepted first=true
12 restart_queued systemd@self web@self r1 process=web@self self=true
13 exit web@self web@self - why=stopped
14 boot web@self web@self - instances=web@self
15 subscribed web@self web@self - channel=c
16 restart_finished systemd@self web@self r1 result=done
200 run_ended sim - -`, "never said what became of it"},
		{"no next life", "one_final_ack", publishedAll + `
11 ack web@self web@self r1 phase=accepted first=true
12 restart_queued systemd@self web@self r1 process=web@self self=true
13 exit web@self web@self - why=stopped
16 restart_finished systemd@self web@self r1 result=failed
200 run_ended sim - -`, ""},
		{"restarts itself unheard", "self_restart_after_ack", publishedAll + `
11 restart_queued systemd@self web@self r1 process=web@self self=true
12 ack web@self web@self r1 phase=accepted first=true`, "before Redis had its ack"},
		{"restarts itself", "self_restart_after_ack", publishedAll + `
11 ack web@self web@self r1 phase=accepted first=true
12 restart_queued systemd@self web@self r1 process=web@self self=true`, ""},
		{"ok, and it was", "report_matches_truth", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
13 unit_started systemd@h1 web@h1 r1
14 unit_active systemd@h1 web@h1 r1
15 ack h1 web@h1 r1 phase=done status=ok first=true
30 report operator - r1 exit=4 ok=web@h1 silent=gateway@h2,web@self`, ""},
		{"ok, but never restarted", "report_matches_truth", publishedAll + `
15 ack h1 web@h1 r1 phase=done status=ok first=true
30 report operator - r1 exit=4 ok=web@h1 silent=gateway@h2,web@self`, "calls web@h1 ok, but it was never restarted"},
		{"silent, but it answered", "report_matches_truth", publishedAll + `
15 ack h1 web@h1 r1 phase=done status=failed first=true
30 report operator - r1 exit=4 silent=web@h1,gateway@h2,web@self`, "calls web@h1 silent, but it had answered"},
		{"unfinished, but it answered", "report_matches_truth", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
15 ack h1 web@h1 r1 phase=done status=ok first=true
20 redis redis - - what=down
30 report operator - r1 exit=4 unfinished=web@h1 silent=gateway@h2,web@self`, "calls web@h1 unfinished, but it had finished"},
		{"unfinished: Redis lost the answer before it could be read", "report_matches_truth", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
15 ack h1 web@h1 r1 phase=done status=ok first=true
15 redis redis - - what=down
30 report operator - r1 exit=4 unfinished=web@h1 silent=gateway@h2,web@self`, ""},
		{"failed, but it is up", "report_matches_truth", publishedAll + `
11 ack h1 web@h1 r1 phase=accepted first=true
12 restart_queued systemd@h1 web@h1 r1 process=h1
13 unit_stopped systemd@h1 web@h1 r1 why=restart
14 unit_active systemd@h1 web@h1 r1
15 ack h1 web@h1 r1 phase=done status=failed first=true
30 report operator - r1 exit=3 failed=web@h1 silent=gateway@h2,web@self`, "calls web@h1 failed, but it was restarted and stayed up"},
		{"somebody is left out", "report_matches_truth", publishedAll + `
30 report operator - r1 exit=4 silent=web@h1,web@self`, "does not name gateway@h2"},
		{"somebody is named twice", "report_matches_truth", publishedAll + `
30 report operator - r1 exit=4 silent=web@h1,web@self,gateway@h2 unfinished=web@h1`, "names web@h1 twice"},
	} {
		t.Run(c.invariant+"/"+c.name, func(t *testing.T) {
			sc := testScenario(t)
			r := newRecord(sc, 1, logOf(t, twoHosts+c.log))
			f := invariants[c.invariant].Judge(r, nil)
			var got []string
			for _, v := range f.Violations {
				got = append(got, v.Detail)
				if len(v.Events) == 0 {
					t.Errorf("%q names no event", v.Detail)
				}
			}
			all := strings.Join(got, "\n")
			if c.want == "" && all != "" {
				t.Errorf("got %q, want nothing", all)
			}
			if !strings.Contains(all, c.want) {
				t.Errorf("got %q, want %q", all, c.want)
			}
		})
	}
}

// The figures of a rehearsal and the bounds of k6 are what they say.
func TestFiguresAndThresholds(t *testing.T) {
	sc := testScenario(t)
	r := newRecord(sc, 1, logOf(t, twoHosts+publishedAll+`
12 unit_stopped systemd@h1 web@h1 r1 why=restart
13 unit_stopped systemd@self web@self r1 why=restart
14 unit_active systemd@h1 web@h1 r1
16 unit_active systemd@self web@self r1
30 report operator - r1 exit=0 ok=web@h1,web@self,gateway@h2`))
	f := figures(r)
	if len(f.Ops) != 1 || f.Ops[0].Took != 20*time.Second || f.Ops[0].OK != 3 {
		t.Errorf("ops: %+v", f.Ops)
	}
	for _, l := range f.Live {
		if l.Tier == "web" && (l.Low != 0 || l.Total != 2 || l.At != 13*time.Second) {
			t.Errorf("web: %+v", l)
		}
	}
	samples := metrics["down_time"].samples(r)
	if len(samples) != 2 {
		t.Fatalf("down_time: %v", samples)
	}
	for bound, want := range map[string]bool{"p(50)<=2s": true, "max<3s": false, "max<=3s": true, "min>1s": true, "avg<2.5s": false, "med<2.1s": true} {
		th, err := parseThreshold("down_time", bound)
		if err != nil {
			t.Fatal(err)
		}
		if got := th.holds(th.value(samples)); got != want {
			t.Errorf("%s of %v: %v, want %v", bound, samples, got, want)
		}
	}
	if low, high := Wilson(0, 100); low != 0 || high < 0.036 || high > 0.038 {
		t.Errorf("Wilson(0, 100) = %v, %v; want 0 to 0.037", low, high)
	}
	if low, high := Wilson(5, 10); low > 0.24 || low < 0.23 || high < 0.76 || high > 0.77 {
		t.Errorf("Wilson(5, 10) = %v, %v; want 0.237 to 0.763", low, high)
	}
}
