package sim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// What a process sent before it died is carried out by the server all the same,
// maybe later: no key of the run may come back by that.
func TestKeysAreRemovedAfterTheLastCommand(t *testing.T) {
	server := redistest.Start(t)
	w := realWorld(server.Addr)
	c := dialAs(t, w, "web@h1")
	// The server reads less than this at once, and so attends to others between
	// two of the scripts, each of which takes it some milliseconds.
	padding := strings.Repeat("x", 64<<10)
	const script = "for i = 1, 500000 do end return redis.call('hset', KEYS[1], 'f', 'v')"
	for range 20 {
		fmt.Fprintf(c, "*5\r\n$4\r\nEVAL\r\n$%d\r\n%s\r\n$1\r\n1\r\n$8\r\nrun:live\r\n$%d\r\n%s\r\n", len(script), script, len(padding), padding)
	}
	c.Close()
	w.real.removeKeys()
	if keys := server.Do("DBSIZE"); keys != int64(0) {
		t.Errorf("%v keys came back: %v", keys, server.Do("KEYS", "*"))
	}
}

// What one process learns through Redis of another is in the log after what the
// other did, however late the other hears that it was done.
func TestLogFollowsCause(t *testing.T) {
	server := newHandServer(t)
	w := realWorld(server.addr())
	web, operator := dialAs(t, w, "web@h1"), dialAs(t, w, "operator")
	const ack = `{"v":1,"id":"op1","instance":"web@h1","host":"h1","phase":"done","status":"ok"}`
	const list = "run:control:reply:op1"

	ofWeb := server.hears(t, web, "RPUSH", list, ack)
	ofOperator := server.hears(t, operator, "LRANGE", list, "0", "-1")
	// Redis has the ack, the operator its answer, and web's is on its way.
	fmt.Fprintf(ofOperator, "*1\r\n$%d\r\n%s\r\n", len(ack), ack)
	time.AfterFunc(20*time.Millisecond, func() { fmt.Fprint(ofWeb, ":2\r\n") })

	b := make([]byte, 1024)
	n, err := operator.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), ack) {
		t.Fatalf("the operator read %q, %v", b[:n], err)
	}
	w.trace.Add(Event{Actor: "operator", Kind: EvReport}, 0)
	if got := kinds(w); !slices.Equal(got, []string{EvAck, EvReport}) {
		t.Errorf("the log has %v, want the ack before the report", got)
	}
}

// An answer that nobody waits for any more counts: Redis had the ack when its
// process died.
func TestAckOfTheDeadIsRecorded(t *testing.T) {
	server := newHandServer(t)
	w := realWorld(server.addr())
	web := dialAs(t, w, "web@h1")
	ofWeb := server.hears(t, web, "RPUSH", "run:control:reply:op1", `{"v":1,"id":"op1","instance":"web@h1","host":"h1","phase":"done","status":"ok"}`)
	web.(*realConn).end(true)
	fmt.Fprint(ofWeb, ":2\r\n")
	ofWeb.Close()
	w.real.receivers.Wait()
	if got := kinds(w); !slices.Equal(got, []string{EvAck}) {
		t.Errorf("the log has %v, want the ack", got)
	}
	if n, err := web.Read(make([]byte, 16)); err == nil {
		t.Errorf("the dead process read %d bytes", n)
	}
}

// A subscription whose process is held is not received any more, as a slow
// consumer's is not; a deadline of its reader passes all the same.
func TestHeldSubscription(t *testing.T) {
	server := newHandServer(t)
	w := realWorld(server.addr())
	sub := dialAs(t, w, "web@h1").(*realConn)
	atServer := server.hears(t, sub, "SUBSCRIBE", "run:channel:control")
	fmt.Fprint(atServer, "*3\r\n$9\r\nsubscribe\r\n$19\r\nrun:channel:control\r\n:1\r\n")
	if _, err := sub.Read(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	sub.hold(false, true)
	const message = "*3\r\n$7\r\nmessage\r\n$19\r\nrun:channel:control\r\n$2\r\n{}\r\n"
	fmt.Fprint(atServer, message)
	if err := sub.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := sub.Read(make([]byte, 1024)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it was held %d bytes were read, %v", n, err)
	}
	sub.release(false, true, 0)
	if err := sub.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024)
	if n, err := sub.Read(b); err != nil || string(b[:n]) != message {
		t.Errorf("read %q, %v", b[:n], err)
	}

	// A reset is noticed all the same.
	sub.hold(false, true)
	sub.cut()
	if n, err := sub.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the reset %d bytes were read, %v", n, err)
	}
	w.real.receivers.Wait()
	if got := kinds(w); !slices.Equal(got, []string{EvSubscribed, EvDelivered, EvUnsubscribed}) {
		t.Errorf("the log has %v", got)
	}
}

// A lock that is taken by the next as soon as it is free: the answer to the
// release may be the slower one.
func TestReleaseHeardOfLate(t *testing.T) {
	w := realWorld("")
	w.dir = newDirector()
	f := w.facts
	key := f.keys.Pull("h1", "/srv/app")
	process := func(name string) *connInfo {
		return &connInfo{proc: &incarnation{proc: &process{w: w, name: name, host: &host{w: w}}}}
	}
	web, agents := process("web@h1"), process("agents@h1")
	see := func(c *connInfo, reply respValue, cmd ...string) { f.see(c, [][]string{cmd}, []respValue{reply}) }
	ok, one := respValue{kind: '+', s: "OK"}, respValue{kind: ':', n: 1}

	see(web, ok, "SET", key, "web@h1:sgf-1", "NX", "PX", "60000")
	see(agents, ok, "SET", key, "agents@h1:sgf-2", "NX", "PX", "60000")
	see(web, one, "DEL", key)
	if got := f.lockHolder("h1", "/srv/app"); got != "agents@h1" {
		t.Errorf("after the late release %q holds the lock", got)
	}
	see(agents, one, "DEL", key)
	if got := f.lockHolder("h1", "/srv/app"); got != "" {
		t.Errorf("after both releases %q holds the lock", got)
	}
	var got []string
	for _, e := range w.trace.Seal() {
		got = append(got, e.Kind+" "+e.Actor+" "+e.Attr("value"))
	}
	want := []string{
		EvLock + " web@h1 web@h1:sgf-1", EvLock + " agents@h1 agents@h1:sgf-2",
		EvUnlock + " web@h1 web@h1:sgf-1", EvUnlock + " agents@h1 agents@h1:sgf-2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has %q", got)
	}
}

// handServer is a server whose answers a test gives by hand.
type handServer struct{ net.Listener }

func newHandServer(t *testing.T) handServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return handServer{l}
}

func (s handServer) addr() string { return s.Addr().String() }

// hears has a process send a command, and returns the server's end of its
// connection once the command is there. Connections are accepted in the order
// in which they were dialled.
func (s handServer) hears(t *testing.T, from net.Conn, cmd ...string) net.Conn {
	t.Helper()
	c, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	text := fmt.Sprintf("*%d\r\n", len(cmd))
	for _, arg := range cmd {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
	return c
}

// realWorld is a world of nothing but connections to the server at addr.
func realWorld(addr string) *World {
	w := &World{
		opts: Options{RedisURL: "redis://" + addr + "/0"}, trace: NewTrace(nil),
		plan: &Plan{Config: &fleet.Config{KeyPrefix: "run:"}},
	}
	w.facts, w.real = newFacts(w), newRealNetwork(w)
	return w
}

// dialAs connects a process of its own to w's server.
func dialAs(t *testing.T, w *World, name string) net.Conn {
	t.Helper()
	inc := &incarnation{proc: &process{w: w, name: name, host: &host{w: w}}, own: map[wire]bool{}}
	c, err := inc.dialer(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kinds(w *World) (out []string) {
	for _, e := range w.trace.Seal() {
		out = append(out, e.Kind)
	}
	return out
}
