package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
)

var logFormats = []string{"auto", "text", "json", "journal"}

// newLogger writes the daemon's log to w. auto means journal under systemd,
// text elsewhere.
func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	if !slices.Contains(logFormats, format) {
		return nil, usagef("unknown --log-format %q: want %s%s", format, strings.Join(logFormats, ", "), cli.DidYouMean(format, logFormats))
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("unknown --log-level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	if format == "auto" && isJournal(w) {
		format = "journal"
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	case "journal":
		// The journal has its own time, and takes the level from a prefix.
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		}
		return slog.New(journalHandler{o, w, func(h slog.Handler) slog.Handler { return h }}), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// isJournal reports whether w is the stream that systemd connects to the
// journal: it says so in JOURNAL_STREAM, as device and inode.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journalHandler renders a record as text after the <N> that sd-daemon(3)
// takes for its priority.
type journalHandler struct {
	opts  *slog.HandlerOptions
	w     io.Writer
	apply func(slog.Handler) slog.Handler // attributes and groups so far
}

func (h journalHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.opts.Level.Level()
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	var b bytes.Buffer
	priority := 6
	switch {
	case r.Level >= slog.LevelError:
		priority = 3
	case r.Level >= slog.LevelWarn:
		priority = 4
	case r.Level < slog.LevelInfo:
		priority = 7
	}
	fmt.Fprintf(&b, "<%d>", priority)
	if err := h.apply(slog.NewTextHandler(&b, h.opts)).Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.w.Write(b.Bytes()) // one write: lines of several goroutines do not mix
	return err
}

func (h journalHandler) WithAttrs(as []slog.Attr) slog.Handler {
	before := h.apply
	h.apply = func(t slog.Handler) slog.Handler { return before(t).WithAttrs(as) }
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	before := h.apply
	h.apply = func(t slog.Handler) slog.Handler { return before(t).WithGroup(name) }
	return h
}
