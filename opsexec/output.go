package opsexec

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is kept of a command's output: its beginning, which says what went
// wrong first, and more of its end, which says how it ended.
const (
	keepHead = 16 << 10
	keepTail = 48 << 10
)

// cappedOutput is a writer that keeps the head and the tail of what is written
// to it, in memory that does not grow beyond their sum.
type cappedOutput struct {
	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where the ring goes on
	total int64
}

func (o *cappedOutput) Write(p []byte) (int, error) {
	n := len(p)
	o.total += int64(n)
	if room := keepHead - len(o.head); room > 0 {
		k := min(room, len(p))
		o.head = append(o.head, p[:k]...)
		p = p[k:]
	}
	if len(p) > keepTail {
		p = p[len(p)-keepTail:]
	}
	if room := keepTail - len(o.tail); room > 0 {
		k := min(room, len(p))
		o.tail = append(o.tail, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(o.tail[o.next:], p)
		o.next = (o.next + k) % keepTail
		p = p[k:]
	}
	return n, nil
}

func (o *cappedOutput) String() string {
	var b strings.Builder
	b.Write(o.head)
	if left := o.total - int64(len(o.head)+len(o.tail)); left > 0 {
		fmt.Fprintf(&b, "\n… %d bytes left out …\n", left)
	}
	b.Write(o.tail[o.next:])
	b.Write(o.tail[:o.next])
	return b.String()
}

// unread is how git ends when the program that speaks to the remote failed:
// why, that one has said right before.
const unread = "fatal: Could not read from remote repository."

// excerpt is what says most of a command's output: the first line that looks
// like an error, else the last. Of a remote that git could not read it is the
// last words of ssh, which may be several lines (the key that cannot be loaded,
// then the refusal).
func excerpt(output string) string {
	last := ""
	var before []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if line == unread && len(before) > 0 {
			return ChatLine(strings.Join(before[max(0, len(before)-3):], "; "))
		}
		before = append(before, strings.TrimSuffix(line, "."))
		for _, p := range [...]string{"fatal: ", "error: ", "ERROR: "} {
			if strings.HasPrefix(line, p) {
				return ChatLine(line)
			}
		}
		last = line
	}
	return ChatLine(last)
}

// MaxChatLine is the length that [ChatLine] cuts a line to, in runes: five fit
// into one chat message.
const MaxChatLine = 380

// userinfo matches what may be a password in a URL.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@`)

// ChatLine makes text fit for chat: one line of limited length, without control
// or invisible characters, with the user part of URLs and the given secrets
// masked.
func ChatLine(text string, secrets ...string) string {
	text = mask(text, secrets)
	text = strings.ToValidUTF8(text, "�")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
			return -1
		}
		return r
	}, ansi.ReplaceAllString(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	text = userinfo.ReplaceAllString(text, "${1}***@")
	text = mask(text, secrets) // again: what was dropped may have split one
	if utf8.RuneCountInString(text) > MaxChatLine {
		text = string([]rune(text)[:MaxChatLine-1]) + "…"
	}
	return text
}

func mask(text string, secrets []string) string {
	for _, s := range secrets {
		if len(s) >= 4 { // shorter ones would mask half of the text
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

// ansi matches terminal escape sequences; dropping only their control
// character would leave "[31m" behind.
var ansi = regexp.MustCompile(`\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])`)

// secretsOf finds what must not be shown of an environment: passwords in the
// URLs of proxies, values whose name says so.
func secretsOf(env []string) []string {
	var secrets []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if secretName.MatchString(name) {
			secrets = append(secrets, value)
		}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if p, ok := u.User.Password(); ok {
				secrets = append(secrets, p)
			}
		}
	}
	return secrets
}

var secretName = regexp.MustCompile(`(?i)(secret|token|passw|credential|api_?key)`)
