package fleet

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Sources says where each value of a config came from: dotted key →
// "FILE:LINE", "SGFLEET_…" or the flag. A key that is not in it has its
// default.
type Sources map[string]string

// SourceDefault is the source of a value that nothing sets.
const SourceDefault = "default"

// Of returns the source of a dotted key.
func (s Sources) Of(key string) string {
	if src := s[key]; src != "" {
		return src
	}
	return SourceDefault
}

// DefaultServices reports whether nothing names services or tiers, so that a
// host has the default ones whatever it really runs.
func (s Sources) DefaultServices() bool {
	for key := range s {
		if under(key, "services") || under(key, "tiers") {
			return false
		}
	}
	return true
}

// Setting is one value of a config, as it is shown to people.
type Setting struct {
	Key    string `json:"key"`   // dotted: redis.url, services.web.unit
	Value  string `json:"value"` // secrets are replaced by ********
	Source string `json:"source"`
}

const redacted = "********"

// Settings lists every value of c with its source, in the order of the config's
// documentation. Secrets are left out.
func (c *Config) Settings(sources Sources) []Setting {
	var out []Setting
	for _, l := range leaves(reflect.ValueOf(c).Elem(), "") {
		out = append(out, Setting{l.path, showValue(l.path, l.value), sources.Of(l.path)})
	}
	return out
}

func showValue(path string, v reflect.Value) string {
	switch path {
	case "redis.password":
		if v.String() != "" {
			return redacted
		}
	case "redis.url":
		return redactURL(v.String())
	}
	if t, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, _ := t.MarshalText()
		return string(b)
	}
	switch list := v.Interface().(type) {
	case []string:
		return "[" + strings.Join(list, ", ") + "]"
	case []Tier:
		names := make([]string, len(list))
		for i, t := range list {
			names[i] = t.describe()
		}
		return "[" + strings.Join(names, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// describe names a tier with what it overrides: inference (done_timeout 5m).
func (t Tier) describe() string {
	var more []string
	if t.Gateway {
		more = append(more, "gateway")
	}
	if t.DoneTimeout > 0 {
		more = append(more, "done_timeout "+t.DoneTimeout.String())
	}
	if t.Settle > 0 {
		more = append(more, "settle "+t.Settle.String())
	}
	if len(more) == 0 {
		return t.Name
	}
	return t.Name + " (" + strings.Join(more, ", ") + ")"
}

// redactURL hides the password of a URL, and all of one that cannot be read.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return redacted
	}
	if _, secret := u.User.Password(); secret {
		u.User = url.UserPassword(u.User.Username(), redacted)
		return strings.Replace(u.String(), url.QueryEscape(redacted), redacted, 1)
	}
	return s
}

// leaf is one value of a config: a scalar or a list.
type leaf struct {
	path   string
	value  reflect.Value
	inMap  bool // below a mapping with free keys
	scalar bool // can be set from text
}

// leaves lists the values of a struct, mappings in the order of their keys.
func leaves(v reflect.Value, path string) []leaf {
	var out []leaf
	_, text := v.Interface().(encoding.TextMarshaler)
	switch {
	case text || isScalar(v.Kind()):
		out = append(out, leaf{path: path, value: v, scalar: true})
	case v.Kind() == reflect.Slice:
		out = append(out, leaf{path: path, value: v, scalar: v.Type().Elem().Kind() == reflect.String})
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			out = append(out, leaves(v.Field(i), joinPath(path, fieldName(v.Type().Field(i))))...)
		}
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			for _, l := range leaves(v.MapIndex(k), joinPath(path, k.String())) {
				l.inMap = true
				out = append(out, l)
			}
		}
	}
	return out
}

// EnvPrefix begins the name of every environment variable that sets a value:
// SGFLEET_REDIS_URL sets redis.url.
const EnvPrefix = "SGFLEET_"

// envName is the variable that sets a dotted key.
func envName(path string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}
