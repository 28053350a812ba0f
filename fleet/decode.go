package fleet

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file: none that a person writes comes near them.
const (
	maxFileBytes = 1 << 20
	maxFileNodes = 100_000 // after aliases are followed: 10 lines can ask for 10⁹
	maxFileDepth = 40
)

// decoder fills a struct from one YAML file and goes on after every error, so
// that all of a file's mistakes are reported at once (goccy/go-yaml's own
// strict mode stops at the first). It decodes on top of what is there: a scalar
// is replaced, a mapping is merged key by key, a list is replaced as a whole.
type decoder struct {
	file     string
	lines    []string
	anchors  map[string]ast.Node
	nodes    int
	problems []*Diagnostic
	bad      []string         // dotted keys whose values could not be taken as they are given
	set      map[string]place // dotted key → where it is given
	leaves   []string         // every dotted key there is, for hints
}

// decodeYAML decodes src on top of v, a pointer to a struct. begin sees the
// names of the top-level keys before anything is decoded.
func decodeYAML(file string, src []byte, v any, leaves []string, begin func(keys []string)) *decoder {
	d := &decoder{
		file: file, lines: strings.Split(string(src), "\n"),
		anchors: map[string]ast.Node{}, set: map[string]place{}, leaves: leaves,
	}
	root := d.parse(src)
	if root == nil {
		if len(d.problems) > 0 {
			d.spoil("")
		}
		return d
	}
	pairs, ok := mappingPairs(root)
	if !ok {
		d.reject(root, "", "", "want keys and values, such as \"fleet: sg\", not %s", describe(root))
		return d
	}
	var keys []string
	for _, p := range pairs {
		keys = append(keys, keyText(p))
	}
	begin(keys)
	d.structure(root, reflect.ValueOf(v).Elem(), "", 0)
	return d
}

// parse returns the root of the file's one document; nil when there is none or
// it is no YAML.
func (d *decoder) parse(src []byte) (root ast.Node) {
	fail := func(line, column int, format string, args ...any) {
		d.problems = append(d.problems, place{d.file, line, column, 1, d.line(line)}.diagnostic("", fmt.Sprintf(format, args...)))
	}
	// The parser is not ours: what makes it panic is bad input, too.
	defer func() {
		if r := recover(); r != nil {
			root = nil
			fail(0, 0, "not YAML: %v", r)
		}
	}()
	if len(src) > maxFileBytes {
		fail(0, 0, "%d bytes, at most %d are read", len(src), maxFileBytes)
		return nil
	}
	if !utf8.Valid(src) {
		fail(0, 0, "not valid UTF-8")
		return nil
	}
	f, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &at) && at.GetToken() != nil {
		p := at.GetToken().Position
		fail(p.Line, p.Column, "%s", at.GetMessage())
		return nil
	}
	if err != nil {
		fail(0, 0, "not YAML: %v", err)
		return nil
	}
	for i, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			d.errorf(f.Docs[i].Body, "", "a second document; one file holds one")
			break
		}
		root = doc.Body
		ast.Walk(anchorVisitor{d}, root)
	}
	if _, comment := root.(*ast.CommentGroupNode); comment {
		return nil
	}
	return root
}

type anchorVisitor struct{ d *decoder }

func (v anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		v.d.anchors[a.Name.String()] = a.Value
	}
	return v
}

// resolve follows anchors and aliases to the node that holds the value, and
// reports what is not supported.
func (d *decoder) resolve(n ast.Node, depth int) (ast.Node, bool) {
	for ; ; depth++ {
		if d.nodes++; d.nodes > maxFileNodes || depth > maxFileDepth {
			if d.nodes < 2*maxFileNodes {
				d.errorf(n, "", "nested too deeply, or too large once aliases are followed")
				d.nodes = 2 * maxFileNodes // said once
			}
			return nil, false
		}
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.AliasNode:
			target, ok := d.anchors[x.Value.String()]
			if !ok {
				d.errorf(n, "", "no anchor is called &%s", x.Value)
				return nil, false
			}
			n = target
		case *ast.TagNode:
			d.errorf(n, "", "tags such as %s are not supported", x.Start.Value)
			return nil, false
		case nil:
			return nil, false
		default:
			return n, true
		}
	}
}

// value decodes n into v. path is its dotted key.
func (d *decoder) value(n ast.Node, v reflect.Value, path string, depth int) {
	n, ok := d.resolve(n, depth)
	if !ok {
		d.spoil(path)
		return
	}
	if _, null := n.(*ast.NullNode); null {
		d.reject(n, path, "give it one, or remove the line", "%s has no value", path)
		return
	}
	if _, text := v.Addr().Interface().(encoding.TextUnmarshaler); text || isScalar(v.Kind()) {
		d.scalar(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path, depth+1)
	case reflect.Map:
		d.mapping(n, v, path, depth+1)
	case reflect.Slice:
		d.list(n, v, path, depth+1)
	default:
		panic("fleet: no YAML form for " + v.Type().String())
	}
}

func isScalar(k reflect.Kind) bool {
	return k == reflect.String || k == reflect.Bool || k == reflect.Int
}

// structure decodes a mapping with fixed keys.
func (d *decoder) structure(n ast.Node, v reflect.Value, path string, depth int) {
	fields := map[string]reflect.Value{}
	var names, meant []string
	for i := range v.NumField() {
		name := fieldName(v.Type().Field(i))
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	d.eachPair(n, path, depth, strings.Join(names, ", "), func(key string, p *ast.MappingValueNode) {
		f, ok := fields[key]
		if !ok {
			hint, near := d.suggest(path, key, names)
			meant = append(meant, near)
			d.errorf(p.Key, hint, "unknown key %q%s", key, inPath(path))
			return
		}
		d.value(p.Value, f, joinPath(path, key), depth)
	})
	for _, m := range meant {
		if _, given := d.set[m]; m != "" && !given { // else that one is known after all
			d.spoil(m)
		}
	}
}

// suggest finds what an unknown key may have meant: a neighbour, or a key of
// that very name elsewhere. meant is that one's dotted key.
func (d *decoder) suggest(path, key string, names []string) (hint, meant string) {
	if n := Nearest(key, names); n != "" {
		return "did you mean " + n + "?", joinPath(path, n)
	}
	for _, leaf := range d.leaves {
		if strings.HasSuffix(leaf, "."+key) || leaf == key && path != "" {
			return "did you mean " + leaf + "?", leaf
		}
	}
	return DidYouMean(key, names), ""
}

// mapping decodes a mapping with free keys, each on top of the entry there is.
func (d *decoder) mapping(n ast.Node, v reflect.Value, path string, depth int) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.eachPair(n, path, depth, "names", func(key string, p *ast.MappingValueNode) {
		entry := reflect.New(v.Type().Elem()).Elem()
		if old := v.MapIndex(reflect.ValueOf(key)); old.IsValid() {
			entry.Set(old)
		}
		d.value(p.Value, entry, joinPath(path, key), depth)
		v.SetMapIndex(reflect.ValueOf(key), entry)
	})
}

// eachPair walks a mapping and reports keys that are given twice or no keys.
func (d *decoder) eachPair(n ast.Node, path string, depth int, want string, f func(key string, p *ast.MappingValueNode)) {
	n, ok := d.resolve(n, depth)
	if !ok {
		d.spoil(path)
		return
	}
	pairs, ok := mappingPairs(n)
	if !ok {
		d.reject(n, path, "", "%s: want a mapping with %s, not %s", path, want, describe(n))
		return
	}
	first := map[string]int{}
	for _, p := range pairs {
		if p.Key.IsMergeKey() {
			d.reject(p.Key, path, "", "merge keys (<<) are not supported; write the keys out")
			continue
		}
		key := keyText(p)
		at := joinPath(path, key)
		if line, again := first[key]; again {
			d.reject(p.Key, at, fmt.Sprintf("first on line %d", line), "%s is given twice", at)
			continue
		}
		first[key] = p.Key.GetToken().Position.Line
		d.note(p.Key, at)
		f(key, p)
	}
}

// list decodes a list, replacing what is there.
func (d *decoder) list(n ast.Node, v reflect.Value, path string, depth int) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		hint := ""
		if text, scalar := scalarText(n); scalar {
			hint = "write [" + text + "]"
		}
		d.reject(n, path, hint, "%s: want a list, not %s", path, describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.note(item, at)
		d.value(item, out.Index(i), at, depth)
	}
	v.Set(out)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	text, ok := scalarText(n)
	if !ok {
		d.spoil(path)
		at := d.place(n)
		if path == "redis.password" {
			at.source = "" // it may stand on a line of its own
		}
		d.problems = append(d.problems, at.diagnostic("", fmt.Sprintf("%s: want %s, not %s", path, wanted(v), describe(n))))
		return
	}
	if _, isBool := n.(*ast.BoolNode); isBool && v.Kind() == reflect.String {
		d.reject(n, path, "put it in quotes if that is the text", "%s: want text, not %s", path, text)
		return
	}
	if err := setText(v, text); err != nil {
		d.reject(n, path, "", "%s: %v", path, err)
		return
	}
	d.note(n, path)
}

// setText sets v from text as it stands in a file, a variable or a flag.
func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("want true or false, not %q", text)
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("want a whole number, not %q", text)
		}
		v.SetInt(n)
	case reflect.Slice: // of strings, from a variable or a flag
		var list []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		v.Set(reflect.ValueOf(list))
	}
	return nil
}

func wanted(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration, Seconds:
		return "a duration such as 30s"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "text"
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// joinPath appends a key to a dotted key. What would not read as one element,
// such as a checkout's path, goes in brackets.
func joinPath(path, key string) string {
	simple := key != "" && !slices.ContainsFunc([]byte(key), func(c byte) bool {
		return c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	switch {
	case !simple:
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

func inPath(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}
