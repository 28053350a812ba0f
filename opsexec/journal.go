package opsexec

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	defaultJournalLines = 10 // journalctl's own
	maxJournalEntry     = 1 << 20
)

// JournalQuery selects entries of the journal.
type JournalQuery struct {
	Units []string // any of these
	// Lines is how many of the newest entries are wanted. 0 means ten, or with
	// AfterCursor all that follow it; a negative number means all.
	Lines       int
	AfterCursor string // only entries after the one with this cursor
	Follow      bool   // go on with entries as they are logged
	// Host is whose journal to read, by ssh; "" means this one's.
	Host string

	invocation string // 32 hex digits: what [JournalLines] picks its lines from
}

// JournalEntry is one entry of the journal.
type JournalEntry struct {
	Cursor     string    `json:"cursor"` // place in the journal, for [JournalQuery.AfterCursor]
	Time       time.Time `json:"time"`
	Host       string    `json:"host"`
	Unit       string    `json:"unit"`
	Identifier string    `json:"identifier"` // program that logged it
	PID        int       `json:"pid"`
	Priority   int       `json:"priority"` // syslog's, 0 is the gravest
	Message    string    `json:"message"`  // as logged, control characters and all

	invocation string // of the unit; "" when journald did not know it any more
}

// argv is the command line. It fails for what could be taken for something
// else than a unit, an invocation, a cursor or a host.
func (q JournalQuery) argv(output string) ([]string, error) {
	argv := []string{
		"journalctl", "--no-pager", "--output=" + output,
		"--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_PID,_SYSTEMD_UNIT,UNIT,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,_HOSTNAME",
	}
	if len(q.Units) == 0 {
		return nil, errors.New("reading the journal: no unit given")
	}
	for _, u := range q.Units {
		if !plain(u, ":_.@-\\") {
			return nil, fmt.Errorf("reading the journal: %q is no unit name", u)
		}
		if q.invocation == "" {
			argv = append(argv, "--unit="+u)
		}
	}
	switch {
	case q.Lines > 0:
		argv = append(argv, "--lines="+strconv.Itoa(q.Lines))
	case q.Lines == 0 && q.AfterCursor == "":
		argv = append(argv, "--lines="+strconv.Itoa(defaultJournalLines))
	case q.Follow:
		argv = append(argv, "--no-tail")
	}
	if q.AfterCursor != "" {
		if !plain(q.AfterCursor, ";=") {
			return nil, fmt.Errorf("reading the journal: %q is no cursor", q.AfterCursor)
		}
		argv = append(argv, "--after-cursor="+q.AfterCursor)
	}
	if q.Follow {
		argv = append(argv, "--follow")
	}
	if q.invocation != "" {
		if !plain(q.invocation, "") {
			return nil, fmt.Errorf("reading the journal: %q is no invocation id", q.invocation)
		}
		// What the unit's processes said, or root about them: PID 1, or its
		// child that could not become the program. Of the latter journald
		// often cannot tell the unit any more, so --unit= would miss just the
		// line that says why. _UID=0: nobody else's entry can pose as these.
		argv = append(argv, "_SYSTEMD_INVOCATION_ID="+q.invocation, "+", "INVOCATION_ID="+q.invocation, "_UID=0")
		// What a process says right before it ends, journald often reads when
		// PID 1 has withdrawn the invocation already: it has the unit only.
		for _, u := range q.Units {
			argv = append(argv, "+", "_SYSTEMD_UNIT="+u)
		}
	}
	if q.Host == "" {
		return argv, nil
	}
	if !plain(q.Host, ":_.@-") || q.Host[0] == '-' {
		return nil, fmt.Errorf("reading the journal: %q is no host to ssh to", q.Host)
	}
	// ssh hands its arguments to a shell, to which a cursor is several
	// commands. Nothing in argv can hold a quote.
	return []string{"ssh", "-o", "BatchMode=yes", "--", q.Host, "'" + strings.Join(argv, "' '") + "'"}, nil
}

// plain says whether s consists of ASCII letters, digits and the characters
// given, and is not empty.
func plain(s, also string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(also, r) {
			return false
		}
	}
	return s != ""
}

// Errors of a journal that tells nothing.
var (
	ErrNoJournal   = errors.New("there is no journal to read, or none that this user may read")
	ErrPartJournal = errors.New("the journal has no entries of these units that this user may read")
	ErrNoEntries   = errors.New("the journal has no entries of these units")
)

// ReadJournal calls emit for each entry that q selects, oldest first, until
// there are no more, ctx ends (with [JournalQuery.Follow] nothing else does),
// or emit fails; it returns the error of the latter two. No entry at all is an
// error, too, unless q only asks for what is new since a cursor.
func ReadJournal(ctx context.Context, q JournalQuery, emit func(JournalEntry) error) error {
	if q.Follow { // there may never be another chance to tell
		if err := q.access(ctx); errors.Is(err, ErrNoJournal) {
			return err
		}
	}
	count := 0
	err := q.read(ctx, func(e JournalEntry) error {
		count++
		return emit(e)
	})
	var exit *exec.ExitError
	switch {
	case err == nil && count == 0 && q.AfterCursor == "":
		return cmp.Or(q.access(ctx), ErrNoEntries)
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		if denied := q.access(ctx); errors.Is(denied, ErrNoJournal) {
			return denied // journalctl may have said nothing
		}
	}
	return err
}

// access tells whether there is a journal that this user may read, and all of
// it. Of journalctl's output formats only those for people tell. An access that
// cannot be found out is none of its errors.
func (q JournalQuery) access(ctx context.Context) error {
	q.Lines, q.AfterCursor, q.Follow = 1, "", false
	argv, err := q.argv("short")
	if err != nil {
		return err
	}
	// Its error does not matter: journalctl says the same and exits 1 when it is
	// denied everything.
	res, _ := OSExec(ctx, Cmd{Argv: argv, Env: append(os.Environ(), "LC_ALL=C"), Timeout: 30 * time.Second})
	for line := range strings.Lines(res.Output) { // an entry begins with its time
		switch {
		case strings.HasPrefix(line, "No journal files were "):
			return ErrNoJournal
		case strings.HasPrefix(line, "Hint: You are currently not seeing messages"):
			return ErrPartJournal
		}
	}
	return nil
}

func (q JournalQuery) read(ctx context.Context, emit func(JournalEntry) error) error {
	argv, err := q.argv("json")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A polite end, for what a wrapper of journalctl or ssh started as well.
	// WaitDelay: a pipe that something else still holds does not keep us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &limitedWriter{&complaint, 4 << 10}
	out, in := io.Pipe()
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	ended := make(chan error)
	go func() {
		err := cmd.Wait()
		in.Close()
		ended <- err
	}()
	if err := scanJournal(out, emit); err != nil {
		cancel(err)
		out.CloseWithError(err)
	}
	err = <-ended
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if exit := (*exec.ExitError)(nil); q.Host != "" && errors.As(err, &exit) && exit.ExitCode() == 255 { // ssh's own
		return fmt.Errorf("ssh to %s failed: %s", q.Host, ChatLine(complaint.String()))
	}
	if err != nil {
		return fmt.Errorf("reading the journal: %w: %s", err, ChatLine(complaint.String()))
	}
	return nil
}

// scanJournal reads entries, one JSON object a line. A line that is none (an
// overlong one, a word of ssh's) is skipped.
func scanJournal(r io.Reader, emit func(JournalEntry) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		if len(line)+len(part) <= maxJournalEntry {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if e, ok := parseJournal(line); ok {
			if err := emit(e); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the command's own end says what went wrong
		}
		line = line[:0]
	}
}

// parseJournal decodes one line of journalctl's JSON.
func parseJournal(line []byte) (JournalEntry, bool) {
	var f struct {
		Cursor     journalField `json:"__CURSOR"`
		Time       journalField `json:"__REALTIME_TIMESTAMP"` // µs
		Host       journalField `json:"_HOSTNAME"`
		Unit       journalField `json:"UNIT"` // what PID 1 talks about
		OwnUnit    journalField `json:"_SYSTEMD_UNIT"`
		Run        journalField `json:"INVOCATION_ID"`
		OwnRun     journalField `json:"_SYSTEMD_INVOCATION_ID"`
		Identifier journalField `json:"SYSLOG_IDENTIFIER"`
		Comm       journalField `json:"_COMM"`
		PID        journalField `json:"_PID"`
		Priority   journalField `json:"PRIORITY"`
		Message    journalField `json:"MESSAGE"`
	}
	if len(bytes.TrimSpace(line)) == 0 || json.Unmarshal(line, &f) != nil || f.Cursor == "" {
		return JournalEntry{}, false
	}
	first := func(fields ...journalField) string {
		for _, f := range fields {
			if f != "" {
				return string(f)
			}
		}
		return ""
	}
	µs, _ := strconv.ParseInt(string(f.Time), 10, 64)
	e := JournalEntry{
		Cursor: string(f.Cursor), Time: time.UnixMicro(µs), Host: string(f.Host), Message: string(f.Message),
		Unit: first(f.Unit, f.OwnUnit), Identifier: first(f.Identifier, f.Comm), Priority: 6,
		invocation: first(f.OwnRun, f.Run),
	}
	e.PID, _ = strconv.Atoi(string(f.PID))
	if p, err := strconv.Atoi(string(f.Priority)); err == nil {
		e.Priority = p
	}
	return e, true
}

// journalField is a field's value: a string, null when it is longer than
// 4096 bytes, bytes when it is not UTF-8, or a list of these when the field
// was given several times, of which the first counts.
type journalField string

func (f *journalField) UnmarshalJSON(b []byte) error {
	var s string
	var bytes []byte
	var ints []int
	var list []journalField
	switch {
	case string(b) == "null":
		s = "(more than 4096 bytes)"
	case json.Unmarshal(b, &s) == nil:
	case json.Unmarshal(b, &ints) == nil:
		for _, i := range ints {
			bytes = append(bytes, byte(i))
		}
		s = strings.ToValidUTF8(string(bytes), "�")
	default:
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			s = string(list[0])
		}
	}
	*f = journalField(s)
	return nil
}

// limitedWriter drops what goes beyond n bytes.
type limitedWriter struct {
	w io.Writer
	n int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	k := min(l.n, len(p))
	l.n -= k
	if _, err := l.w.Write(p[:k]); err != nil {
		return 0, err
	}
	return len(p), nil
}
