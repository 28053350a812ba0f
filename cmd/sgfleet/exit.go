package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
)

// The exit codes, the same for every command; README and help list them.
const (
	exitOK        = control.ExitOK
	exitError     = control.ExitError
	exitUsage     = control.ExitUsage
	exitNobody    = control.ExitNobody
	exitRefused   = control.ExitRefused
	exitNoCommand = 64
	exitInterrupt = 130

	exitCodesTable = `Exit codes:
  0    all did it
  1    error before anything was sent
  2    usage or config
  3    some failed or refused
  4    some silent or unfinished
  5    nobody matched or nobody answered
  6    refused: not confirmed, held or locked
  64   not a control command (say)
  130  interrupted
`
)

func usagef(format string, args ...any) error {
	return &cli.Error{Code: exitUsage, Err: fmt.Errorf(format, args...)}
}

// hungUp reports whether err says that nobody reads our output any more, as
// after | head: whoever asked has what he wanted.
func hungUp(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Path == os.Stdout.Name() && errors.Is(path.Err, syscall.EPIPE)
}

// exit prints err, if any, and returns the exit code.
func (a *app) exit(err error) int {
	if err == nil || hungUp(err) {
		return exitOK
	}
	ce := &cli.Error{Code: exitError, Err: err}
	if unsent := (*control.NotSentError)(nil); errors.As(err, &unsent) {
		ce.Code = unsent.Code
	}
	if errors.As(err, &ce) && ce.Err == nil {
		return ce.Code
	}
	msg := strings.TrimRight(err.Error(), "\n")
	fmt.Fprintf(a.stderr, "%s %s\n", a.paint(a.stderr, red, "sgfleet:"), msg)
	if ce.Hint != "" {
		fmt.Fprintf(a.stderr, "%s\n", ce.Hint)
	}
	return ce.Code
}
