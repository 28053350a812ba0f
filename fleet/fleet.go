// Package fleet says what a fleet is: its tiers in restart order, the systemd
// unit behind each service, how a target selects instances, the configuration
// every host shares, and the registry of heartbeats that the roster is drawn
// from.
//
// Start with [Config] (defaults by [Default]) and [Units]; an operator's target
// is parsed by [ParseTarget] and matched against a [Member]; the live fleet is
// read by [ReadRegistry]. Everything but the registry's two Redis calls is
// pure.
package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxName is the length limit of a host or service name, in bytes.
const MaxName = 64

// ValidName reports whether s may name a host or a service:
// [A-Za-z0-9._-]{1,64}, and not starting with a dash, so that it can never be
// taken for a flag.
func ValidName(s string) bool {
	if s == "" || len(s) > MaxName || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// Time is a point in time as Redis TIME tells it: microseconds since the Unix
// epoch. Hosts' clocks disagree; Redis is the one clock that every party to an
// op can read, so every time in the protocol is this one. Zero means unset.
type Time int64

// TimeOf converts a [time.Time] (of Redis, not of the host) to a Time.
func TimeOf(t time.Time) Time { return Time(t.UnixMicro()) }

// Time converts t to a [time.Time] in UTC.
func (t Time) Time() time.Time { return time.UnixMicro(int64(t)).UTC() }

// Add returns t + d.
func (t Time) Add(d time.Duration) Time { return t + Time(d.Microseconds()) }

// Sub returns t − u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t-u) * time.Microsecond }

// Instance is one running copy of a service on one host, the unit of
// everything an operator sees: written service@host, or service@host#n when a
// host runs several copies.
type Instance struct {
	Service string
	Host    string
	N       int // 1-based configured or template index; 0 when the host runs one copy
}

// String renders i as service@host or service@host#n.
func (i Instance) String() string {
	s := i.Service + "@" + i.Host
	if i.N > 0 {
		s += "#" + strconv.Itoa(i.N)
	}
	return s
}

// ParseInstance is the inverse of [Instance.String].
func ParseInstance(s string) (Instance, error) {
	service, rest, ok := strings.Cut(s, "@")
	host, num, numbered := strings.Cut(rest, "#")
	n := 0
	if numbered {
		var valid bool
		if n, valid = parseIndex(num); !valid {
			return Instance{}, fmt.Errorf("instance %q: %q after # is not a number from 1", s, num)
		}
	}
	if !ok || !ValidName(service) || !ValidName(host) {
		return Instance{}, fmt.Errorf("instance %q: want service@host or service@host#n", s)
	}
	return Instance{Service: service, Host: host, N: n}, nil
}

// Member is what a target is matched against: one instance and the tier its
// service belongs to.
type Member struct {
	Instance
	Tier string
}
