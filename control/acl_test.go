package control

import (
	"os"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// TestAgentACL: the daemon needs no more than what the ACL user that ships for
// it may do, and that user can neither command anybody nor read an answer.
func TestAgentACL(t *testing.T) {
	t.Parallel()
	const file = "../ansible/roles/sgfleet_redis/files/acl/agent"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := redistest.Start(t)
	args := []any{"acl", "setuser", "agent", "on", ">pw"}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "#") {
			for _, f := range strings.Fields(line) {
				args = append(args, f)
			}
		}
	}
	s.Do(args...)
	r := newRig(t, s.Addr, nil)
	fake := newFakeHost()
	start := func(self bool) *rigDaemon {
		d := r.daemon("h1", fake)
		if self {
			d = embedded(r, fake, "inv-2")
		}
		d.Config.Redis.Username, d.Config.Redis.Password = "agent", "pw"
		return r.start(d)
	}
	d := start(false)
	for _, name := range []string{OpPing, OpPull, OpRestart, OpUpdate} {
		op := r.makeOp(name, "all")
		r.release(op.ID, releaseGo)
		r.publish(op)
		for inst, a := range r.finals(op.ID, 3) {
			if a.Status.Class() != ClassOK {
				t.Errorf("%s of %s: got %+v, want it to work", name, inst, a)
			}
		}
	}
	op := r.makeOp(OpPing, "all")
	payload, _ := op.Encode()
	if err := d.Client.Publish(t.Context(), r.cfg.Keys().Channel(), payload).Err(); err == nil {
		t.Error("a daemon's user may publish ops")
	}
	if err := d.Client.LRange(t.Context(), r.cfg.Keys().Reply(op.ID), 0, -1).Err(); err == nil {
		t.Error("a daemon's user may read answers")
	}
	if err := d.Client.HSet(t.Context(), r.cfg.Keys().Hold(), "all", "{}").Err(); err == nil {
		t.Error("a daemon's user may hold the fleet")
	}
	if err := d.Client.Set(t.Context(), r.cfg.Keys().Release(op.ID), releaseGo, 0).Err(); err == nil {
		t.Error("a daemon's user may release gateways")
	}
	d.stop()

	queued := make(chan struct{})
	fake.unit("stargazer-web.service").onQueue = func() { close(queued) }
	e := start(true)
	self := r.send(OpRestart, "web")
	<-queued
	e.stop()
	next := embedded(r, fake, "inv-3")
	next.Config.Redis.Username, next.Config.Redis.Password = "agent", "pw"
	r.start(next)
	if a := r.finals(self.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("restart of itself: got %+v", a)
	}
}
