package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// mustLive says whether a key must have a life: replies, releases, locks,
// guards and notes.
func (f *facts) mustLive(key string) bool {
	rest, ok := strings.CutPrefix(key, f.keys.Prefix+"control:")
	if !ok {
		return false
	}
	kind, _, _ := strings.Cut(rest, ":")
	return slices.Contains([]string{"reply", "release", "pull", "pulled", "seen", "self"}, kind)
}

func (f *facts) set(c *connInfo, cmd []string, reply respValue) string {
	if reply.null || len(cmd) < 3 {
		return ""
	}
	life := time.Duration(-1)
	for i := 3; i < len(cmd); i++ {
		n, _ := int64(0), 0
		if i+1 < len(cmd) {
			n, _ = strconv.ParseInt(cmd[i+1], 10, 64)
		}
		switch strings.ToUpper(cmd[i]) {
		case "PX":
			life = time.Duration(n) * time.Millisecond
		case "EX":
			life = time.Duration(n) * time.Second
		case "GET":
			return "" // the reply does not tell whether it was set
		}
	}
	return f.written(c, cmd[1], cmd[2], life)
}

// written records that a string key was set; life < 0 is none.
func (f *facts) written(c *connInfo, key, value string, life time.Duration) string {
	if !f.mustLive(key) {
		return ""
	}
	f.lives[key] = time.Time{}
	if life >= 0 {
		f.lives[key] = time.Now().Add(life)
	}
	if host, path, ok := isPullLock(f.keys.Prefix, key); ok {
		f.locked(c, key, value, host, path, life)
	} else if id, ok := strings.CutPrefix(key, f.keys.Release("")); ok {
		op, cause := f.op(id)
		f.w.trace.Add(f.event(c, EvRelease, op, "value", value), cause)
	}
	return key
}

func (f *facts) locked(c *connInfo, key, value, host, path string, life time.Duration) {
	old := f.locks[key]
	if old != nil && old.cancel != nil {
		old.cancel()
	}
	ms := int64(-1)
	if life >= 0 {
		ms = life.Milliseconds()
	}
	instance := value[:max(0, strings.LastIndexByte(value, ':'))]
	e := f.event(c, EvLock, f.opOf(instance, c.proc), "key", key, "value", value, "ttl_ms", strconv.FormatInt(ms, 10), "path", path)
	e.Host, e.Instance = host, instance
	l := &lockFacts{by: c.proc.proc.name, value: value, path: path, taken: f.w.trace.Add(e, 0)}
	if f.w.real != nil {
		l.before = old // its release came first on the server, and is heard of second
	}
	f.locks[key] = l
	if life >= 0 {
		l.cancel = f.w.dir.after(life, "lock "+key, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.locks[key] == l {
				f.lockExpired(key, l, host)
			}
		})
	}
}

func (f *facts) lockExpired(key string, l *lockFacts, host string) {
	delete(f.locks, key)
	f.w.trace.Add(Event{
		Actor: "redis", Kind: EvLockExpired, Host: host,
		Attrs: map[string]string{"key": key, "value": l.value, "path": l.path},
	}, l.taken)
}

func (f *facts) deleted(c *connInfo, key string) {
	l := f.locks[key]
	if l != nil && l.before != nil && l.by != c.proc.proc.name && l.before.by == c.proc.proc.name {
		l, l.before = l.before, nil
	} else {
		delete(f.lives, key)
		delete(f.locks, key)
	}
	if l == nil {
		return
	}
	if l.cancel != nil {
		l.cancel()
	}
	f.w.trace.Add(f.event(c, EvUnlock, "", "key", key, "value", l.value, "path", l.path), l.taken)
}

func (f *facts) expire(cmd []string, reply respValue) {
	if len(cmd) < 3 || reply.n != 1 || !f.mustLive(cmd[1]) {
		return
	}
	n, _ := strconv.ParseInt(cmd[2], 10, 64)
	unit := time.Second
	if cmd[0] == "PEXPIRE" {
		unit = time.Millisecond
	}
	f.lives[cmd[1]] = time.Now().Add(time.Duration(n) * unit)
}
