package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// SGR colours. A roster needs four: good, bad, doubtful and unimportant.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

// paint colours s for w when w takes colour.
func (a *app) paint(w io.Writer, sgr, s string) string {
	if s == "" || !a.colour(w) {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// colour decides by --color, then NO_COLOR (non-empty, as no-color.org has
// it), CLICOLOR_FORCE, TERM=dumb and last whether w is a terminal.
func (a *app) colour(w io.Writer) bool {
	switch {
	case a.flags.color == "always":
		return true
	case a.flags.color == "never":
		return false
	case os.Getenv("NO_COLOR") != "":
		return false
	case os.Getenv("CLICOLOR_FORCE") != "" && os.Getenv("CLICOLOR_FORCE") != "0":
		return true
	case os.Getenv("TERM") == "dumb":
		return false
	}
	return isTerminal(w)
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// size returns the columns and rows of the terminal w, 80 × 24 when it is none.
func size(w io.Writer) (cols, rows int) {
	if file, ok := w.(*os.File); ok {
		if c, r, err := term.GetSize(int(file.Fd())); err == nil && c > 0 && r > 0 {
			return c, r
		}
	}
	return 80, 24
}
