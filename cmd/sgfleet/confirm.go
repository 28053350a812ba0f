package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
)

// confirm asks question on the terminal. Without one, or with an answer other
// than yes, nothing is done: exit 6, and the hint is the exact command that
// does not ask.
func (a *app) confirm(ctx context.Context, question string, command []string) error {
	refused := &cli.Error{Code: exitRefused}
	if !cli.IsTerminal(a.stdin) || !cli.IsTerminal(a.stderr) {
		refused.Err = errors.New("not confirmed: this is no terminal to ask on, so nothing was sent")
		refused.Hint = "To do it:\n  " + shellJoin(command)
		return refused
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // a read of a terminal cannot be cancelled; the process ends soon after
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return &cli.Error{Code: exitInterrupt, Err: errors.New("interrupted: nothing was sent")}
	case s := <-answer:
		if s == "y" || s == "yes" {
			return nil
		}
		refused.Err = errors.New("not confirmed: nothing was sent")
		return refused
	}
}

// shellJoin renders an argument vector so that it can be pasted in a shell.
func shellJoin(args []string) string {
	quoted := make([]string, len(args))
	for i, s := range args {
		quoted[i] = shellQuote(s)
	}
	return strings.Join(quoted, " ")
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
