package cli

import (
	"os"

	"golang.org/x/term"
)

// Colour decides by --color, then NO_COLOR (non-empty, as no-color.org has
// it), CLICOLOR_FORCE, TERM=dumb and last whether w is a terminal.
func Colour(w any, flag string) bool {
	switch {
	case flag == "always":
		return true
	case flag == "never":
		return false
	case os.Getenv("NO_COLOR") != "":
		return false
	case os.Getenv("CLICOLOR_FORCE") != "" && os.Getenv("CLICOLOR_FORCE") != "0":
		return true
	case os.Getenv("TERM") == "dumb":
		return false
	}
	return IsTerminal(w)
}

// IsTerminal reports whether f is a file that is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Size returns the columns and rows of the terminal w, 80 × 24 when it is none.
func Size(w any) (cols, rows int) {
	if file, ok := w.(*os.File); ok {
		if c, r, err := term.GetSize(int(file.Fd())); err == nil && c > 0 && r > 0 {
			return c, r
		}
	}
	return 80, 24
}
