package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Diagnostic is one thing wrong in a file that a person wrote, with the place
// to look at. Its Error is that of a compiler:
//
//	sgfleet.yaml:3:1: unknown key "lock_tll" (did you mean lock_ttl?)
//	   3 | lock_tll: 90s
//	     | ^^^^^^^^
type Diagnostic struct {
	File    string // or the variable or flag that the value came from
	Line    int    // from 1; 0 when only File is known
	Column  int    // from 1, in characters
	Width   int    // of what is wrong, in characters
	Source  string // the line itself
	Message string
	Hint    string // what to do; goes in parentheses
}

func (d *Diagnostic) Error() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
	}
	if d.File != "" {
		b.WriteString(": ")
	}
	b.WriteString(d.Message)
	if d.Hint != "" {
		b.WriteString(" (" + d.Hint + ")")
	}
	if d.Line == 0 || d.Source == "" {
		return b.String()
	}
	source := []rune(d.Source)
	column := min(max(d.Column, 1), len(source)+1)
	// A tab in the source stays a tab above the caret, however wide it shows.
	indent := make([]rune, column-1)
	for i := range indent {
		indent[i] = ' '
		if source[i] == '\t' {
			indent[i] = '\t'
		}
	}
	width := max(1, min(d.Width, len(source)-column+1))
	fmt.Fprintf(&b, "\n%5d | %s\n      | %s%s", d.Line, printableLine(d.Source), string(indent), strings.Repeat("^", width))
	return b.String()
}

// printableLine keeps a source line's length and tabs but none of what would
// move the cursor.
func printableLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < ' ' || r == 0x7f) {
			return '�'
		}
		return r
	}, s)
}

// joinDiagnostics makes one error of all that is wrong, in the order of files
// as given and of lines in each.
func joinDiagnostics(all []*Diagnostic, files []string) error {
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b *Diagnostic) int {
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.File), slices.Index(files, b.File)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
		)
	})
	merr := &multierror.Error{ErrorFormat: formatErrors}
	for _, d := range all {
		merr.Errors = append(merr.Errors, d)
	}
	return merr
}

func formatErrors(errs []error) string {
	parts := make([]string, len(errs))
	for i, err := range errs {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "\n")
}
