package fleet

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
)

// FieldError is one value of a config that cannot be right.
type FieldError struct {
	Key     string // dotted: services.web.unit
	Message string
	Hint    string

	from []string // the other keys that it was concluded from
}

// concludedFrom names the values, besides its own, that make e an error.
func (e *FieldError) concludedFrom(keys ...string) { e.from = keys }

func (e *FieldError) Error() string {
	if e.Hint != "" {
		return e.Key + ": " + e.Message + " (" + e.Hint + ")"
	}
	return e.Key + ": " + e.Message
}

// Limits that a config must keep.
const (
	MaxOpLife = 120 * time.Second

	// A pull that runs into its timeout is given 10 s between SIGTERM and
	// SIGKILL, and some time to store its outcome; a lock that ends before that
	// lets a second pull in.
	killGrace = 10 * time.Second
	lockSlack = 15 * time.Second

	maxInstances = 1000
)

type validator struct {
	c   *Config
	err *multierror.Error
}

func (v *validator) fail(key, hint, format string, args ...any) *FieldError {
	e := &FieldError{Key: key, Message: fmt.Sprintf(format, args...), Hint: hint}
	v.err = multierror.Append(v.err, e)
	return e
}

// Validate reports everything in c that cannot be right, as a
// *multierror.Error of *FieldError; nil means that c can be used.
func (c *Config) Validate() error {
	v := &validator{c: c}
	v.names()
	v.redis()
	v.units()
	v.tiers()
	v.services()
	v.oneUnitOneInstance()
	v.checkouts()
	v.times()
	v.legacy()
	v.rest()
	if v.err == nil {
		return nil
	}
	v.err.ErrorFormat = formatErrors
	return v.err
}

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-][A-Za-z0-9._:-]{0,62}:$`)
	unitPattern   = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,250}$`)
	envPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	remotePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/-]*$`)
)

func (v *validator) names() {
	c := v.c
	if !ValidName(c.Fleet) {
		v.fail("fleet", "", "%q is not a name of letters, digits, dot, dash and underscore", c.Fleet)
	}
	if !prefixPattern.MatchString(c.KeyPrefix) {
		v.fail("key_prefix", "such as sg:", "%q is not a prefix of letters, digits, dot, dash and underscore that ends in a colon", c.KeyPrefix)
	}
	if c.Host != "" && !ValidName(c.Host) {
		v.fail("host", "set host to a name that is one", "%q is not a host name of letters, digits, dot, dash and underscore, at most %d", c.Host, MaxName)
	}
	v.oneOf("mode", c.Mode, ModeAct, ModeObserve)
	v.oneOf("signing.mode", c.Signing.Mode, "off", "permissive", "enforce")
}

func (v *validator) oneOf(key, value string, known ...string) {
	if !slices.Contains(known, value) {
		v.fail(key, DidYouMean(value, known), "%q is none of %s", value, strings.Join(known, ", "))
	}
}

func (v *validator) redis() {
	const advice = "pub/sub gains nothing from a cluster; use one server or a Sentinel group (redis.sentinels)"
	r := v.c.Redis
	u, err := url.Parse(r.URL)
	if err != nil || r.URL == "" {
		// url.Parse's error repeats the URL, and with it the password.
		v.fail("redis.url", "such as redis://10.0.0.5:6379/0", "cannot be read as a URL")
		u = &url.URL{Scheme: "rediss", Host: "unknown"}
	}
	switch db := strings.Trim(u.Path, "/"); {
	case strings.Contains(u.Scheme, "cluster"), u.Query().Has("addr"), strings.Contains(u.Host, ","):
		v.fail("redis.url", advice, "Redis Cluster is not supported")
	case !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme):
		v.fail("redis.url", DidYouMean(u.Scheme, []string{"redis", "rediss", "unix"}), "%q is not a scheme; want redis://, rediss:// or unix://", u.Scheme)
	case u.Scheme == "unix" && !path.IsAbs(u.Path):
		v.fail("redis.url", "unix:///run/redis/redis.sock", "a socket's path is absolute")
	case u.Scheme != "unix" && u.Hostname() == "" && len(r.Sentinels) == 0:
		v.fail("redis.url", "such as redis://10.0.0.5:6379/0", "names no host").concludedFrom("redis.sentinels")
	case u.Scheme != "unix" && db != "":
		if _, ok := parseDigits(db); !ok {
			v.fail("redis.url", "", "%q is not the number of a database", db)
		}
	}
	for i, s := range r.Sentinels {
		v.address(fmt.Sprintf("redis.sentinels[%d]", i), s, true)
	}
	switch {
	case len(r.Sentinels) > 0 && r.MasterName == "":
		v.fail("redis.sentinels", "set redis.master_name", "are given without the name of the group they watch").concludedFrom("redis.master_name")
	case len(r.Sentinels) == 0 && r.MasterName != "":
		v.fail("redis.master_name", "list them in redis.sentinels", "is given without sentinels").concludedFrom("redis.sentinels")
	}
	if r.CAFile != "" && u.Scheme != "rediss" {
		v.fail("redis.ca_file", "write rediss:// in redis.url", "is given, but redis.url has no TLS").concludedFrom("redis.url")
	}
}

func (v *validator) address(key, s string, needHost bool) {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 0 || n > 65535 || needHost && (host == "" || n == 0) {
		v.fail(key, "", "%q is not HOST:PORT", printable(s))
	}
}

func (v *validator) checkouts() {
	var used, dirs []string
	from := []string{"services"}
	for name, s := range v.c.Services {
		used = append(used, s.Checkout)
		from = append(from, joinPath("services", name)+".checkout")
	}
	for dir := range v.c.Checkouts {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		co, key := v.c.Checkouts[dir], joinPath("checkouts", dir)
		v.dir(key, dir)
		if !slices.Contains(used, dir) {
			used := slices.DeleteFunc(slices.Clone(used), func(s string) bool { return s == "" })
			v.fail(key, DidYouMean(dir, used), "no service runs from it").concludedFrom(from...)
		}
		if co.Remote != "" && !remotePattern.MatchString(co.Remote) {
			v.fail(key+".remote", "", "%q is not the name of a remote", printable(co.Remote))
		}
		if co.Branch != "" && !validBranch(co.Branch) {
			v.fail(key+".branch", "", "%q is not the name of a branch", printable(co.Branch))
		}
		for i, arg := range co.AfterPull {
			if strings.ContainsRune(arg, 0) || i == 0 && arg == "" {
				v.fail(fmt.Sprintf("%s.after_pull[%d]", key, i), "", "%q cannot be run", printable(arg))
			}
		}
		if len(co.AfterPull) == 1 && strings.Contains(co.AfterPull[0], " ") {
			v.fail(key+".after_pull", "one list item for each argument; there is no shell", "%q is one word", printable(co.AfterPull[0]))
		}
	}
}

// validBranch is git check-ref-format, as far as it matters: nothing that git
// would take for a flag, a range or a pattern.
func validBranch(s string) bool {
	return remotePattern.MatchString(s) && !strings.Contains(s, "..") && !strings.Contains(s, "//") &&
		!strings.HasSuffix(s, "/") && !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, ".lock")
}

func (v *validator) within(key string, d, low, high time.Duration) {
	if d < low || d > high {
		v.fail(key, "", "%s is not within %s and %s", shortDuration(d), shortDuration(low), shortDuration(high))
	}
}

func (v *validator) times() {
	c := v.c
	const least = 100 * time.Millisecond
	v.within("control_reply_timeout", c.ControlReplyTimeout.D(), least, 10*time.Minute)
	v.within("heartbeat_interval", c.HeartbeatInterval.D(), least, MaxHeartbeatInterval)
	v.within("op_life", c.OpLife.D(), least, MaxOpLife)
	v.within("gateway_grace", c.GatewayGrace.D(), 0, time.Hour)
	v.within("cooldown", c.Cooldown.D(), 0, 24*time.Hour)
	v.within("settle", c.Settle.D(), 0, 10*time.Minute)
	v.within("splay", c.Splay.D(), 0, 10*time.Minute)
	v.within("pull_timeout", c.PullTimeout.D(), least, 6*time.Hour)
	least2 := c.PullTimeout.D() + killGrace + lockSlack
	switch ttl := c.LockTTL.D(); {
	case ttl < least2:
		v.fail("lock_ttl", fmt.Sprintf("at least %s", shortDuration(least2)),
			"%s ends while a pull may still run: pull_timeout %s + %s until it is killed + %s slack",
			c.LockTTL, c.PullTimeout, shortDuration(killGrace), shortDuration(lockSlack)).concludedFrom("pull_timeout")
	case ttl > 24*time.Hour:
		v.fail("lock_ttl", "", "%s is longer than a day", c.LockTTL)
	}
}

func (v *validator) legacy() {
	l := v.c.Legacy
	for i, s := range l.Instances {
		if _, err := ParseInstance(s); err != nil {
			v.fail(fmt.Sprintf("legacy.instances[%d]", i), "", "%v", err)
		}
	}
	if !envPattern.MatchString(l.ReplyField) || len(l.ReplyField) > MaxName {
		v.fail("legacy.reply_field", "such as reply_key", "%q is not a field name", printable(l.ReplyField))
	}
	if slices.Contains([]string{"v", "id", "op", "target", "requested_by", "trace_id", "issued_at", "expires_at", "args", "auth"}, strings.ToLower(l.ReplyField)) {
		v.fail("legacy.reply_field", "such as reply_key", "%q is a field of every op already", l.ReplyField)
	}
	if l.AckPattern == "" {
		return
	}
	re, err := regexp.Compile(l.AckPattern)
	if err != nil {
		v.fail("legacy.ack_pattern", "", "%v", err)
		return
	}
	for _, group := range []string{"service", "host"} {
		if re.SubexpIndex(group) < 0 {
			v.fail("legacy.ack_pattern", "", "has no group (?P<%s>…), so no answer can be attributed", group)
		}
	}
}

func (v *validator) rest() {
	c := v.c
	if slices.Contains([]string{"permissive", "enforce"}, c.Signing.Mode) && c.Signing.AllowedSigners == "" {
		v.fail("signing.allowed_signers", "", "signing.mode %s needs the file of trusted keys", c.Signing.Mode).concludedFrom("signing.mode")
	}
	for _, f := range []struct{ key, file string }{
		{"signing.allowed_signers", c.Signing.AllowedSigners},
		{"git.ssh_key", c.Git.SSHKey},
		{"git.known_hosts", c.Git.KnownHosts},
		{"redis.password_file", c.Redis.PasswordFile},
		{"redis.ca_file", c.Redis.CAFile},
	} {
		if f.file != "" && !path.IsAbs(f.file) {
			v.fail(f.key, "", "%q is not an absolute path", printable(f.file))
		}
	}
	for i, name := range c.Git.PassEnv {
		key := fmt.Sprintf("git.pass_env[%d]", i)
		switch {
		case !envPattern.MatchString(name):
			v.fail(key, "", "%q is not the name of a variable", printable(name))
		case strings.HasPrefix(name, "GIT_"), strings.HasPrefix(name, "LD_"), name == "PATH", name == "HOME":
			v.fail(key, "", "%s would let the environment choose what git runs", name)
		}
	}
	if c.Metrics.Listen != "" {
		v.address("metrics.listen", c.Metrics.Listen, false)
	}
}
