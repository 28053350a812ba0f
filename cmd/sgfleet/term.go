package main

import (
	"io"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
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
	if s == "" || !cli.Colour(w, a.flags.color) {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}
