package sim

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// expiryGrain is how precisely keys expire. miniredis sorts every key each time
// it moves its clock: moving it on every command was three quarters of a run,
// moving it every 100 ms still an eighth. So it is moved only when that can be
// seen: before a command that gives a key a life or asks for one, and when the
// next key is about to die.
const expiryGrain = 100 * time.Millisecond

// redisServer is the fleet's Redis: miniredis, served on simulated links, and
// the faults that miniredis does not have.
type redisServer struct {
	w   *World
	m   *miniredis.Miniredis
	srv *server.Server

	mu       sync.Mutex
	down     bool
	stalls   int
	refuse   map[string]int // readonly, oom → how many faults say so
	aged     time.Time      // up to when keys have aged
	death    time.Time      // of the key that dies next; zero: none does
	gen      int            // failovers so far: another server answers
	undo     []undo         // of the writes of the last seconds, for a failover
	dirty    map[*server.Peer]bool
	aborting bool // a DISCARD of our own is under way
}

func newRedisServer(w *World) *redisServer {
	r := &redisServer{w: w, m: miniredis.NewMiniRedis(), refuse: map[string]int{}, dirty: map[*server.Peer]bool{}, aged: time.Now()}
	// Dial starts a server without a listener; its pipe is not used.
	c, err := r.m.Dial()
	if err != nil {
		panic(err) // it cannot fail: nothing is opened
	}
	c.Close()
	r.srv = r.m.Server()
	r.srv.SetPreHook(r.before)
	return r
}

// accept serves a link, unless nothing listens.
func (r *redisServer) accept(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return false
	}
	for range r.stalls {
		l.up.hold()
	}
	l.down.limited = func() { r.overflow(l) }
	r.srv.ServeConn(l.server)
	return true
}

// overflow closes a link whose output buffer is full, if it is a subscriber's:
// ordinary clients have no limit.
func (r *redisServer) overflow(l *link) {
	if l.conn.subscribed() == "" {
		return
	}
	r.w.facts.lost(l.conn, "output_buffer")
	l.cut()
}

// denyOOM are the commands that a full server refuses, of those in use.
var denyOOM = []string{"SET", "SETNX", "RPUSH", "LPUSH", "HSET", "XADD", "APPEND", "INCR"}

// writes are the commands that a read-only replica refuses, of those in use.
var writes = append([]string{"DEL", "UNLINK", "EXPIRE", "PEXPIRE", "PERSIST", "HDEL", "LTRIM", "LPOP", "RPOP", "XTRIM", "FLUSHALL"}, denyOOM...)

// before runs ahead of every command.
func (r *redisServer) before(c *server.Peer, cmd string, args ...string) bool {
	r.mu.Lock()
	if r.aborting {
		r.mu.Unlock()
		return false
	}
	age := r.dueLocked(cmd, args)
	refusal := ""
	switch {
	case r.refuse["readonly"] > 0 && slices.Contains(writes, cmd):
		refusal = "READONLY You can't write against a read only replica."
	case r.refuse["oom"] > 0 && slices.Contains(denyOOM, cmd):
		refusal = "OOM command not allowed when used memory > 'maxmemory'."
	}
	switch {
	case refusal != "":
		r.dirty[c] = true
	case cmd == "MULTI" || cmd == "DISCARD":
		delete(r.dirty, c)
	}
	abort := cmd == "EXEC" && r.dirty[c]
	if abort {
		delete(r.dirty, c)
		r.aborting = true
	}
	r.mu.Unlock()
	if age > 0 {
		r.age(age)
	}
	switch {
	case refusal != "":
		c.WriteError(refusal)
		return true
	case abort:
		// The transaction's state is miniredis's own; a peer that shares it
		// and writes nowhere takes it back.
		ghost := server.NewPeer(bufio.NewWriter(io.Discard))
		ghost.Ctx = c.Ctx
		r.srv.Dispatch(ghost, []string{"DISCARD"})
		r.mu.Lock()
		r.aborting = false
		r.mu.Unlock()
		c.WriteError("EXECABORT Transaction discarded because of previous errors.")
		return true
	}
	if slices.Contains(writes, cmd) && len(args) > 0 {
		r.remember(cmd, args)
	}
	return false
}

// dueLocked says by how much the keys must age before a command.
func (r *redisServer) dueLocked(cmd string, args []string) time.Duration {
	now := time.Now()
	life := time.Duration(0)
	switch cmd {
	case "SET":
		for i := 2; i+1 < len(args); i++ {
			switch strings.ToUpper(args[i]) {
			case "EX":
				life = lifeOf(args[i+1], time.Second)
			case "PX":
				life = lifeOf(args[i+1], time.Millisecond)
			}
		}
	case "EXPIRE", "PEXPIRE":
		if len(args) > 1 {
			life = lifeOf(args[1], map[string]time.Duration{"EXPIRE": time.Second, "PEXPIRE": time.Millisecond}[cmd])
		}
	}
	asks := cmd == "TTL" || cmd == "PTTL"
	if life == 0 && !asks && (r.death.IsZero() || now.Before(r.death)) {
		return 0
	}
	if end := now.Add(life); life > 0 && (r.death.IsZero() || end.Before(r.death)) {
		r.death = end
	}
	age := now.Sub(r.aged)
	if age < expiryGrain {
		return 0
	}
	r.aged = now
	return age
}

func lifeOf(s string, unit time.Duration) time.Duration {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(n) * unit
}

// age lets every key's life pass by d, and finds the next one to end.
func (r *redisServer) age(d time.Duration) {
	r.m.FastForward(d)
	r.mu.Lock()
	due := !r.death.IsZero() && !time.Now().Before(r.death)
	r.mu.Unlock()
	if !due {
		return
	}
	next := time.Duration(0)
	for _, k := range r.m.Keys() {
		if ttl := r.m.TTL(k); ttl > 0 && (next == 0 || ttl < next) {
			next = ttl
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.death = time.Time{}
	if next > 0 {
		// Not each at its own moment: a fleet's guards die within seconds.
		r.death = time.Now().Add(next + expiryGrain)
	}
}

// undo takes one write back.
type undo struct {
	at time.Time
	fn func()
}

// replicationMemory is how far back a failover can lose writes.
const replicationMemory = 5 * time.Second

// remember notes how to take a write back, should a failover lose it. It runs
// before the write.
func (r *redisServer) remember(cmd string, args []string) {
	key := args[0]
	var fn func()
	switch cmd {
	case "HSET":
		field := args[1]
		old := r.m.HGet(key, field)
		fn = func() {
			if old == "" {
				r.m.HDel(key, field)
			} else {
				r.m.HSet(key, field, old)
			}
		}
	case "RPUSH":
		before := 0
		if list, err := r.m.List(key); err == nil {
			before = len(list)
		}
		fn = func() {
			list, err := r.m.List(key)
			for n := len(list); err == nil && n > before; n-- {
				_, err = r.m.Pop(key)
			}
		}
	case "SET", "DEL", "UNLINK":
		old, err := r.m.Get(key)
		ttl := r.m.TTL(key)
		fn = func() {
			if err != nil {
				r.m.Del(key)
				return
			}
			_ = r.m.Set(key, old)
			if ttl > 0 {
				r.m.SetTTL(key, ttl)
			}
		}
	default:
		return // a lost EXPIRE, XADD or HDEL changes nothing that is judged
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.undo) > 0 && now.Sub(r.undo[0].at) > replicationMemory {
		r.undo = r.undo[1:]
	}
	r.undo = append(r.undo, undo{now, fn})
}

// stop makes the server vanish: every connection is reset, and none is
// accepted until start.
func (r *redisServer) stop(why string) {
	r.mu.Lock()
	r.down = true
	r.mu.Unlock()
	r.w.eachWire(func(l wire) {
		r.w.facts.lost(l.info(), why)
		l.cut()
	})
}

func (r *redisServer) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = false
}

// failover is what follows stop when a replica takes over that had not heard
// of the writes of the last lag.
func (r *redisServer) failover(lag time.Duration) {
	r.mu.Lock()
	since := time.Now().Add(-lag)
	undo := r.undo
	r.undo = nil
	r.gen++
	r.mu.Unlock()
	for _, u := range slices.Backward(undo) {
		if u.at.After(since) {
			u.fn()
		}
	}
	r.w.facts.rebase(r.m.Keys())
}

// addr is the address of the server that answers now.
func (r *redisServer) addr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return "redis-" + string(rune('1'+r.gen%9)) + ":6379"
}

func (r *redisServer) flush() {
	r.m.FlushAll()
	r.w.facts.rebase(nil)
}

// stall stops or resumes the handling of commands; connections stay.
func (r *redisServer) stall(on bool) {
	r.mu.Lock()
	if on {
		r.stalls++
	} else {
		r.stalls--
	}
	r.mu.Unlock()
	r.w.eachWire(func(l wire) {
		if on {
			l.hold(true, false)
		} else {
			l.release(true, false, 0)
		}
	})
}

// refusing makes the server refuse commands: what is readonly or oom.
func (r *redisServer) refusing(what string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.refuse[what]++
	} else {
		r.refuse[what]--
	}
}

// left lists what is in the database, with the lives of the keys.
func (r *redisServer) left() []keyLeft {
	r.m.FastForward(time.Since(r.aged))
	r.aged = time.Now()
	var out []keyLeft
	for _, k := range r.m.Keys() {
		out = append(out, keyLeft{key: k, kind: r.m.Type(k), ttl: r.m.TTL(k)})
	}
	return out
}

type keyLeft struct {
	key, kind string
	ttl       time.Duration // 0: none
}

// close ends the server and waits for its goroutines.
func (r *redisServer) close() {
	r.w.eachWire(wire.cut)
	r.m.Close()
}

// isPullLock reports whether key is a pull lock, and of which host and path.
func isPullLock(prefix, key string) (host, path string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix+"control:pull:")
	if !ok {
		return "", "", false
	}
	host, path, ok = strings.Cut(rest, ":")
	return host, path, ok
}
