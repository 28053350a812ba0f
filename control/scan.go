package control

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// field is one key of a JSON object with its value as written.
type field struct {
	key string
	raw []byte
}

// scanObject checks that payload is exactly one JSON object of at most limit
// bytes, valid UTF-8, nested at most MaxOpDepth deep, with no key twice in any
// one object, and returns its top-level fields in order.
//
// Why not simply json.Unmarshal: it matches field names in any letter case and
// lets the last one win, so that {"op":"pull","OP":"restart"} is a restart,
// even with DisallowUnknownFields; and it replaces bad UTF-8 silently.
func scanObject(payload []byte, limit int) ([]field, *Reject) {
	if len(payload) > limit {
		return nil, &Reject{RejectTooLarge, strconv.Itoa(len(payload)) + " bytes, the limit is " + strconv.Itoa(limit)}
	}
	if !utf8.Valid(payload) {
		return nil, &Reject{RejectUTF8, "not valid UTF-8"}
	}
	if !json.Valid(payload) {
		return nil, &Reject{RejectMalformed, "not exactly one JSON document"}
	}
	s := scanner{b: payload}
	s.space()
	if s.b[s.i] != '{' {
		return nil, &Reject{RejectMalformed, "not a JSON object"}
	}
	fields := make([]field, 0, 12)
	if r := s.object(1, &fields); r != nil {
		return nil, r
	}
	return fields, nil
}

// scanner walks a document that json.Valid has approved, which is why it need
// not look for the end of its input.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// value walks one value that lies depth levels deep.
func (s *scanner) value(depth int) *Reject {
	switch s.b[s.i] {
	case '{':
		return s.object(depth+1, nil)
	case '[':
		return s.array(depth + 1)
	case '"':
		s.str()
	default: // number, true, false, null
		for s.i < len(s.b) && !endsScalar(s.b[s.i]) {
			s.i++
		}
	}
	return nil
}

func endsScalar(c byte) bool {
	return c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\t' || c == '\r'
}

// str walks a string and returns it with its quotes.
func (s *scanner) str() []byte {
	start := s.i
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
	return s.b[start:s.i]
}

func (s *scanner) array(depth int) *Reject {
	if depth > MaxOpDepth {
		return &Reject{RejectDepth, "nested deeper than " + strconv.Itoa(MaxOpDepth)}
	}
	s.i++
	for s.space(); s.b[s.i] != ']'; s.space() {
		if s.b[s.i] == ',' {
			s.i++
			s.space()
		}
		if r := s.value(depth); r != nil {
			return r
		}
	}
	s.i++
	return nil
}

func (s *scanner) object(depth int, fields *[]field) *Reject {
	if depth > MaxOpDepth {
		return &Reject{RejectDepth, "nested deeper than " + strconv.Itoa(MaxOpDepth)}
	}
	var seen keySet
	s.i++
	for s.space(); s.b[s.i] != '}'; s.space() {
		if s.b[s.i] == ',' {
			s.i++
			s.space()
		}
		key := keyName(s.str())
		if !seen.add(foldKey(key)) {
			return &Reject{RejectDuplicateKey, "key " + strconv.Quote(clip(key, 40)) + " twice, letter case aside"}
		}
		s.space()
		s.i++ // the colon
		s.space()
		start := s.i
		if r := s.value(depth); r != nil {
			return r
		}
		if fields != nil {
			*fields = append(*fields, field{key, s.b[start:s.i]})
		}
	}
	s.i++
	return nil
}

// keySet holds the keys of one object: a list while they are few, as in every
// honest op, and a map when they are many, so that 16 KiB of keys cost no more
// than they should.
type keySet struct {
	few  [16]string
	n    int
	many map[string]bool
}

// add reports false when key was there before.
func (s *keySet) add(key string) bool {
	for _, k := range s.few[:s.n] {
		if k == key {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = key
		s.n++
		return true
	}
	if s.many[key] {
		return false
	}
	if s.many == nil {
		s.many = map[string]bool{}
	}
	s.many[key] = true
	return true
}

// unquote decodes a JSON string literal.
func unquote(lit []byte) string {
	if bytes.IndexByte(lit, '\\') < 0 {
		return string(lit[1 : len(lit)-1])
	}
	var s string
	_ = json.Unmarshal(lit, &s) // json.Valid approved it
	return s
}

// keyName decodes the literal of a key; those of the protocol without
// allocating.
func keyName(lit []byte) string {
	if name, ok := protocolKeys[string(lit)]; ok {
		return name
	}
	return unquote(lit)
}

var protocolKeys = map[string]string{}

func init() {
	for _, k := range []string{
		"v", "id", "op", "target", "requested_by", "trace_id", "issued_at", "expires_at", "args", "auth",
		"gateway_deadline", "revision", "backward", "last", "include_failed",
		"instance", "host", "phase", "status", "detail", "invocation_id", "at", "version", "journal",
	} {
		protocolKeys[`"`+k+`"`] = k
	}
}

// foldKey maps every spelling that encoding/json would take for the same field
// to one: upper case first, because ſ (U+017F) has only an upper-case partner,
// then lower case, because K (U+212A, Kelvin) has only a lower-case one.
func foldKey(key string) string {
	for i := range len(key) {
		if c := key[i]; c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' {
			return strings.ToLower(strings.ToUpper(key))
		}
	}
	return key
}

// clip shortens s to at most n bytes, on a character's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
