package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sgfleet/sgfleet/fleet"
)

// Diagnostic is one thing wrong with a scenario file.
type Diagnostic struct {
	Line, Col, Width int // where, from 1; Width in bytes
	Message          string
	Hint             string // what to do, may be ""
	Warning          bool   // nothing is refused because of it
}

// FileError is every error found in one scenario file, with the warnings.
type FileError struct {
	File     string
	Text     []byte
	Problems []Diagnostic
}

func (e *FileError) Error() string {
	errs, warns := e.Counts()
	s := RenderProblems(e.File, e.Text, e.Problems) + plural(errs, "error")
	if warns > 0 {
		s += ", " + plural(warns, "warning")
	}
	return s
}

// Counts returns the number of errors and warnings.
func (e *FileError) Counts() (errs, warns int) {
	for _, p := range e.Problems {
		if p.Warning {
			warns++
		} else {
			errs++
		}
	}
	return errs, warns
}

// RenderProblems prints problems as compilers do: file:line:col first, so that
// editors and CI logs link to it, then the source line with a caret.
func RenderProblems(file string, text []byte, problems []Diagnostic) string {
	slices.SortStableFunc(problems, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	lines := strings.Split(string(text), "\n")
	var b strings.Builder
	for _, p := range problems {
		d := fleet.Diagnostic{File: file, Line: p.Line, Column: p.Col, Width: p.Width, Message: p.Message, Hint: p.Hint}
		if p.Warning {
			d.Message = "warning: " + p.Message
		}
		if p.Line >= 1 && p.Line <= len(lines) {
			d.Source = strings.TrimRight(lines[p.Line-1], "\r")
		}
		b.WriteString(d.Error() + "\n")
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
