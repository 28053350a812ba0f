package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/fleet"
)

// embedded prepares the daemon that is part of the service web itself.
func embedded(r *rig, fake *fakeHost, invocation string) *rigDaemon {
	d := r.daemon("h1", fake)
	d.Self = "web@h1"
	d.Identity.InvocationID = invocation
	services := map[string]fleet.Service{}
	for name, s := range d.Config.Services {
		services[name] = s
	}
	web := services["web"]
	web.ControlledBy = fleet.BySelf
	services["web"] = web
	d.Config.Services = services
	return d
}

// TestRestartOfOneself: accepted by the one process, done by the next, with its
// own invocation.
func TestRestartOfOneself(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := embedded(r, fake, "inv-1")
	d.BeforeSelfRestart = func(context.Context, Op) string { return "a note" }
	queued := make(chan struct{})
	key := r.cfg.Keys().Self("web@h1")
	var acked int
	fake.unit("stargazer-web.service").onQueue = func() {
		acked = len(m.Keys()) // systemd acts at once: everything must be in Redis by now
		close(queued)
	}
	r.start(d)
	op := r.send(OpUpdate, "all")
	select {
	case <-queued:
	case <-time.After(patience):
		t.Fatal("no restart was queued")
	}
	if acks := r.acks(op.ID); len(acks) == 0 || acks[len(acks)-1].Phase != Accepted {
		t.Errorf("got %+v, want accepted before the restart is queued", acks)
	}
	if !m.Exists(key) || m.TTL(key) <= 0 || acked == 0 {
		t.Error("no note with a life for the next process")
	}
	// It does not listen any more: what arrives now would be lost.
	if n := r.publish(r.makeOp(OpPing, "web")); n != 0 {
		t.Errorf("%d subscribers while the restart is on its way, want none", n)
	}
	d.stop()

	returned := make(chan Return, 1)
	next := embedded(r, fake, "inv-2")
	next.OnReturn = func(_ context.Context, ret Return) { returned <- ret }
	r.start(next)
	a := r.finals(op.ID, 1)["web@h1"]
	if a.Status != OK || a.InvocationID != "inv-2" || a.Revision != rev(2) {
		t.Errorf("got %+v, want ok by inv-2 on %s", a, rev(2))
	}
	if ret := <-returned; ret.Note != "a note" || ret.Op != op.ID || ret.Ack.Status != OK {
		t.Errorf("OnReturn got %+v", ret)
	}
	if m.Exists(key) {
		t.Error("the note is still there")
	}
	if n := fake.restarts("stargazer-web.service"); n != 1 {
		t.Errorf("got %d restarts, want 1", n)
	}
}

// TestGatewayDispatches: a gateway that publishes an op which restarts itself
// does so last of all, after its report, and its next process gets the note.
func TestGatewayDispatches(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	gateway := func(invocation string) *rigDaemon {
		d := embedded(r, fake, invocation)
		d.Self = "gateway@h1"
		gw := d.Config.Services["gateway"]
		gw.ControlledBy = fleet.BySelf
		d.Config.Services["gateway"] = gw
		return d
	}
	other := gateway("inv-host")
	other.Self, other.Services = "", []string{"agents"}
	r.start(other)
	d := gateway("inv-1")
	reported := make(chan string, 1)
	d.BeforeSelfRestart = func(_ context.Context, op Op) string { return <-reported + " " + op.ID }
	queued := make(chan struct{})
	fake.unit("stargazer-gateway.service").onQueue = func() { close(queued) }
	r.start(d)
	dispatcher := &Dispatcher{Config: d.Config, Client: r.op, Identity: Identity{Token: d.Identity.Token}, Self: "gateway@h1"}
	report, err := dispatcher.Dispatch(t.Context(), Request{Op: OpRestart, Target: "agents,gateway", RequestedBy: "chat"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := fake.restarts("stargazer-agents.service"); n != 1 {
		t.Errorf("got %d restarts of the other service before the report, want 1", n)
	}
	select {
	case <-queued:
		t.Fatal("restarted before its own report was made")
	default:
	}
	reported <- "posted"
	select {
	case <-queued:
	case <-time.After(patience):
		t.Fatal("no restart was queued after the report")
	}
	d.stop()
	next := gateway("inv-2")
	returned := make(chan Return, 1)
	next.OnReturn = func(_ context.Context, ret Return) { returned <- ret }
	r.start(next)
	if ret := <-returned; ret.Note != "posted "+report.ID || ret.Ack.Status != OK || ret.Ack.InvocationID != "inv-2" {
		t.Errorf("OnReturn got %+v, want the note and an ok by inv-2", ret)
	}
}

// TestSelfNotRestarted: what fails is undone and told; the daemon goes on.
func TestSelfNotRestarted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		prepare func(*rig, *rigDaemon, *fakeHost)
	}{
		{"queueFails", func(_ *rig, _ *rigDaemon, f *fakeHost) {
			f.unit("stargazer-web.service").queueErr = errors.New("no bus")
		}},
		{"jobIsDropped", func(_ *rig, _ *rigDaemon, f *fakeHost) {
			u := f.unit("stargazer-web.service")
			u.onQueue = func() { f.mu.Lock(); u.Job = 0; f.mu.Unlock() }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := miniredis.RunT(t)
			r := newRig(t, m.Addr(), nil)
			fake := newFakeHost()
			d := embedded(r, fake, "inv-1")
			tc.prepare(r, d, fake)
			r.start(d)
			op := r.send(OpRestart, "web")
			if a := r.finals(op.ID, 1)["web@h1"]; a.Status != Failed {
				t.Errorf("got %+v, want failed", a)
			}
			if m.Exists(r.cfg.Keys().Self("web@h1")) {
				t.Error("the note for a next process is still there")
			}
			r.hearsAgain()
		})
	}
}

// TestSameInvocation: a process that finds its own note was not restarted.
func TestSameInvocation(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	op := r.makeOp(OpRestart, "web")
	r.op.Set(context.Background(), r.cfg.Keys().Self("web@h1"), `{"op":"`+op.ID+`","name":"restart","invocation_id":"inv-1"}`, SelfLife)
	r.start(embedded(r, newFakeHost(), "inv-1"))
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != Failed {
		t.Errorf("got %+v, want failed", a)
	}
}

// TestHostDaemonRestartsItself as sgfleet@host, which no broader target means.
func TestHostDaemonRestartsItself(t *testing.T) {
	t.Parallel()
	queued := make(chan struct{})
	r, d, _ := startOne(t, func(_ *rigDaemon, f *fakeHost) {
		f.unit("sgfleet.service").onQueue = func() { close(queued) }
	})
	op := r.send(OpRestart, "sgfleet@h1")
	<-queued
	d.stop()
	next := r.daemon("h1", newFakeHost())
	next.Identity.InvocationID = "inv-next"
	r.start(next)
	if a := r.finals(op.ID, 1)["sgfleet@h1"]; a.Status != OK || a.InvocationID != "inv-next" {
		t.Errorf("got %+v, want ok by inv-next", a)
	}
}

func TestWrongController(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	d := r.daemon("h1", newFakeHost())
	d.Self = "web@h1"
	d.begin(r)
	<-d.ended
	if d.err == nil {
		t.Error("an embedded daemon of a service that the host controls: got no error")
	}
	// And a host daemon leaves a service alone that restarts itself.
	e := embedded(r, newFakeHost(), "inv-1")
	e.Self = ""
	r.start(e)
	op := r.send(OpPing, "web")
	r.finals(r.send(OpPing, "agents").ID, 1)
	if acks := r.acks(op.ID); len(acks) != 0 {
		t.Errorf("got %+v, want nothing", acks)
	}
}
