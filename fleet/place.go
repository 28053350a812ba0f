package fleet

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// place is where a value stands.
type place struct {
	file                string
	line, column, width int
	source              string // the line's text, secrets and all
}

// note remembers where path is given. A later note of the same path (the value
// after its key) wins.
func (d *decoder) note(n ast.Node, path string) { d.set[path] = d.place(n) }

func (d *decoder) line(n int) string {
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return strings.TrimSuffix(d.lines[n-1], "\r")
}

var secretInLine = regexp.MustCompile(`(\b\w*(?:pas|secret|token|pwd)\w*["']?\s*:\s*|[a-z]://[^/@\s:]*:)(.*)`)

// maskSecrets hides a password in a line that is about to be shown, also of a
// mistyped key, and keeps the line's length.
func maskSecrets(line string) string {
	m := secretInLine.FindStringSubmatchIndex(line)
	if m == nil {
		return line
	}
	key, secret, rest := line[m[2]:m[3]], line[m[4]:m[5]], ""
	switch {
	case strings.HasPrefix(key, "pass_env"), strings.HasPrefix(key, "password_file"):
		return line
	case strings.Contains(key, "://"):
		at := strings.LastIndexByte(secret, '@')
		if at < 0 {
			return line // host:port, no password
		}
		secret, rest = secret[:at], secret[at:]
	}
	return line[:m[4]] + strings.Repeat("*", utf8.RuneCountInString(secret)) + rest
}

// place finds where n begins and how wide it is on that line.
func (d *decoder) place(n ast.Node) place {
	if pairs, ok := mappingPairs(n); ok && len(pairs) > 0 {
		// A block mapping's own token is its first colon.
		if m, isMapping := n.(*ast.MappingNode); !isMapping || !m.IsFlowStyle {
			n = pairs[0].Key
		}
	}
	tk := n.GetToken()
	p := place{file: d.file, line: tk.Position.Line, column: tk.Position.Column, width: 1}
	p.source = d.line(p.line)
	origin, _, _ := strings.Cut(strings.TrimSpace(tk.Origin), "\n")
	p.width = max(1, utf8.RuneCountInString(origin))
	return p
}

func (d *decoder) errorf(n ast.Node, hint, format string, args ...any) {
	d.problems = append(d.problems, d.place(n).diagnostic(hint, fmt.Sprintf(format, args...)))
}

// reject is errorf for a value that is not taken.
func (d *decoder) reject(n ast.Node, path, hint, format string, args ...any) {
	d.spoil(path)
	d.errorf(n, hint, format, args...)
}

// spoil notes that path is not known as it was meant: more than that it is
// wrong cannot be said of it, nor concluded from it.
func (d *decoder) spoil(path string) { d.bad = append(d.bad, path) }

func (p place) diagnostic(hint, message string) *Diagnostic {
	return &Diagnostic{
		File: p.file, Line: p.line, Column: p.column, Width: p.width, Source: maskSecrets(p.source),
		Message: message, Hint: hint,
	}
}
