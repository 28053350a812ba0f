package control

import (
	"strings"
	"unicode"
)

// validReplyKey keeps a legacy op from making daemons write to any key but a
// reply list.
func validReplyKey(key, prefix string) bool {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok || rest == "" || len(key) > maxReplyKey {
		return false
	}
	for _, c := range []byte(rest) {
		if !nameByte(c) && c != ':' {
			return false
		}
	}
	return true
}

// validID reports whether id is a ULID as [Op] writes it: 26 upper-case
// characters of Crockford's base 32, the first at most 7.
func validID(id string) bool {
	if len(id) != OpIDLength || id[0] > '7' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z') || c == 'I' || c == 'L' || c == 'O' || c == 'U' {
			return false
		}
	}
	return true
}

// validRevision accepts a commit id or a ref name, nothing that git could take
// for an option or a range.
func validRevision(rev string) bool {
	if rev[0] == '-' || rev[0] == '.' || rev[0] == '/' || strings.Contains(rev, "..") || len(rev) > maxRevision {
		return false
	}
	for _, c := range []byte(rev) {
		if !nameByte(c) && c != '/' && c != '+' {
			return false
		}
	}
	return true
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// printable reports whether s holds neither control nor format characters:
// what it names is shown on terminals and in chats, where those reorder or
// hide text.
func printable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return !strings.ContainsFunc(s, func(r rune) bool {
				return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
			})
		}
	}
	return true
}
