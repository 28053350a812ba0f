package sim

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/sgfleet/sgfleet/fleet"
)

// decoder fills structs from a YAML tree and goes on after every error, so that
// a file's mistakes are all reported at once (goccy/go-yaml's own strict mode
// stops at the first). Field options beside the name in a yaml tag:
//
//	inline  the fields of an embedded struct stand in the outer mapping
//	scalar  a plain value instead of a mapping sets this field
//
// and in a jsonschema tag: required, enum=….
type decoder struct {
	file     string
	problems []Diagnostic
	refs     []ref
	nodes    map[string]ast.Node // path → value, for what is checked later
}

// ref is a value of one of the reference types, to be checked once the whole
// file has been read.
type ref struct {
	value reflect.Value
	node  ast.Node
	path  string
}

// nodeDecoder is implemented by types with a notation of their own.
type nodeDecoder interface {
	decodeNode(d *decoder, n ast.Node, path string)
}

func (d *decoder) errorf(n ast.Node, hint, format string, args ...any) {
	d.problems = append(d.problems, diagnosticAt(n, hint, fmt.Sprintf(format, args...)))
}

func (d *decoder) warnf(n ast.Node, hint, format string, args ...any) {
	p := diagnosticAt(n, hint, fmt.Sprintf(format, args...))
	p.Warning = true
	d.problems = append(d.problems, p)
}

func diagnosticAt(n ast.Node, hint, message string) Diagnostic {
	p := Diagnostic{Line: 1, Col: 1, Width: 1, Message: message, Hint: hint}
	if n == nil || n.GetToken() == nil {
		return p
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // a block mapping's own token is its first colon
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	tk := n.GetToken()
	p.Line, p.Col = tk.Position.Line, tk.Position.Column
	p.Width = max(1, len(strings.TrimSpace(strings.Split(tk.Value, "\n")[0])))
	if o := strings.TrimSpace(tk.Origin); strings.HasPrefix(o, `"`) || strings.HasPrefix(o, "'") {
		p.Width += 2
	}
	return p
}

var (
	durationType = reflect.TypeFor[fleet.Duration]()
	secondsType  = reflect.TypeFor[fleet.Seconds]()
	refTypes     = []reflect.Type{
		reflect.TypeFor[OpRef](), reflect.TypeFor[HostRef](), reflect.TypeFor[ServiceRef](), reflect.TypeFor[TierRef](),
	}
)

// decode fills v, which is settable, from n. path names n for messages.
func (d *decoder) decode(n ast.Node, v reflect.Value, path string) {
	n = unwrap(n)
	d.nodes[path] = n
	if v.Kind() == reflect.Pointer {
		if _, null := n.(*ast.NullNode); null {
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if nd, ok := v.Interface().(nodeDecoder); ok {
			nd.decodeNode(d, n, path)
			return
		}
		v = v.Elem()
	}
	if slices.Contains(refTypes, v.Type()) {
		d.refs = append(d.refs, ref{v, n, path})
	}
	if v.CanAddr() {
		if nd, ok := v.Addr().Interface().(nodeDecoder); ok {
			nd.decodeNode(d, n, path)
			return
		}
	}
	if v.CanAddr() && v.Type() != durationType && v.Type() != secondsType {
		if tu, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			if err := tu.UnmarshalText([]byte(scalarText(n))); err != nil {
				d.errorf(n, "", "%s: %v", path, err)
			}
			return
		}
	}
	if v.Type() == durationType || v.Type() == secondsType {
		if dur, ok := d.duration(n, path, v.Type() == secondsType); ok {
			v.SetInt(int64(dur))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	case reflect.String:
		if s, ok := d.text(n, path); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
		} else {
			d.errorf(n, "", "%s: want true or false, not %s", path, what(n))
		}
	case reflect.Int, reflect.Int64:
		if i, ok := d.integer(n, path); ok {
			v.SetInt(i)
		}
	case reflect.Float64:
		if f, err := strconv.ParseFloat(scalarText(n), 64); err == nil {
			v.SetFloat(f)
		} else {
			d.errorf(n, "", "%s: want a number, not %s", path, what(n))
		}
	default:
		panic("sim: no notation for " + v.Type().String() + " at " + path)
	}
}

// unwrap follows anchors and tags to the node that carries the value.
func unwrap(n ast.Node) ast.Node {
	for {
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.TagNode:
			n = x.Value
		default:
			return n
		}
	}
}

// pairs returns the entries of a mapping in the file's order. A mapping with
// one entry may come as that entry alone.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch x := unwrap(n).(type) {
	case *ast.MappingNode:
		return x.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{x}, true
	}
	return nil, false
}

type field struct {
	name     string
	value    reflect.Value
	scalar   bool
	required bool
	enum     []string
}

func fields(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, opts, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if name == "-" || !sf.IsExported() {
			continue
		}
		if strings.Contains(opts, "inline") {
			out = append(out, fields(v.Field(i))...)
			continue
		}
		if name == "" {
			name = strings.ToLower(sf.Name)
		}
		f := field{name: name, value: v.Field(i), scalar: strings.Contains(opts, "scalar")}
		for o := range strings.SplitSeq(sf.Tag.Get("jsonschema"), ",") {
			if o == "required" {
				f.required = true
			} else if e, ok := strings.CutPrefix(o, "enum="); ok {
				f.enum = append(f.enum, e)
			}
		}
		out = append(out, f)
	}
	return out
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path string) {
	fs := fields(v)
	entries, ok := pairs(n)
	if !ok {
		d.scalarForm(n, fs, path)
		return
	}
	given := map[string]bool{}
	for _, e := range entries {
		key := keyText(e)
		i := slices.IndexFunc(fs, func(f field) bool { return f.name == key })
		if i < 0 {
			var names []string
			for _, f := range fs {
				names = append(names, f.name)
			}
			d.errorf(e.Key, fleet.DidYouMean(key, names), "unknown key %q in %s", key, orFile(path))
			continue
		}
		if given[key] {
			d.errorf(e.Key, "", "%s is given twice in %s", key, orFile(path))
			continue
		}
		given[key] = true
		d.decode(e.Value, fs[i].value, joinPath(path, key))
		d.enum(e.Value, fs[i], joinPath(path, key))
	}
	for _, f := range fs {
		if f.required && !given[f.name] {
			d.errorf(n, "", "%s lacks %s", orFile(path), f.name)
		}
	}
}

// scalarForm is a plain value where a mapping could stand: pull_overlap: 0.
func (d *decoder) scalarForm(n ast.Node, fs []field, path string) {
	if _, null := n.(*ast.NullNode); null {
		for _, f := range fs {
			if f.required {
				d.errorf(n, "", "%s lacks %s", orFile(path), f.name)
			}
		}
		return
	}
	for _, f := range fs {
		if f.scalar {
			d.decode(n, f.value, path)
			d.enum(n, f, path)
			return
		}
	}
	var names []string
	for _, f := range fs {
		names = append(names, f.name)
	}
	d.errorf(n, "", "%s: want a mapping with %s, not %s", orFile(path), strings.Join(names, ", "), what(n))
}

func (d *decoder) enum(n ast.Node, f field, path string) {
	if len(f.enum) == 0 || f.value.Kind() != reflect.String {
		return
	}
	if s := f.value.String(); s != "" && !slices.Contains(f.enum, s) {
		d.errorf(unwrap(n), fleet.DidYouMean(s, f.enum), "%s: %q is none of %s", path, s, strings.Join(f.enum, ", "))
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	entries, ok := pairs(n)
	if !ok {
		if _, null := n.(*ast.NullNode); !null {
			d.errorf(n, "", "%s: want a mapping, not %s", path, what(n))
		}
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, e := range entries {
		key := keyText(e)
		ev := reflect.New(v.Type().Elem()).Elem()
		d.decode(e.Value, ev, joinPath(path, key))
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), ev)
	}
}

func (d *decoder) sequence(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, null := n.(*ast.NullNode); !null {
			d.errorf(n, "", "%s: want a list, not %s", path, what(n))
		}
		return
	}
	// The backing array must not move: references point into it.
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		d.decode(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(out)
}

func (d *decoder) text(n ast.Node, path string) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		return "", true
	}
	d.errorf(n, "", "%s: want a text, not %s", path, what(n))
	return "", false
}

func (d *decoder) integer(n ast.Node, path string) (int64, bool) {
	s := strings.ReplaceAll(scalarText(n), "_", "")
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		d.errorf(n, "", "%s: want a whole number, not %s", path, what(n))
	}
	return i, err == nil
}

// duration reads a time with its unit. The original system's own keys may be
// bare seconds.
func (d *decoder) duration(n ast.Node, path string, bare bool) (time.Duration, bool) {
	s := scalarText(n)
	signed := strings.HasSuffix(path, ".by") || strings.HasSuffix(path, ".clock_skew") // a clock may be behind
	if dur, err := time.ParseDuration(s); err == nil && (dur >= 0 || signed) && s != "" {
		if _, isNumber := n.(*ast.IntegerNode); !isNumber || dur == 0 {
			return dur, true
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if bare {
			return time.Duration(f * float64(time.Second)), true
		}
		d.errorf(n, fmt.Sprintf("did you mean %ss?", s), "%s: a time needs a unit (ms, s, m, h)", path)
		return 0, false
	}
	d.errorf(n, "", "%s: want a time such as 30s or 2m, not %s", path, what(n))
	return 0, false
}

// scalarText is a scalar's text as written, "" for anything else.
func scalarText(n ast.Node) string {
	switch x := unwrap(n).(type) {
	case *ast.StringNode:
		return x.Value
	case *ast.LiteralNode:
		return x.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return n.GetToken().Value
	}
	return ""
}

func keyText(e *ast.MappingValueNode) string {
	if s, ok := e.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return strings.TrimSpace(e.Key.GetToken().Value)
}

// what names a node's value in a message.
func what(n ast.Node) string {
	switch x := unwrap(n).(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	default:
		return strconv.Quote(scalarText(x))
	}
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func orFile(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func (s *Seeds) decodeNode(d *decoder, n ast.Node, path string) {
	s.List = nil
	if seq, ok := n.(*ast.SequenceNode); ok {
		for i, item := range seq.Values {
			if v, ok := d.integer(item, fmt.Sprintf("%s[%d]", path, i)); ok {
				s.List = append(s.List, v)
			}
		}
		return
	}
	r := struct {
		From        int64 `yaml:"from"`
		Count       int   `yaml:"count"`
		StopOnFirst bool  `yaml:"stop_on_first"`
	}{From: 1, Count: 1}
	before := len(d.problems)
	d.structure(n, reflect.ValueOf(&r).Elem(), path)
	if len(d.problems) > before {
		return
	}
	if r.Count < 1 || r.Count > 1_000_000 {
		d.errorf(n, "", "%s.count: %d is not between 1 and 1000000", path, r.Count)
		return
	}
	s.StopOnFirst = r.StopOnFirst
	for i := range r.Count {
		s.List = append(s.List, r.From+int64(i))
	}
}
