package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// slowGit makes git slow on some hosts.
type slowGit struct {
	Where    `yaml:",inline"`
	Span     `yaml:",inline"`
	Checkout string  `yaml:"checkout,omitempty"` // default: every one of the host
	Factor   float64 `yaml:"factor"`
}

// failGit makes fetches fail on some hosts.
type failGit struct {
	Where    `yaml:",inline"`
	Span     `yaml:",inline"`
	Checkout string `yaml:"checkout,omitempty"`
	Message  string `yaml:"message,omitempty"` // what git says
}

// staleIndexLock is what a killed git leaves behind.
type staleIndexLock struct {
	Where    `yaml:",inline"`
	Checkout string `yaml:"checkout,omitempty"`
	Torn     bool   `yaml:"torn,omitempty"`    // the tree is torn, too, and a marker says so
	Foreign  bool   `yaml:"foreign,omitempty"` // the git is alive and not ours; it ends with the fault
	Span     `yaml:",inline"`
}

// dirtyCheckout is somebody having edited files in place.
type dirtyCheckout struct {
	Where    `yaml:",inline"`
	Checkout string `yaml:"checkout,omitempty"`
	File     string `yaml:"file,omitempty"` // default config/local.yaml
	Span     `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "slow_git", Summary: "make git slower by a factor", Example: "{host: host-003, factor: 20, for: 2m}",
		New: func() Action { return &slowGit{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "fail_git", Summary: "make every fetch fail", Example: "{host: host-003, for: 30s}",
		New: func() Action { return &failGit{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "stale_index_lock", Summary: "leave an index.lock behind, as a killed git does (torn: and a torn tree; foreign: of a git that is alive)",
		Example: "{host: host-003}", New: func() Action { return &staleIndexLock{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "dirty_checkout", Summary: "somebody has edited a tracked file in place", Example: "{host: host-003, for: 1m}",
		New: func() Action { return &dirtyCheckout{} }, Fault: true,
	})
	registerChaos("slow_git", func(d *draw) Action {
		return &slowGit{Where: Where{Host: d.host()}, Span: d.span(), Factor: 2 + 8*d.rnd.Float64()}
	})
	registerChaos("fail_git", func(d *draw) Action { return &failGit{Where: Where{Host: d.host()}, Span: d.span()} })
	registerChaos("stale_index_lock", func(d *draw) Action {
		return &staleIndexLock{Where: Where{Host: d.host()}, Torn: d.rnd.Float64() < 0.5}
	})
	registerChaos("dirty_checkout", func(d *draw) Action { return &dirtyCheckout{Where: Where{Host: d.host()}, Span: d.span()} })
}

// Validate implements [Action].
func (a *slowGit) Validate(p *Plan) []Problem {
	out := append(append(a.Where.validate(p), a.Span.validate()...), validCheckout(p, a.Checkout)...)
	if a.Factor <= 0 {
		out = append(out, Problem{Field: "factor", Message: "must be positive: 20 makes git twenty times slower"})
	}
	return out
}

// Run implements [Action].
func (a *slowGit) Run(w *World, s Step) error {
	return w.onCheckouts(s, "slow_git", a.Where, a.Span, a.Checkout, func(c *checkout) func() {
		c.slow = append(c.slow, a.Factor)
		return func() { c.slow = drop(c.slow, a.Factor) }
	}, "factor", strconv.FormatFloat(a.Factor, 'g', 3, 64))
}

// Validate implements [Action].
func (a *failGit) Validate(p *Plan) []Problem {
	return append(append(a.Where.validate(p), a.Span.validate()...), validCheckout(p, a.Checkout)...)
}

// Run implements [Action].
func (a *failGit) Run(w *World, s Step) error {
	msg := cmp.Or(a.Message, "fatal: unable to access the remote: Connection timed out")
	return w.onCheckouts(s, "fail_git", a.Where, a.Span, a.Checkout, func(c *checkout) func() {
		c.fail = append(c.fail, msg)
		return func() { c.fail = drop(c.fail, msg) }
	})
}

// Validate implements [Action].
func (a *staleIndexLock) Validate(p *Plan) []Problem {
	return append(append(a.Where.validate(p), a.Span.validate()...), validCheckout(p, a.Checkout)...)
}

// Run implements [Action].
func (a *staleIndexLock) Run(w *World, s Step) error {
	return w.onCheckouts(s, "stale_index_lock", a.Where, a.Span, a.Checkout, func(c *checkout) func() {
		if a.Foreign {
			c.foreign = true
			return func() { c.foreign = false }
		}
		if slices.ContainsFunc(c.locks, func(l *treeLock) bool { return l.gits > 0 }) {
			return func() {} // a git of ours is at work: nothing here is stale
		}
		c.indexLock = true
		if a.Torn && c.marker == nil {
			c.torn = true
			c.marker = c.interrupted()
			w.trace.Add(c.event("git@"+c.h.name, EvTorn), w.fault())
		}
		return func() {}
	})
}

// Validate implements [Action].
func (a *dirtyCheckout) Validate(p *Plan) []Problem {
	return append(append(a.Where.validate(p), a.Span.validate()...), validCheckout(p, a.Checkout)...)
}

// Run implements [Action].
func (a *dirtyCheckout) Run(w *World, s Step) error {
	file := cmp.Or(a.File, "config/local.yaml")
	return w.onCheckouts(s, "dirty_checkout", a.Where, a.Span, a.Checkout, func(c *checkout) func() {
		c.dirty = append(c.dirty, file)
		return func() { c.dirty = drop(c.dirty, file) }
	}, "file", file)
}

func validCheckout(p *Plan, path string) []Problem {
	var known []string
	for _, h := range p.Hosts {
		for _, s := range h.Services {
			if s.Checkout != "" && !slices.Contains(known, s.Checkout) {
				known = append(known, s.Checkout)
			}
		}
	}
	if path == "" || slices.Contains(known, path) {
		return nil
	}
	slices.Sort(known)
	return []Problem{{Field: "checkout", Message: fmt.Sprintf("no service has the checkout %q", path), Value: path, Known: known}}
}

// onCheckouts applies a fault to the checkouts of a selection. begin is called
// with the checkout locked and returns what undoes it.
func (w *World) onCheckouts(s Step, action string, where Where, span Span, path string, begin func(*checkout) func(), attrs ...string) error {
	what, err := w.pick(s, where)
	if err != nil {
		return err
	}
	var found []*checkout
	var ends []func()
	for _, m := range what.members {
		if c := m.unit.tree; c != nil && (path == "" || c.path == path) && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	w.disturb(action, span.For.D(), Event{Attrs: what.attrs(attrs...)}, func() {
		for i, end := range ends {
			found[i].mu.Lock()
			end()
			found[i].mu.Unlock()
		}
	})
	for _, c := range found {
		c.mu.Lock()
		ends = append(ends, begin(c))
		c.mu.Unlock()
	}
	return nil
}

// drop removes the first x of list.
func drop[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
