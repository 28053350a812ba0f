package sim

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/sgfleet/sgfleet/fleet"
)

// Load reads and checks one scenario file. The error is a [*FileError] that
// holds everything wrong with it at once; warnings come back with a scenario
// that may run.
func Load(file string) (*Scenario, []Diagnostic, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("reading a scenario: %w", err)
	}
	return Parse(file, text)
}

// Parse checks text as the scenario file of that name; see [Load]. A relative
// fleet.twin is looked up beside the file.
func Parse(file string, text []byte) (*Scenario, []Diagnostic, error) {
	d := &decoder{file: file, nodes: map[string]ast.Node{}}
	fail := func() (*Scenario, []Diagnostic, error) {
		return nil, nil, &FileError{File: file, Text: text, Problems: d.problems}
	}
	doc, err := parser.ParseBytes(text, 0)
	if err != nil {
		d.problems = append(d.problems, syntaxProblem(err))
		return fail()
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		d.errorf(nil, "", "want exactly one YAML document, found %d", len(doc.Docs))
		return fail()
	}
	root := doc.Docs[0].Body
	sc := &Scenario{
		File: file, Text: text,
		Until: fleet.Duration(5 * time.Minute), Settle: fleet.Duration(30 * time.Second),
		Seeds: Seeds{List: []int64{1}}, Models: DefaultModels(), Config: fleet.Default(),
	}
	entries, ok := pairs(root)
	if !ok {
		d.errorf(root, "", "want a mapping that begins with sgsim: 1, not %s", what(root))
		return fail()
	}
	d.firstKey(entries)
	d.structure(root, reflect.ValueOf(sc).Elem(), "")
	c := &checker{decoder: d, sc: sc, root: root}
	c.check()
	if slices.ContainsFunc(d.problems, func(p Diagnostic) bool { return !p.Warning }) {
		return fail()
	}
	return sc, d.problems, nil
}

func syntaxProblem(err error) Diagnostic {
	p := Diagnostic{Line: 1, Col: 1, Width: 1, Message: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) {
		p.Message = y.GetMessage()
		if tk := y.GetToken(); tk != nil {
			p.Line, p.Col, p.Width = tk.Position.Line, tk.Position.Column, max(1, len(strings.TrimSpace(tk.Value)))
		}
	}
	return p
}

func (d *decoder) firstKey(entries []*ast.MappingValueNode) {
	switch {
	case len(entries) == 0 || keyText(entries[0]) != "sgsim":
		d.errorf(first(entries), "sgsim: 1", "a scenario begins with the version of its format")
	case scalarText(entries[0].Value) != "1":
		d.errorf(entries[0].Value, "want 1", "format version %s is not known to this sgsim", what(entries[0].Value))
	}
}

func first(entries []*ast.MappingValueNode) ast.Node {
	if len(entries) == 0 {
		return nil
	}
	return entries[0].Key
}

// nearestOrList is the hint of an unknown name: the nearest, else the command
// that lists them all.
func nearestOrList(word string, known []string, list string) string {
	return cmp.Or(fleet.DidYouMean(word, known), "sgsim list "+list+" shows them all")
}

var scenarioName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func (s *Entry) decodeNode(d *decoder, n ast.Node, path string) {
	entries, ok := pairs(n)
	if !ok {
		d.errorf(n, "", "%s: want {at: TIME, ACTION: …}, not %s", path, what(n))
		return
	}
	line := diagnosticAt(n, "", "")
	s.path, s.Line, s.Step.Where = path, line.Line, fmt.Sprintf("%s:%d:%d", d.file, line.Line, line.Col)
	when := map[string]*time.Duration{"at": &s.Step.At, "after": &s.Step.After, "every": &s.Step.Every}
	known, given := []string{"at", "after", "every"}, 0
	for _, a := range Actions() {
		known = append(known, a.Name)
	}
	action := ""
	for _, e := range entries {
		key := keyText(e)
		if slot := when[key]; slot != nil {
			given++
			d.nodes[joinPath(path, key)] = unwrap(e.Value)
			*slot, _ = d.duration(unwrap(e.Value), joinPath(path, key), false)
			if key == "every" && *slot == 0 && scalarText(e.Value) == "0s" {
				d.errorf(e.Value, "", "%s.every: want more than 0", path)
			}
			continue
		}
		info, ok := LookupAction(key)
		switch {
		case !ok:
			d.errorf(e.Key, nearestOrList(key, known, "actions"), "unknown action %q in %s", key, path)
		case s.Step.Action != nil:
			d.errorf(e.Key, "give it an entry of its own", "%s has two actions, %s and %s", path, action, key)
		default:
			s.Step.Name, s.Step.Action = key, info.New()
			d.decode(e.Value, reflect.ValueOf(s.Step.Action).Elem(), joinPath(path, key))
			d.nodes[path+"#action"] = e.Key
		}
		action = key
	}
	if action == "" {
		d.errorf(n, "", "%s has no action", path)
	}
	switch {
	case given == 0:
		d.errorf(n, "at: 10s", "%s does not say when: at, after or every", path)
	case given > 1:
		d.errorf(n, "", "%s: want one of at, after and every", path)
	}
}

func (x *Expectation) decodeNode(d *decoder, n ast.Node, path string) {
	name, args := "", ast.Node(nil)
	at := n
	if entries, ok := pairs(n); ok {
		if len(entries) != 1 {
			d.errorf(n, "", "%s: want one expectation per entry, this one has %d", path, len(entries))
			return
		}
		name, args, at = keyText(entries[0]), unwrap(entries[0].Value), entries[0].Key
	} else if name = scalarText(n); name == "" {
		d.errorf(n, "", "%s: want the name of an expectation, not %s", path, what(n))
		return
	}
	x.Line = diagnosticAt(at, "", "").Line
	d.nodes[path] = at
	if inv, ok := invariants[name]; ok {
		x.Name = inv.Name
		if args != nil && scalarText(args) != "true" {
			d.invariantArgs(x, args, joinPath(path, name))
		}
		return
	}
	spec, ok := expectations[name]
	if !ok {
		known := append(expectationNames(), invariantNames()...)
		d.errorf(at, nearestOrList(name, known, "expectations"), "unknown expectation %q in %s", name, path)
		return
	}
	when := "finally"
	if strings.Contains(path, ".always[") {
		when = "always"
	}
	if when == "always" && !spec.Always || when == "finally" && !spec.Finally {
		d.errorf(at, "", "%s: %s may not stand under %s, only under %s", path, name, when, otherOf(when))
	}
	x.Name, x.Args = name, spec.New()
	if args == nil {
		args = ast.Null(at.GetToken())
	}
	d.decode(args, reflect.ValueOf(x.Args).Elem(), joinPath(path, name))
}

func otherOf(when string) string {
	if when == "always" {
		return "finally"
	}
	return "always"
}

// opArgs narrows an invariant that is named in a file to one op.
type opArgs struct {
	Op OpRef `yaml:"op" json:"op"`
}

func (d *decoder) invariantArgs(x *Expectation, n ast.Node, path string) {
	a := &opArgs{}
	d.decode(n, reflect.ValueOf(a).Elem(), path)
	x.Args = a
}
