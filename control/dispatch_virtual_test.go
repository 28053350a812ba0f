package control

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// dispatched runs both ends with the production intervals in virtual time: a
// service that takes three minutes, one instance that has been gone for days,
// and a gateway.
func dispatched(t *testing.T, r *rig, fake *fakeHost) {
	dead := fleet.Heartbeat{Instance: "web@h9", Service: "web", Host: "h9", Tier: "web", ControlledBy: fleet.ByHost, At: 1}
	b, _ := json.Marshal(dead)
	r.op.HSet(t.Context(), r.cfg.Keys().Live(), "web@h9", b)
	agents, gateway := fake.unit("stargazer-agents.service"), fake.unit("stargazer-gateway.service")
	fake.unit("stargazer-web.service")
	fake.set(func() { agents.takes, agents.onQueue = 150*time.Second, nil })
	gatewayBefore := fake.restarts("stargazer-gateway.service")

	d := r.dispatcher()
	began := time.Now()
	var agentsDone, released time.Duration
	rep, err := d.Dispatch(t.Context(), Request{Op: OpRestart, Target: "all", Watch: func(u Update) {
		switch {
		case u.Kind == UpdateReleased:
			released = time.Since(began)
			if n := fake.restarts("stargazer-gateway.service"); n != gatewayBefore {
				t.Errorf("the gateway restarted before the release")
			}
		case u.Kind == UpdateAck && u.Ack.Instance == "agents@h1" && u.Ack.Phase == Done:
			agentsDone = time.Since(began)
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClasses(t, rep, map[Class][]string{ClassOK: {"web@h1", "agents@h1", "gateway@h1"}, ClassSilent: {"web@h9"}})
	if rep.ExitCode() != ExitSilent || !strings.Contains(resultOf(t, rep, "web@h9").Detail, "DOWN") {
		t.Errorf("exit %d, %q; want %d and DOWN", rep.ExitCode(), resultOf(t, rep, "web@h9").Detail, ExitSilent)
	}
	if agentsDone < 150*time.Second || released < agentsDone || released > agentsDone+time.Second {
		t.Errorf("agents done after %v, released after %v; want the release right after it", agentsDone, released)
	}
	if took := time.Since(began); took > released+5*time.Second {
		t.Errorf("took %v, released after %v; want it to end soon after the gateway", took, released)
	}
	fake.set(func() { agents.takes, gateway.takes = time.Second, time.Second })

	// The publisher dies right after the publish: the gateway waits for its own
	// deadline and not less, then restarts all the same.
	req := Request{Op: OpRestart, Target: "all"}
	plan, err := d.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	op := d.newOp(plan, req)
	legacy, _ := newLegacyPeers(r.cfg)
	c := newCollector(d, plan, req, legacy, op.ID)
	if err := d.publish(context.Background(), c, op); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	gatewayBefore = fake.restarts("stargazer-gateway.service")
	for fake.restarts("stargazer-gateway.service") == gatewayBefore {
		time.Sleep(100 * time.Millisecond)
		if time.Since(began) > time.Hour {
			t.Fatal("the gateway never restarted after its publisher died")
		}
	}
	wait, grace := time.Since(began), c.gatewayDeadline.Sub(c.issued)
	if wait < grace || wait > grace+2*time.Second || grace < r.cfg.ControlReplyTimeout.D()+r.cfg.GatewayGrace.D() {
		t.Errorf("the gateway restarted %v after a dead publisher's op; its deadline was %v", wait, grace)
	}
	r.op.HDel(t.Context(), r.cfg.Keys().Live(), "web@h9")
}
