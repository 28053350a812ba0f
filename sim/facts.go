package sim

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// facts turns what the connections to Redis carry into events: who was
// subscribed, what was published, acked, locked. It judges nothing.
type facts struct {
	w    *World
	keys fleet.Keys

	mu      sync.Mutex
	ops     map[string]*opFacts       // by id
	subs    map[string]int            // process → subscribed connections
	lives   map[string]time.Time      // own key → when it expires; zero: never
	locks   map[string]*lockFacts     // pull lock key → who has it
	beats   map[string]string         // instance → what its last heartbeat said
	running map[string][]*opFacts     // instance → ops it has accepted and not done, oldest first
	newest  map[*incarnation]*opFacts // op that reached a process last
}

type opFacts struct {
	id, name  string
	op        control.Op
	payload   string
	at        time.Duration
	published Ref
	phases    map[string]Ref // instance/phase → first ack
	delivered map[string]Ref // process → delivery
}

type lockFacts struct {
	by, value, path string
	taken           Ref
	cancel          func()
	before          *lockFacts // that has ended too, and whose release has not been heard of
}

func newFacts(w *World) *facts {
	return &facts{
		w: w, keys: w.plan.Config.Keys(), ops: map[string]*opFacts{}, subs: map[string]int{},
		lives: map[string]time.Time{}, locks: map[string]*lockFacts{}, beats: map[string]string{},
		running: map[string][]*opFacts{}, newest: map[*incarnation]*opFacts{},
	}
}

// see takes a command and its reply, or all of a MULTI.
func (f *facts) see(c *connInfo, cmds [][]string, replies []respValue) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var wrote []string
	for i, cmd := range cmds {
		f.w.commandSeen(c, cmd)
		if replies[i].kind == '-' || len(cmd) < 2 {
			continue
		}
		if key := f.command(c, cmd, replies[i]); key != "" {
			wrote = append(wrote, key)
		}
	}
	for i, key := range wrote {
		if life, ok := f.lives[key]; ok && life.IsZero() && !slices.Contains(wrote[:i], key) {
			f.w.trace.Add(Event{
				Actor: c.proc.proc.name, Kind: EvKeyNoTTL, Host: c.proc.proc.host.name,
				Attrs: map[string]string{"key": key, "cmd": cmds[0][0]},
			}, 0)
		}
	}
}

// command handles one command that was not refused; it returns the key when
// that must have a life.
func (f *facts) command(c *connInfo, cmd []string, reply respValue) (key string) {
	switch cmd[0] {
	case "SUBSCRIBE":
		f.subscribed(c, cmd[1])
	case "UNSUBSCRIBE":
		f.lostLocked(c, "unsubscribe")
	case "PUBLISH":
		if len(cmd) == 3 && cmd[1] == f.keys.Channel() {
			f.publish(c, cmd[2], reply.n)
		}
	case "SET":
		return f.set(c, cmd, reply)
	case "SETNX":
		if reply.n == 1 && len(cmd) == 3 {
			return f.written(c, cmd[1], cmd[2], -1)
		}
	case "RPUSH", "LPUSH":
		return f.replied(c, cmd, reply)
	case "EXPIRE", "PEXPIRE":
		f.expire(cmd, reply)
	case "DEL", "UNLINK":
		if reply.n > 0 {
			for _, k := range cmd[1:] {
				f.deleted(c, k)
			}
		}
	case "HSET":
		if cmd[1] == f.keys.Live() {
			for i := 2; i+1 < len(cmd); i += 2 {
				f.heartbeat(c, cmd[i], cmd[i+1])
			}
		}
	}
	return ""
}

// replied records acks that Redis has taken.
func (f *facts) replied(c *connInfo, cmd []string, reply respValue) string {
	key := cmd[1]
	if !f.mustLive(key) {
		return ""
	}
	if int(reply.n) == len(cmd)-2 {
		f.lives[key] = time.Time{} // it did not exist before
	}
	if id, ok := strings.CutPrefix(key, f.keys.ReplyPrefix()); ok {
		for _, value := range cmd[2:] {
			f.ack(c, id, value)
		}
	}
	return key
}

func (f *facts) ack(c *connInfo, id, value string) {
	var a control.Ack
	if err := json.Unmarshal([]byte(value), &a); err != nil || a.Instance == "" {
		op, cause := f.op(id)
		e := f.event(c, EvAck, op, "id", id, "text", "true")
		e.Detail = value
		f.w.trace.Add(e, cause)
		return
	}
	op, cause := f.op(id)
	o := f.ops[id]
	first := "false"
	if o != nil && o.phases[a.Instance+"/"+string(a.Phase)] == 0 {
		first = "true"
		if d := o.delivered[c.proc.proc.name]; d != 0 {
			cause = d
		}
	}
	e := f.event(c, EvAck, op, "id", id, "phase", string(a.Phase), "status", string(a.Status), "detail", a.Detail,
		"revision", a.Revision, "invocation", a.InvocationID, "first", first)
	e.Instance, e.Host = a.Instance, a.Host
	ref := f.w.trace.Add(e, cause)
	if o == nil {
		return
	}
	if first == "true" {
		o.phases[a.Instance+"/"+string(a.Phase)] = ref
	}
	switch a.Phase {
	case control.Accepted:
		if !slices.Contains(f.running[a.Instance], o) {
			f.running[a.Instance] = append(f.running[a.Instance], o)
		}
	case control.Done:
		f.running[a.Instance] = slices.DeleteFunc(f.running[a.Instance], func(x *opFacts) bool { return x == o })
	}
}

// opOf says on behalf of which op a process is acting for instance: the oldest
// one that it has accepted and not done, else the one that reached it last.
func (f *facts) opOf(instance string, inc *incarnation) string {
	if ops := f.running[instance]; len(ops) > 0 {
		return ops[0].name
	}
	if o := f.newest[inc]; o != nil {
		return o.name
	}
	return ""
}

// actingFor is opOf for the world's other parts, with the event to name as the
// cause.
func (f *facts) actingFor(instance string, inc *incarnation) (op string, cause Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ops := f.running[instance]; len(ops) > 0 {
		return ops[0].name, ops[0].phases[instance+"/"+string(control.Accepted)]
	}
	if o := f.newest[inc]; o != nil && inc != nil {
		return o.name, o.delivered[inc.proc.name]
	}
	return "", 0
}

// op finds the scenario's name of an op, and its publication.
func (f *facts) op(id string) (name string, published Ref) {
	if o := f.ops[id]; o != nil {
		return o.name, o.published
	}
	return id, 0
}

// sent learns of an op when its publisher sends it. Its name must be known
// before the first delivery, and in real time that may be heard of before the
// reply to the PUBLISH is.
func (f *facts) sent(c *connInfo, cmd []string) {
	if len(cmd) != 3 || cmd[0] != "PUBLISH" || cmd[1] != f.keys.Channel() {
		return
	}
	var op control.Op
	if err := json.Unmarshal([]byte(cmd[2]), &op); err != nil || op.ID == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ops[op.ID] == nil {
		f.ops[op.ID] = &opFacts{
			id: op.ID, name: cmp.Or(c.proc.proc.opName, op.ID), op: op, payload: cmd[2], at: f.w.trace.Now(),
			phases: map[string]Ref{}, delivered: map[string]Ref{},
		}
	}
}

func (f *facts) publish(c *connInfo, payload string, receivers int64) {
	e := f.event(c, EvPublish, "", "receivers", strconv.FormatInt(receivers, 10), "bytes", strconv.Itoa(len(payload)))
	var op control.Op
	_ = json.Unmarshal([]byte(payload), &op)
	o := f.ops[op.ID]
	if o == nil {
		e.Attrs["raw"] = "true"
		f.w.trace.Add(e, 0)
		return
	}
	e.Op = o.name
	expected, live := f.w.expected(op.Target, f.subs)
	for k, v := range map[string]string{
		"id": op.ID, "op": op.Op, "target": op.Target, "issued": micros(op.IssuedAt), "expires": micros(op.ExpiresAt),
		"gateway_deadline": micros(op.Args.GatewayDeadline), "gateway_deadline_ms": f.w.sinceStart(op.Args.GatewayDeadline),
		"revision": op.Args.Revision, "expected": strings.Join(expected, ","), "live": strings.Join(live, ","),
	} {
		e.Attrs[k] = v
	}
	o.published = f.w.trace.Add(e, 0)
}

func micros(t fleet.Time) string { return strconv.FormatInt(int64(t), 10) }

// pushed sees a message of the channel arrive at a process.
func (f *facts) pushed(c *connInfo, _, payload string, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.event(c, EvDelivered, "", "bytes", strconv.FormatInt(size, 10))
	var op struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(payload), &op); err != nil || op.ID == "" {
		e.Attrs["raw"] = "true"
		f.w.trace.Add(e, 0)
		return
	}
	o := f.ops[op.ID]
	var cause Ref
	e.Op, cause = f.op(op.ID)
	e.Attrs["id"] = op.ID
	ref := f.w.trace.Add(e, cause)
	if o != nil {
		if o.delivered[c.proc.proc.name] == 0 {
			o.delivered[c.proc.proc.name] = ref
		}
		f.newest[c.proc] = o
	}
}

func (f *facts) subscribed(c *connInfo, channel string) {
	c.mu.Lock()
	again := c.channel != ""
	c.channel = channel
	c.mu.Unlock()
	if again {
		return
	}
	f.subs[c.proc.proc.name]++
	f.w.trace.Add(f.event(c, EvSubscribed, "", "channel", channel), 0)
}

// lost records that a connection is gone; nothing when it was not subscribed.
func (f *facts) lost(c *connInfo, why string) {
	if c == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lostLocked(c, why)
}

func (f *facts) lostLocked(c *connInfo, why string) {
	c.mu.Lock()
	channel := c.channel
	c.channel = ""
	c.mu.Unlock()
	if channel == "" {
		return
	}
	f.subs[c.proc.proc.name]--
	f.w.trace.Add(f.event(c, EvUnsubscribed, "", "channel", channel, "why", why), 0)
}

// isSubscribed reports whether a process hears the channel.
func (f *facts) isSubscribed(process string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.subs[process] > 0
}

// heartbeat records an instance's first heartbeat and each that says something
// new about its unit.
func (f *facts) heartbeat(c *connInfo, instance, payload string) {
	state := jsonField(payload, `"active_state":"`)
	deaf := strconv.FormatBool(!strings.Contains(payload, `"deaf_since":`))
	if f.beats[instance] == state+deaf {
		return
	}
	f.beats[instance] = state + deaf
	e := f.event(c, EvHeartbeat, "", "state", state, "subscribed", deaf)
	e.Instance = instance
	f.w.trace.Add(e, 0)
}

// jsonField finds a string in JSON without decoding all of it: a large fleet
// sends a heartbeat every few microseconds of real time.
func jsonField(payload, prefix string) string {
	_, rest, ok := strings.Cut(payload, prefix)
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(rest, `"`)
	return v
}

// rebase forgets the keys that are not in the database any more.
func (f *facts) rebase(keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.lives {
		if !slices.Contains(keys, k) {
			delete(f.lives, k)
		}
	}
	for k, l := range f.locks {
		if !slices.Contains(keys, k) {
			delete(f.locks, k)
			if l.cancel != nil {
				l.cancel()
			}
		}
	}
}

func (f *facts) event(c *connInfo, kind, op string, attrs ...string) Event {
	p := c.proc.proc
	e := Event{Actor: p.name, Kind: kind, Op: op, Instance: p.instance, Attrs: map[string]string{}}
	if p.host != nil {
		e.Host = p.host.name
	}
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			e.Attrs[attrs[i]] = attrs[i+1]
		}
	}
	return e
}

// gone forgets a process that has ended.
func (f *facts) gone(inc *incarnation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.newest, inc)
}

// lockHolder is the instance that holds the pull lock of a checkout, "" when
// nobody does.
func (f *facts) lockHolder(host, path string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.locks[f.keys.Pull(host, path)]
	if l == nil {
		return ""
	}
	return l.value[:max(0, strings.LastIndexByte(l.value, ':'))]
}

// runningOp is the oldest op that an instance has accepted and not done.
func (f *facts) runningOp(instance string) (op string, cause Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ops := f.running[instance]; len(ops) > 0 {
		return ops[0].name, ops[0].phases[instance+"/"+string(control.Accepted)]
	}
	return "", 0
}

// payload is the message by which a named op was published, "" when it was
// not.
func (f *facts) payload(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.ops {
		if o.name == name {
			return o.payload
		}
	}
	return ""
}

// publishedAt is when a named op was published, −1 when it was not yet.
func (f *facts) publishedAt(name string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.ops {
		if o.name == name {
			return o.at
		}
	}
	return -1
}
