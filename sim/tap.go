package sim

import (
	"strings"
	"sync"
)

// tap watches one connection's bytes and pairs every command with its reply.
// In virtual time it sits at the server's end, so that what it sees happens at
// the instant at which it says; in real time it sits at the client's, see
// [realNetwork].
type tap struct {
	conn *connInfo
	see  func(c *connInfo, cmds [][]string, replies []respValue) // a command and its reply; those of a MULTI together, after its EXEC
	push func(c *connInfo, channel, payload string, size int64)
	sent func(c *connInfo, cmd []string) // a command, before anybody can have seen what it does

	cmds, replies, pushes respStream

	mu      sync.Mutex
	pending [][]string // sent and not answered
	queued  [][]string // of the MULTI that is open on the replies' side
	inMulti bool
}

// connInfo is what the watchers know of a connection.
type connInfo struct {
	proc *incarnation
	name string // process#ordinal

	mu      sync.Mutex
	channel string // it is subscribed to
}

func (c *connInfo) subscribed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.channel
}

func newTap(conn *connInfo) *tap {
	t := &tap{conn: conn}
	t.cmds.emit = t.command
	t.replies.emit = t.reply
	t.replies.keep = t.wanted
	t.pushes.emit = func(v respValue) {
		if len(v.arr) == 3 && v.arr[0].s == "message" && t.push != nil {
			t.push(t.conn, v.arr[1].s, v.arr[2].s, v.arr[2].n)
		}
	}
	return t
}

func (t *tap) command(v respValue) {
	if len(v.arr) == 0 {
		return
	}
	cmd := make([]string, len(v.arr))
	for i, a := range v.arr {
		cmd[i] = a.s
	}
	cmd[0] = strings.ToUpper(cmd[0])
	t.mu.Lock()
	t.pending = append(t.pending, cmd)
	t.mu.Unlock()
	t.sent(t.conn, cmd)
}

// wanted says whether the content of the next reply matters. Those of reads
// are by far the largest, and nobody looks at them.
func (t *tap) wanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn.subscribed() != "" || len(t.pending) == 0 {
		return true
	}
	switch t.pending[0][0] {
	case "LRANGE", "HGETALL", "GET", "HGET", "HMGET", "XRANGE", "XREVRANGE":
		return false
	}
	return true
}

// idle reports whether every command has been answered.
func (t *tap) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending) == 0
}

func (t *tap) reply(v respValue) {
	if len(v.arr) > 0 && t.conn.subscribed() != "" && v.arr[0].s == "message" {
		return // not an answer; the client's end sees it arrive
	}
	t.mu.Lock()
	if len(t.pending) == 0 {
		t.mu.Unlock()
		return
	}
	cmd := t.pending[0]
	t.pending = t.pending[1:]
	if len(t.pending) == 0 {
		t.pending = nil
	}
	batch, replies := t.settleLocked(cmd, v)
	t.mu.Unlock()
	if len(batch) > 0 {
		t.see(t.conn, batch, replies)
	}
}

// settleLocked says which commands a reply completes: the command itself, or
// all of a MULTI with its EXEC.
func (t *tap) settleLocked(cmd []string, v respValue) ([][]string, []respValue) {
	switch {
	case cmd[0] == "MULTI" && v.kind != '-':
		t.inMulti, t.queued = true, nil
	case cmd[0] == "DISCARD":
		t.inMulti, t.queued = false, nil
	case cmd[0] == "EXEC":
		queued := t.queued
		t.inMulti, t.queued = false, nil
		if v.kind == '*' && !v.null && len(v.arr) == len(queued) {
			return queued, v.arr
		}
	case t.inMulti:
		if v.kind != '-' {
			t.queued = append(t.queued, cmd)
		}
	default:
		return [][]string{cmd}, []respValue{v}
	}
	return nil, nil
}
