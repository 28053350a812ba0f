package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DaemonService is the service name of the host daemon itself: sgfleet@host
// addresses it, and no other target ever does.
const DaemonService = "sgfleet"

// TargetAll is the target that means every instance of the fleet.
const TargetAll = "all"

// ErrNoMatch is what [Target.Check] wraps when a target, or a part of it,
// selects nothing.
var ErrNoMatch = errors.New("matches nothing")

// maxTargetTerms bounds what one target may unfold to, so that
// web@h[1-999999999] costs a daemon nothing.
const maxTargetTerms = 10_000

// Target selects instances. The zero Target selects nothing; [ParseTarget]
// makes one of an operator's words.
type Target struct {
	include []term
	exclude []term
	text    string
}

// term is one part of a target between commas. In its fields * is a wildcard.
type term struct {
	kind    termKind
	service string // for word: a tier or a service
	host    string
	n       int // 0: any
}

type termKind int

const (
	termAll      termKind = iota
	termWord              // a tier or a service
	termInstance          // service@host, service@host#n
	termHost              // host:NAME
)

func (t term) String() string {
	switch t.kind {
	case termAll:
		return TargetAll
	case termHost:
		return "host:" + t.host
	case termInstance:
		s := t.service + "@" + t.host
		if t.n > 0 {
			s += "#" + strconv.Itoa(t.n)
		}
		return s
	}
	return t.service
}

// ParseTarget reads a target: parts separated by commas, each of them
//
//	all              every instance (never the daemons themselves)
//	TIER, SERVICE    by name
//	SERVICE@HOST     one service on one host; SERVICE@HOST#N one copy of it
//	host:NAME        everything on a host
//	sgfleet@HOST     the host daemon itself
//
// A part that begins with ! excludes what it selects, wherever it stands. A *
// in a name stands for any characters, and [1-4,7] for each of these numbers,
// as the roster folds them: inference@h[1-4,7].
//
// With a config, a tier or service that neither it nor members knows is an
// error that names the nearest one; members is what the registry knows and may
// be left out. With a nil config and no members only the form is checked: this
// is how a daemon, which need not know every service of the fleet, reads the
// target of an op. An empty target is an error, never "all".
func ParseTarget(s string, cfg *Config, members ...Member) (Target, error) {
	t, err := parseTarget(s)
	if err == nil && (cfg != nil || len(members) > 0) {
		err = t.checkNames(cfg, members)
	}
	switch {
	case err == nil:
		return t, nil
	case strings.HasPrefix(err.Error(), strconv.Quote(s)): // the only part of the list: named once is enough
		return Target{}, fmt.Errorf("target %w", err)
	}
	return Target{}, fmt.Errorf("target %q: %w", s, err)
}

func parseTarget(s string) (Target, error) {
	if strings.TrimSpace(s) == "" {
		return Target{}, errors.New("is empty; write all for every instance")
	}
	var t Target
	var include, exclude []string
	for _, part := range splitList(s) {
		part = strings.TrimSpace(part)
		body, excluded := strings.CutPrefix(part, "!")
		if body = strings.TrimSpace(body); body == "" {
			return Target{}, errors.New("a part between commas is empty")
		}
		words, err := expand(body, maxTargetTerms-len(t.include)-len(t.exclude))
		if err != nil {
			return Target{}, err
		}
		for _, w := range words {
			tm, err := parseTerm(w)
			if err != nil {
				return Target{}, err
			}
			if !excluded {
				t.include = append(t.include, tm)
				continue
			}
			if tm.kind == termAll {
				return Target{}, errors.New("!all excludes everything")
			}
			t.exclude = append(t.exclude, tm)
		}
		if excluded {
			exclude = append(exclude, "!"+body)
		} else {
			include = append(include, body)
		}
	}
	if len(t.include) == 0 {
		return Target{}, fmt.Errorf("only says what to leave out; write all,%s", strings.Join(exclude, ","))
	}
	t.text = strings.Join(append(include, exclude...), ",")
	return t, nil
}

func parseTerm(s string) (term, error) {
	if s == TargetAll {
		return term{kind: termAll}, nil
	}
	if kind, name, ok := strings.Cut(s, ":"); ok {
		if kind != "host" {
			return term{}, fmt.Errorf("%q: the only prefix is host:, as in host:%s", s, name)
		}
		if !validPattern(name) {
			return term{}, fmt.Errorf("%q: %q is not a host name", s, name)
		}
		return term{kind: termHost, host: name}, nil
	}
	service, rest, at := strings.Cut(s, "@")
	if !at {
		if !validPattern(s) {
			return term{}, fmt.Errorf("%q is not a name of letters, digits, dot, dash and underscore", s)
		}
		if s == DaemonService {
			return term{}, fmt.Errorf("%q: the daemons are addressed as sgfleet@HOST, all of them as sgfleet@*", s)
		}
		return term{kind: termWord, service: s}, nil
	}
	host, num, numbered := strings.Cut(rest, "#")
	n := 0
	if numbered {
		var ok bool
		if n, ok = parseIndex(num); !ok {
			return term{}, fmt.Errorf("%q: %q after # is not a number from 1", s, num)
		}
	}
	if !validPattern(service) || !validPattern(host) {
		return term{}, fmt.Errorf("%q: want SERVICE@HOST or SERVICE@HOST#N", s)
	}
	return term{kind: termInstance, service: service, host: host, n: n}, nil
}

// validPattern is ValidName with * allowed anywhere.
func validPattern(s string) bool {
	return len(s) <= MaxName && s != "" && ValidName("x"+strings.ReplaceAll(s[1:], "*", "")) &&
		(s[0] == '*' || ValidName(s[:1]))
}

func (t term) match(m Member) bool {
	if m.Service == DaemonService {
		return t.kind == termInstance && t.service == DaemonService && glob(t.host, m.Host)
	}
	switch t.kind {
	case termAll:
		return true
	case termWord:
		return glob(t.service, m.Tier) || glob(t.service, m.Service)
	case termHost:
		return glob(t.host, m.Host)
	}
	return glob(t.service, m.Service) && glob(t.host, m.Host) && (t.n == 0 || t.n == m.N)
}

// Match reports whether t selects m.
func (t Target) Match(m Member) bool {
	selects := func(tm term) bool { return tm.match(m) }
	return slices.ContainsFunc(t.include, selects) && !slices.ContainsFunc(t.exclude, selects)
}

// Names reports whether t selects m by its own name, service@host with no
// wildcard: only then is a failed unit restarted without being asked for.
func (t Target) Names(m Member) bool {
	return t.Match(m) && slices.ContainsFunc(t.include, func(tm term) bool {
		return tm.kind == termInstance && tm.literal() && tm.match(m)
	})
}

func (t term) literal() bool { return !strings.Contains(t.service+t.host, "*") }

// Broadcast reports whether t is "all" or a single tier of cfg, with nothing
// left out: the only targets that services of the original system understand.
func (t Target) Broadcast(cfg *Config) bool {
	if len(t.include) != 1 || len(t.exclude) > 0 {
		return false
	}
	tm := t.include[0]
	return tm.kind == termAll || tm.kind == termWord && slices.Contains(cfg.TierNames(), tm.service)
}

// String returns t in its canonical form: as written, without spaces, what is
// left out last. Parsing it gives t again.
func (t Target) String() string { return t.text }

// checkNames finds tiers and services that nobody knows.
func (t Target) checkNames(cfg *Config, members []Member) error {
	var words, services []string
	if cfg != nil {
		words = cfg.TierNames()
		for name := range cfg.Services {
			services = append(services, name)
		}
		for _, l := range cfg.Legacy.Instances {
			if i, err := ParseInstance(l); err == nil {
				services = append(services, i.Service)
			}
		}
	}
	for _, m := range members {
		words = append(words, m.Tier)
		services = append(services, m.Service)
	}
	services = append(services, DaemonService)
	words = append(words, services...)
	for _, tm := range slices.Concat(t.include, t.exclude) {
		known, what := words, "tier or service"
		switch tm.kind {
		case termAll, termHost:
			continue
		case termInstance:
			known, what = services, "service"
		}
		if slices.ContainsFunc(known, func(k string) bool { return glob(tm.service, k) }) {
			continue
		}
		said := hint(tm.service, append(known, TargetAll))
		isHost := func(m Member) bool { return glob(tm.service, m.Host) }
		if tm.kind == termWord && slices.ContainsFunc(members, isHost) {
			said = " (the host is host:" + tm.service + ")"
		}
		return fmt.Errorf("no %s is called %q%s", what, tm.service, said)
	}
	return nil
}

// hint is DidYouMean in parentheses, or nothing.
func hint(word string, known []string) string {
	known = slices.DeleteFunc(slices.Clone(known), func(k string) bool { return k == "" || k == DaemonService })
	if h := DidYouMean(word, known); h != "" {
		return " (" + h + ")"
	}
	return ""
}

// Check reports, against every known instance, whether each part of t does
// something: a part that selects nothing is mistyped, and so is an exclusion
// that names a host or an instance nobody knows. Its error wraps [ErrNoMatch]
// and names the nearest.
func (t Target) Check(members []Member) error {
	check := func(tm term, prefix string) error {
		if slices.ContainsFunc(members, tm.match) {
			return nil
		}
		return fmt.Errorf("target %q: %s%s %w%s", t.text, prefix, tm, ErrNoMatch, tm.nearest(members))
	}
	for _, tm := range t.include {
		if err := check(tm, ""); err != nil {
			return err
		}
	}
	for _, tm := range t.exclude {
		// A word was checked against the known names when it was parsed, and
		// a wildcard may well leave out nothing today.
		if tm.kind == termWord || !tm.literal() {
			continue
		}
		if err := check(tm, "!"); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(members, t.Match) {
		return fmt.Errorf("target %q: %w: everything it selects is left out again", t.text, ErrNoMatch)
	}
	return nil
}

// nearest is the hint of a part that matched nothing.
func (t term) nearest(members []Member) string {
	if len(members) == 0 {
		return " (no instance is known: no daemon has sent a heartbeat)"
	}
	var hosts, running, instances, words []string
	onHost := false
	for _, m := range members {
		hosts = append(hosts, m.Host)
		onHost = onHost || glob(t.host, m.Host)
		if glob(t.service, m.Service) {
			running = append(running, m.Host)
		}
		if m.Service != DaemonService {
			words = append(words, m.Tier, m.Service)
			instances = append(instances, m.Service+"@"+m.Host, m.String())
		}
	}
	switch {
	case t.kind == termHost:
		return hint(t.host, hosts)
	case t.kind == termInstance && onHost && t.literal():
		// The host exists: what else of it might be meant?
		instances = slices.DeleteFunc(instances, func(s string) bool {
			_, host, _ := strings.Cut(s, "@")
			host, _, _ = strings.Cut(host, "#")
			return host != t.host
		})
		return hint(t.String(), instances)
	case t.kind == termInstance && t.literal():
		if h := cmp.Or(Nearest(t.host, running), Nearest(t.host, hosts)); h != "" {
			return " (did you mean " + term{kind: termInstance, service: t.service, host: h, n: t.n}.String() + "?)"
		}
		return hint(t.String(), instances)
	}
	return hint(t.service, words)
}
