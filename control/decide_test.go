package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/fleet"
)

// edited is an op as JSON with one thing replaced.
func (r *rig) edited(op Op, old, new string) []byte {
	r.t.Helper()
	b, err := op.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		r.t.Fatalf("%s is not in %s", old, b)
	}
	return bytes.Replace(b, []byte(old), []byte(new), 1)
}

// TestRejects provokes every reject reason there is. Each is counted, answered
// as it should be or not at all, leads to nothing, and leaves the daemon
// subscribed.
func TestRejects(t *testing.T) {
	t.Parallel()
	signed := `"args":{},"auth":{"v":1,"kid":"k","payload":"","sig":""}`
	verdict := func(reason RejectReason) func(*rigDaemon) {
		return func(d *rigDaemon) {
			d.Verify = func(Op, []byte, time.Time) *Reject { return &Reject{reason, "says the test"} }
		}
	}
	impatient := func(d *rigDaemon) { d.Tuning.AckTimeout = time.Second } // where each try has to fail
	cases := map[RejectReason]struct {
		prepare func(*rigDaemon)            // before the daemon starts
		provoke func(r *rig, op Op) (n int) // publishes; n is how many refusals are counted, 0 for 1
		status  Status                      // of the refusal's ack; "" for silence
	}{
		RejectTooLarge: {provoke: func(r *rig, op Op) int {
			for _, size := range []int{MaxOpBytes + 1, 1 << 20} {
				r.publishRaw(append(r.edited(op, "{", "{"), bytes.Repeat([]byte(" "), size)...))
			}
			return 2
		}},
		RejectUTF8: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"test"`, "\"te\xffst\""))
			return 1
		}},
		RejectMalformed: {provoke: func(r *rig, op Op) int {
			whole := r.edited(op, "{", "{")
			for _, b := range [][]byte{whole[:40], append(whole, whole...), []byte("[]"), []byte(""), []byte("restart all"), []byte("null")} {
				r.publishRaw(b)
			}
			return 6
		}},
		RejectDepth: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"args":{`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`,"args":{`))
			return 1
		}},
		RejectDuplicateKey: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"op":"restart"`, `"op":"ping","OP":"restart"`))
			return 1
		}},
		RejectShape: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"v":1,`, ``))
			return 1
		}},
		RejectVersion: {status: WrongVersion, provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"v":1,`, `"v":7,`))
			return 1
		}},
		RejectUnknownField: {status: WrongVersion, provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"v":1,`, `"v":1,"force":true,`))
			return 1
		}},
		RejectID: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, op.ID, "x"+op.ID[1:]))
			return 1
		}},
		RejectField: {provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"target":"web"`, `"target":""`))
			return 1
		}},
		RejectUnknownOp: {status: WrongVersion, provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"op":"restart"`, `"op":"reboot"`))
			return 1
		}},
		RejectTime: {provoke: func(r *rig, op Op) int {
			op.ExpiresAt = op.IssuedAt.Add(MaxOpLife + time.Second)
			r.publish(op)
			return 1
		}},
		RejectReplyKey: {provoke: func(r *rig, _ Op) int {
			r.publishRaw([]byte(`{"op":"restart","target":"web","reply_key":"sg:control:live"}`))
			return 1
		}},
		RejectSignature: {status: Denied, provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"args":{}`, signed)) // no Verify: it cannot be checked
			return 1
		}},
		RejectPolicy: {status: Denied, prepare: verdict(RejectPolicy), provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"args":{}`, signed))
			return 1
		}},
		RejectSkew: {status: Skew, prepare: verdict(RejectSkew), provoke: func(r *rig, op Op) int {
			r.publishRaw(r.edited(op, `"args":{}`, signed))
			return 1
		}},
		RejectTarget: {provoke: func(r *rig, op Op) int {
			op.Target = "web,,agents"
			r.publish(op)
			return 1
		}},
		RejectHeld: {status: Held, provoke: func(r *rig, op Op) int {
			_, err := fleet.SetHold(context.Background(), r.op, r.cfg.Keys(), fleet.Hold{Target: "web", By: "me", Reason: "disk swap"})
			if err != nil {
				r.t.Fatal(err)
			}
			r.publish(op)
			return 1
		}},
		RejectExpired: {status: Expired, provoke: func(r *rig, op Op) int {
			op.ExpiresAt = op.IssuedAt + 1
			time.Sleep(time.Millisecond)
			r.publish(op)
			return 1
		}},
		RejectTooOld: {status: TooOld, provoke: func(r *rig, op Op) int {
			op.IssuedAt, op.ExpiresAt = op.IssuedAt.Add(-time.Minute), op.ExpiresAt.Add(-time.Second)
			r.publish(op)
			return 1
		}},
		RejectDuplicate: {status: Duplicate, provoke: func(r *rig, op Op) int {
			// What a daemon before this one, or one beside it, has taken.
			if err := r.op.Set(context.Background(), r.cfg.Keys().Seen("web@h1", op.ID), "nonce", SeenLife).Err(); err != nil {
				r.t.Fatal(err)
			}
			r.publish(op)
			return 1
		}},
		RejectGuard: {status: Failed, prepare: impatient, provoke: func(r *rig, op Op) int {
			// A key of the wrong type makes the daemon's question fail.
			r.op.Set(context.Background(), r.cfg.Keys().Hold(), "no hash", 0)
			r.publish(op)
			return 1
		}},
		RejectCooldown: {status: InCooldown, prepare: func(d *rigDaemon) { d.Config.Cooldown = fleet.Duration(time.Minute) }, provoke: func(r *rig, op Op) int {
			if a := r.finals(r.send(OpRestart, "web").ID, 1)["web@h1"]; a.Status != OK {
				r.t.Fatalf("first restart: got %+v", a)
			}
			r.publish(op)
			return 1
		}},
		RejectAck: {prepare: impatient, provoke: func(r *rig, op Op) int {
			r.op.Set(context.Background(), r.cfg.Keys().Reply(op.ID), "no list", 0)
			r.publish(op)
			return 1
		}},
		RejectBusy: {status: Busy, prepare: func(d *rigDaemon) { d.Tuning.QueueLength = 1; d.Config.Splay = fleet.Duration(24 * time.Hour) }, provoke: func(r *rig, op Op) int {
			refused := 0
			for accepted := 0; accepted < 2; { // one with the worker, one in the queue
				id := r.send(OpRestart, "web").ID
				r.await("an answer", func() bool { return r.answered(id) })
				if r.acks(id)[0].Phase == Accepted {
					accepted++
				} else {
					refused++ // the worker has not taken the one before yet
				}
			}
			r.publish(op)
			return refused + 1
		}},
	}
	for _, reason := range RejectReasons {
		t.Run(string(reason), func(t *testing.T) {
			tc, ok := cases[reason]
			if !ok {
				t.Fatal("no case provokes this reason")
			}
			m := miniredis.RunT(t)
			r := newRig(t, m.Addr(), nil)
			fake := newFakeHost()
			d := r.daemon("h1", fake)
			if tc.prepare != nil {
				tc.prepare(d)
			}
			r.start(d)
			op := r.makeOp(OpRestart, "web")
			op.Args = Args{}
			want := tc.provoke(r, op)
			r.await("the refusal to be counted", func() bool { return d.Metrics.Refused(reason) >= int64(want) })
			if got := d.Metrics.Refused(reason); got != int64(want) {
				t.Errorf("got %d refusals, want %d", got, want)
			}
			if !r.hears() {
				t.Fatal("deaf afterwards")
			}
			if tc.status == "" {
				if n := len(r.acksIfAny(op.ID)); n != 0 {
					t.Errorf("got %d acks, want silence", n)
				}
			} else {
				a := r.finals(op.ID, 1)["web@h1"]
				if a.Phase != Refused || a.Status != tc.status || !strings.HasPrefix(a.Detail, string(reason)+": ") {
					t.Errorf("got %+v, want a refusal with status %s that names the step", a, tc.status)
				}
			}
			restarts := 0
			if reason == RejectCooldown {
				restarts = 1
			}
			if got := fake.restarts("stargazer-web.service"); got != restarts {
				t.Errorf("got %d restarts, want %d", got, restarts)
			}
		})
	}
}

// acksIfAny is acks for a key that may hold something else.
func (r *rig) acksIfAny(id string) []string {
	got, _ := r.op.LRange(context.Background(), r.cfg.Keys().Reply(id), 0, -1).Result()
	return got
}

// TestEnforce: an op that is not signed is ignored, whatever else is wrong with
// it, and so is one whose signature is bad.
func TestEnforce(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.daemon("h1", fake)
	d.Config.Signing.Mode = SigningEnforce
	d.Verify = func(op Op, payload []byte, wall time.Time) *Reject {
		if wall.IsZero() || !bytes.Contains(payload, []byte(op.ID)) {
			t.Errorf("Verify got wall %v and payload %s", wall, payload)
		}
		if !bytes.Contains(op.Auth, []byte(`"good"`)) {
			return &Reject{RejectSignature, "bad signature"}
		}
		return nil
	}
	r.start(d)
	op := r.makeOp(OpRestart, "web")
	op.Args = Args{}
	auth := func(sig string) string { return `"args":{},"auth":{"sig":"` + sig + `"}` }
	r.publish(op)
	r.publishRaw(r.edited(op, `"op":"restart"`, `"op":"reboot"`))
	r.publishRaw(r.edited(op, `"args":{}`, auth("bad")))
	r.publishRaw([]byte(`{"op":"restart","target":"web","reply_key":"sg:control:reply:x"}`))
	r.await("4 refusals", func() bool { return d.Metrics.Refused(RejectSignature) == 4 })
	if n := len(r.acksIfAny(op.ID)) + len(r.acksIfAny("x")); n != 0 {
		t.Errorf("got %d answers, want silence", n)
	}
	r.publishRaw(r.edited(op, `"args":{}`, auth("good")))
	if a := r.finals(op.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("signed op: got %+v, want ok", a)
	}
	if got := fake.restarts("stargazer-web.service"); got != 1 {
		t.Errorf("got %d restarts, want 1", got)
	}
}

// TestDuplicates: the same op again, by the same daemon, by its successor, and
// after everything in Redis is lost.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.start(r.daemon("h1", fake))
	op := r.send(OpRestart, "web")
	r.finals(op.ID, 1)
	r.publish(op)
	r.await("the duplicate to be refused", func() bool { return d.Metrics.Refused(RejectDuplicate) == 1 })
	m.FlushAll()
	r.publish(op)
	r.await("the duplicate to be refused after FLUSHALL", func() bool { return d.Metrics.Refused(RejectDuplicate) == 2 })
	d.stop()
	d = r.start(r.daemon("h1", fake))
	r.publish(op) // issued before this daemon was listening
	r.await("the old op to be refused", func() bool { return d.Metrics.Refused(RejectTooOld) == 1 })
	if got := fake.restarts("stargazer-web.service"); got != 1 {
		t.Errorf("got %d restarts, want 1", got)
	}
}

// TestNotTargeted: only those that the target selects say anything.
func TestNotTargeted(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	r.start(r.daemon("h1", fake))
	for target, want := range map[string]string{
		"web@h2": "", "host:h2": "", "all,!host:h1": "", "inference": "",
		"all,!web,!gateway": "agents@h1", "w*b@h*": "web@h1", "sgfleet@h1": "sgfleet@h1",
	} {
		op := r.send(OpPing, target)
		after := r.send(OpPing, "gateway@h1")
		r.finals(after.ID, 1)
		got := r.acks(op.ID)
		if want == "" && len(got) != 0 || want != "" && (len(got) != 1 || got[0].Instance != want) {
			t.Errorf("%s: got %+v, want an ack of %q", target, got, want)
		}
	}
}

// lossy is a dialer whose connections lose replies when told to.
type lossy struct{ lose atomic.Int32 } // connections that die with the next reply that begins with "*" or "+"

type lossyConn struct {
	net.Conn
	l     *lossy
	wrote atomic.Bool
}

func (l *lossy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: c, l: l}, nil
}

func (c *lossyConn) Write(b []byte) (int, error) {
	c.wrote.Store(bytes.Contains(bytes.ToLower(b), []byte("rpush")))
	return c.Conn.Write(b)
}

// Read loses the reply to an RPUSH: the server has executed it.
func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.wrote.Load() && c.l.lose.Add(-1) >= 0 {
		c.Close()
		return 0, errors.New("reply lost")
	}
	return n, err
}

// TestLostAckReplies: an ack whose reply is lost is sent again on a fresh
// connection; both copies count once. When every reply is lost the op is not
// carried out, since nobody knows of it.
func TestLostAckReplies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		lose     int32
		restarts int
	}{{1, 1}, {2, 1}, {1000, 0}} {
		t.Run(fmt.Sprint(tc.lose), func(t *testing.T) {
			m := miniredis.RunT(t)
			r := newRig(t, m.Addr(), nil)
			fake := newFakeHost()
			d := r.daemon("h1", fake)
			l := &lossy{}
			r.dial = l.dial
			r.start(d)
			l.lose.Store(tc.lose)
			op := r.send(OpRestart, "web")
			if tc.restarts == 0 {
				r.await("the op to be dropped", func() bool { return d.Metrics.Refused(RejectAck) == 1 })
			} else {
				r.finals(op.ID, 1)
			}
			if got := fake.restarts("stargazer-web.service"); got != tc.restarts {
				t.Errorf("got %d restarts, want %d", got, tc.restarts)
			}
			accepted := 0
			for _, a := range r.acks(op.ID) {
				if a.Phase == Accepted {
					accepted++
				}
			}
			if want := int(min(tc.lose, 2)) + 1; accepted != want {
				t.Errorf("got %d accepted acks in the list, want %d", accepted, want)
			}
		})
	}
}

// TestFlood: many ops at once are answered, none twice, and memory and queues
// stay as they are.
func TestFlood(t *testing.T) {
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.daemon("h1", fake)
	d.Config.Cooldown = fleet.Duration(time.Hour)
	d.Log = nil
	r.start(d)
	const n = 2000
	began := time.Now()
	first := r.makeOp(OpRestart, "web")
	r.publish(first)
	for i := range n - 1 {
		op := first
		op.ID = newID(op.IssuedAt, fmt.Sprint("flood", i))
		r.publish(op)
	}
	took := time.Since(began)
	r.hearsAgain()
	if a := r.finals(first.ID, 1)["web@h1"]; a.Status != OK {
		t.Errorf("first op: got %+v", a)
	}
	dropped := d.Metrics.get(metricOverflow)
	// On a slow machine they take longer than an op lives.
	cool, expired := d.Metrics.Refused(RejectCooldown), d.Metrics.Refused(RejectExpired)
	t.Logf("%d ops in %v: %d in cooldown, %d expired, %d dropped unanswered", n, took, cool, expired, dropped)
	if cool+expired+dropped != n-1 {
		t.Errorf("got %d in cooldown, %d expired and %d dropped, want %d together", cool, expired, dropped, n-1)
	}
	if got := fake.restarts("stargazer-web.service"); got != 1 {
		t.Errorf("got %d restarts, want 1", got)
	}
}

// An op from the future would outlive the guard that remembers it: once its key
// has gone, and the process with its own memory, it could be replayed.
func TestOpFromTheFuture(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	r := newRig(t, m.Addr(), nil)
	fake := newFakeHost()
	d := r.start(r.daemon("h1", fake))
	ahead := r.makeOp(OpRestart, "web")
	ahead.IssuedAt = ahead.IssuedAt.Add(time.Hour)
	ahead.ExpiresAt = ahead.IssuedAt.Add(30 * time.Second)
	ahead.Args.GatewayDeadline = 0
	r.publish(ahead)
	if a := r.finals(ahead.ID, 1)["web@h1"]; a.Phase != Refused || a.Status != Skew {
		t.Errorf("got %+v, want refused", a)
	}
	d.stop()
	m.FastForward(SeenLife + time.Second)
	d = r.start(r.daemon("h1", fake))
	r.publish(ahead)
	slight := r.makeOp(OpRestart, "agents") // after a failover that set the time back
	slight.IssuedAt = slight.IssuedAt.Add(aheadSlack / 2)
	slight.ExpiresAt = slight.IssuedAt.Add(MaxOpLife)
	slight.Args.GatewayDeadline = 0
	r.publish(slight)
	if a := r.finals(slight.ID, 1)["agents@h1"]; a.Status != OK {
		t.Errorf("slightly ahead: got %+v, want ok", a)
	}
	if n := fake.restarts("stargazer-web.service"); n != 0 {
		t.Errorf("executed %d times", n)
	}
	if n := d.Metrics.Refused(RejectTime); n != 1 {
		t.Errorf("counted %d as %s, want 1", n, RejectTime)
	}
}

// A refusal that nobody can be told is counted by its own reason, not by that
// of a step which it never reached.
func TestRefusalsAreCountedByTheirReason(t *testing.T) {
	t.Parallel()
	r, d, _ := startOne(t, nil)
	r.publishRaw([]byte(`{"op":"reboot","target":"all"}`))                                                  // legacy
	r.publishRaw([]byte(`{"v":9,"id":"short","op":"restart","target":"all","issued_at":1,"expires_at":2}`)) // no id to answer to
	r.await("both refusals", func() bool {
		return d.Metrics.Refused(RejectUnknownOp)+d.Metrics.Refused(RejectVersion)+d.Metrics.Refused(RejectTarget) == 2
	})
	for reason, want := range map[RejectReason]int64{RejectUnknownOp: 1, RejectVersion: 1, RejectTarget: 0} {
		if got := d.Metrics.Refused(reason); got != want {
			t.Errorf("%s: counted %d, want %d", reason, got, want)
		}
	}
}
