package control

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
)

func TestPingAndRestart(t *testing.T) {
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.start(r.daemon("h1", fake))

	op := r.send(OpPing, "all")
	got := r.finals(op.ID, 3)
	for _, name := range []string{"web@h1", "agents@h1", "gateway@h1"} {
		if a := got[name]; a.Status != OK || a.Phase != Done || a.Version != "v-test" {
			t.Errorf("ping of %s: got %+v, want done ok", name, a)
		}
	}
	op = r.send(OpRestart, "web")
	got = r.finals(op.ID, 1)
	if a := got["web@h1"]; a.Status != OK || a.Revision != rev(1) || a.InvocationID == "" {
		t.Errorf("restart: got %+v, want ok on %s", a, rev(1))
	}
	if n := fake.restarts("stargazer-web.service"); n != 1 {
		t.Errorf("got %d restarts, want 1", n)
	}
	first := r.acks(op.ID)[0]
	if first.Phase != Accepted {
		t.Errorf("first ack: got %+v, want accepted", first)
	}
	if ttl := m.TTL(r.cfg.Keys().Reply(op.ID)); ttl <= 0 {
		t.Errorf("reply list has no life: %v", ttl)
	}
	if _, ok := r.registry()["sgfleet@h1"]; !ok {
		t.Error("the daemon itself is not in the registry")
	}
	d.stop()
	if d.err != nil {
		t.Errorf("Run: got %v, want nil", d.err)
	}
}
