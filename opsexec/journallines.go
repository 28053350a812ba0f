package opsexec

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// JournalLines reads with run what an invocation of a unit logged last, for
// [RestartOptions.Journal]: at most n lines, each fit for chat. When the
// journal cannot be read, the only line says so.
//
// journald takes what a process wrote from a stream of its own, on a busy host
// after PID 1's "Main process exited". So while there is only PID 1's word,
// JournalLines reads again, for up to journalPatience, and keeps what it has when
// that fails.
func JournalLines(run Exec, n int) func(ctx context.Context, unit, invocation string) []string {
	return func(ctx context.Context, unit, invocation string) []string {
		// More than n, since some are of other invocations.
		argv, err := JournalQuery{Units: []string{unit}, invocation: invocation, Lines: 10 * n}.argv("json")
		if err != nil {
			return []string{ChatLine(err.Error())}
		}
		var lines []string
		for waited := time.Duration(0); ; waited += journalPause {
			res, err := run(ctx, Cmd{Argv: argv, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}})
			if err != nil && len(lines) > 0 { // the caller's time is up: better PID 1's word than none
				return lines[max(0, len(lines)-n):]
			}
			if err != nil {
				return []string{ChatLine(fmt.Sprintf("reading the journal of %s: %v", unit, err))}
			}
			var entries []JournalEntry
			for line := range strings.Lines(res.Output) {
				// Output is capped: what is not whole is left out.
				if e, ok := parseJournal([]byte(line)); ok {
					entries = append(entries, e)
				}
			}
			own := false
			lines = nil
			for _, e := range ofInvocation(entries, invocation) {
				lines = append(lines, ChatLine(e.Identifier+": "+e.Message))
				own = own || e.Identifier != "systemd"
			}
			if own || waited >= journalPatience || !pause(ctx, journalPause) {
				return lines[max(0, len(lines)-n):]
			}
		}
	}
}

// ofInvocation picks an invocation's entries. One whose invocation is not known
// goes with the entry before it. journald reads a process's words and PID 1's
// from different sockets, so it may also come right before "Starting".
func ofInvocation(entries []JournalEntry, invocation string) (picked []JournalEntry) {
	var unknown []JournalEntry
	last := ""
	for _, e := range entries {
		if e.invocation == "" {
			unknown = append(unknown, e)
			continue
		}
		for _, u := range unknown {
			if last == invocation || e.invocation == invocation && e.Time.Sub(u.Time) < time.Second {
				picked = append(picked, u)
			}
		}
		if e.invocation == invocation {
			picked = append(picked, e)
		}
		unknown, last = nil, e.invocation
	}
	if last == invocation {
		picked = append(picked, unknown...)
	}
	return picked
}

const (
	journalPause    = 100 * time.Millisecond
	journalPatience = 500 * time.Millisecond
)
