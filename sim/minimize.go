package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// MinimizeOptions say how far to shrink.
type MinimizeOptions struct {
	Workers int
	Runs    int                              // at most that many runs; 0 means 200
	Log     func(format string, args ...any) // progress; may be nil
}

// Minimized is the smallest scenario found that still breaks the same promise.
type Minimized struct {
	Text  []byte
	Check string // the promise that it breaks
	Seed  int64
	Runs  int
}

// Minimize shrinks a scenario that fails: to one seed, then to fewer entries of
// the timeline, no chaos, fewer hosts, fewer replicas and fewer services, as
// long as the run still breaks the same promise.
func Minimize(ctx context.Context, sc *Scenario, seeds []int64, o MinimizeOptions) (*Minimized, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Runs == 0 {
		o.Runs = 200
	}
	m := &minimizer{ctx: ctx, o: o, file: sc.File}
	out, err := RunScenario(ctx, sc, seeds, RunOptions{Workers: o.Workers})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(out.Runs, func(s SeedRun) bool { return s.Failed() })
	if i < 0 {
		return nil, fmt.Errorf("%s breaks no promise in %s: there is nothing to minimize", sc.Name, plural(len(seeds), "seed"))
	}
	m.runs = len(out.Runs)
	best := out.Runs[i]
	for _, s := range out.Runs[i:] { // the run that fails first is the easiest to read
		if s.Failed() && failedAt(&s) < failedAt(&best) {
			best = s
		}
	}
	m.seed, m.check = best.Seed, checkOf(&best)
	o.Log("seed %d breaks %s", m.seed, m.check)
	var doc yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(sc.Text, &doc, yaml.UseOrderedMap()); err != nil {
		return nil, fmt.Errorf("reading %s again: %w", sc.File, err)
	}
	doc = with(doc, "seeds", []int64{m.seed})
	doc = m.shrink(doc)
	text, err := render(doc)
	if err != nil {
		return nil, err
	}
	return &Minimized{Text: text, Check: m.check, Seed: m.seed, Runs: m.runs}, nil
}

func checkOf(s *SeedRun) string {
	if s.Verdict != nil && len(s.Verdict.Violations) > 0 {
		name, _, _ := strings.Cut(s.Verdict.Violations[0].Check, " ")
		return name
	}
	if s.Crash != "" {
		return "crash"
	}
	return "determinism"
}

// failedAt is the first event of the first violation: a measure of how much one
// has to read.
func failedAt(s *SeedRun) int {
	if s.Verdict == nil || len(s.Verdict.Violations) == 0 || len(s.Verdict.Violations[0].Events) == 0 {
		return 1 << 30
	}
	return s.Verdict.Violations[0].Events[len(s.Verdict.Violations[0].Events)-1]
}

type minimizer struct {
	ctx   context.Context
	o     MinimizeOptions
	file  string
	seed  int64
	check string
	runs  int
}

// breaks reports whether doc still breaks the same promise with the seed.
func (m *minimizer) breaks(doc yaml.MapSlice) bool {
	if m.runs >= m.o.Runs || m.ctx.Err() != nil {
		return false
	}
	text, err := render(doc)
	if err != nil {
		return false
	}
	sc, _, err := Parse(m.file, text)
	if err != nil {
		return false // shrunk too far: it says nothing any more
	}
	m.runs++
	out, err := RunScenario(m.ctx, sc, []int64{m.seed}, RunOptions{Workers: m.o.Workers})
	if err != nil || len(out.Runs) != 1 {
		return false
	}
	s := &out.Runs[0]
	if s.Verdict == nil {
		return s.Crash != "" && m.check == "crash"
	}
	return slices.ContainsFunc(s.Verdict.Violations, func(v Violation) bool {
		name, _, _ := strings.Cut(v.Check, " ")
		return name == m.check
	})
}

func (m *minimizer) shrink(doc yaml.MapSlice) yaml.MapSlice {
	for _, key := range []string{"chaos", "models", "tags", "allow"} {
		if get(doc, key) != nil {
			doc = m.try(doc, without(doc, key), "without "+key)
		}
	}
	doc = m.shrinkList(doc, "timeline")
	doc = m.shrinkExpectations(doc)
	doc = m.shrinkHosts(doc)
	return m.shrinkList(doc, "timeline")
}

func (m *minimizer) try(doc, smaller yaml.MapSlice, what string) yaml.MapSlice {
	if m.breaks(smaller) {
		m.o.Log("%s: still broken", what)
		return smaller
	}
	return doc
}

// shrinkList drops ever smaller chunks of a list, as delta debugging does.
func (m *minimizer) shrinkList(doc yaml.MapSlice, key string) yaml.MapSlice {
	items, _ := get(doc, key).([]any)
	for chunk := max(1, len(items)/2); chunk >= 1 && len(items) > 1; chunk /= 2 {
		for i := 0; i+chunk <= len(items) && len(items) > chunk; {
			fewer := slices.Concat(items[:i], items[i+chunk:])
			if next := with(doc, key, fewer); m.breaks(next) {
				doc, items = next, fewer
				m.o.Log("%s: %d entries left", key, len(items))
			} else {
				i += chunk
			}
		}
	}
	return doc
}

func (m *minimizer) shrinkExpectations(doc yaml.MapSlice) yaml.MapSlice {
	expect, ok := get(doc, "expect").(yaml.MapSlice)
	if !ok {
		return doc
	}
	for _, key := range []string{"sometimes", "thresholds", "finally", "always"} {
		if get(expect, key) != nil {
			if next := with(doc, "expect", without(expect, key)); m.breaks(next) {
				doc, expect = next, without(expect, key)
			}
		}
	}
	return doc
}

// shrinkHosts halves the number of hosts of each generator, then goes down one
// by one; the same for replicas; then it drops services and hosts.
func (m *minimizer) shrinkHosts(doc yaml.MapSlice) yaml.MapSlice {
	fl, ok := get(doc, "fleet").(yaml.MapSlice)
	if !ok {
		return doc
	}
	gens, _ := get(fl, "generate").([]any)
	for i := range gens {
		doc = m.shrinkNumber(doc, i, "hosts")
	}
	doc = m.dropGenerators(doc)
	for i := range generators(doc) {
		g, _ := generators(doc)[i].(yaml.MapSlice)
		services, _ := get(g, "services").(yaml.MapSlice)
		for _, s := range services {
			name := fmt.Sprint(s.Key)
			if next := editGenerator(doc, i, func(g yaml.MapSlice) yaml.MapSlice {
				sv, _ := get(g, "services").(yaml.MapSlice)
				return with(g, "services", without(sv, name))
			}); len(services) > 1 && m.breaks(next) {
				doc = next
				m.o.Log("without service %s: still broken", name)
				continue
			}
			doc = m.shrinkReplicas(doc, i, name)
		}
	}
	return doc
}

func (m *minimizer) dropGenerators(doc yaml.MapSlice) yaml.MapSlice {
	for i := 0; i < len(generators(doc)) && len(generators(doc)) > 1; {
		fl, _ := get(doc, "fleet").(yaml.MapSlice)
		rest := slices.Concat(generators(doc)[:i], generators(doc)[i+1:])
		if next := with(doc, "fleet", with(fl, "generate", rest)); m.breaks(next) {
			doc = next
		} else {
			i++
		}
	}
	return doc
}

func (m *minimizer) shrinkNumber(doc yaml.MapSlice, gen int, key string) yaml.MapSlice {
	for {
		g, _ := generators(doc)[gen].(yaml.MapSlice)
		n := number(get(g, key))
		if n <= 1 {
			return doc
		}
		shrunk := false
		for _, smaller := range []int{1, n / 2, n - 1} {
			next := editGenerator(doc, gen, func(g yaml.MapSlice) yaml.MapSlice { return with(g, key, smaller) })
			if smaller < n && m.breaks(next) {
				doc, shrunk = next, true
				m.o.Log("%s: %d instead of %d", key, smaller, n)
				break
			}
		}
		if !shrunk {
			return doc
		}
	}
}

func (m *minimizer) shrinkReplicas(doc yaml.MapSlice, gen int, service string) yaml.MapSlice {
	return m.try(doc, editGenerator(doc, gen, func(g yaml.MapSlice) yaml.MapSlice {
		sv, _ := get(g, "services").(yaml.MapSlice)
		s, ok := get(sv, service).(yaml.MapSlice)
		if !ok || number(get(s, "replicas")) < 2 {
			return g
		}
		return with(g, "services", with(sv, service, without(s, "replicas")))
	}), "one replica of "+service)
}

func generators(doc yaml.MapSlice) []any {
	fl, _ := get(doc, "fleet").(yaml.MapSlice)
	gens, _ := get(fl, "generate").([]any)
	return gens
}

func editGenerator(doc yaml.MapSlice, i int, edit func(yaml.MapSlice) yaml.MapSlice) yaml.MapSlice {
	fl, _ := get(doc, "fleet").(yaml.MapSlice)
	gens := slices.Clone(generators(doc))
	g, _ := gens[i].(yaml.MapSlice)
	gens[i] = edit(g)
	return with(doc, "fleet", with(fl, "generate", gens))
}

func number(v any) int {
	switch n := v.(type) {
	case uint64:
		return int(n)
	case int64:
		return int(n)
	case int:
		return n
	}
	return 0
}

func get(m yaml.MapSlice, key string) any {
	for _, item := range m {
		if item.Key == key {
			return item.Value
		}
	}
	return nil
}

func with(m yaml.MapSlice, key string, value any) yaml.MapSlice {
	out := slices.Clone(m)
	for i := range out {
		if out[i].Key == key {
			out[i].Value = value
			return out
		}
	}
	return append(out, yaml.MapItem{Key: key, Value: value})
}

func without(m yaml.MapSlice, key string) yaml.MapSlice {
	return slices.DeleteFunc(slices.Clone(m), func(i yaml.MapItem) bool { return i.Key == key })
}

func render(doc yaml.MapSlice) ([]byte, error) {
	text, err := yaml.MarshalWithOptions(doc, yaml.Indent(2))
	if err != nil {
		return nil, fmt.Errorf("writing the smaller scenario: %w", err)
	}
	return text, nil
}
