package opsexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const invocation = "0123456789abcdef0123456789abcdef"

func TestJournalQueryArgv(t *testing.T) {
	web := []string{"web.service"}
	for _, tt := range []struct {
		name string
		q    JournalQuery
		want string // end of the command line
		err  string
	}{
		{"tail", JournalQuery{Units: web}, "--unit=web.service --lines=10", ""},
		{"all", JournalQuery{Units: web, Lines: -1}, "--unit=web.service", ""},
		{"several units", JournalQuery{Units: []string{"a@1.service", "b.service"}, Lines: 3}, "--unit=a@1.service --unit=b.service --lines=3", ""},
		{
			"invocation",
			JournalQuery{Units: web, invocation: invocation, Lines: 5},
			"--lines=5 _SYSTEMD_INVOCATION_ID=" + invocation + " + INVOCATION_ID=" + invocation + " _UID=0 + _SYSTEMD_UNIT=web.service", "",
		},
		{"cursor", JournalQuery{Units: web, AfterCursor: "s=0a;i=1"}, "--unit=web.service --after-cursor=s=0a;i=1", ""},
		// Without --no-tail, --follow shows the last ten only.
		{"cursor, follow", JournalQuery{Units: web, AfterCursor: "s=0a;i=1", Follow: true}, "--no-tail --after-cursor=s=0a;i=1 --follow", ""},
		{"follow", JournalQuery{Units: web, Follow: true}, "--lines=10 --follow", ""},
		{"by ssh", JournalQuery{Units: web, AfterCursor: "s=0a;i=1", Host: "root@h1"}, "'--unit=web.service' '--after-cursor=s=0a;i=1'", ""},
		{"no unit", JournalQuery{}, "", "no unit given"},
		{"bad unit", JournalQuery{Units: []string{"web.service --output=cat"}}, "", "is no unit name"},
		{"bad invocation", JournalQuery{Units: web, invocation: "x + _UID=0"}, "", "is no invocation id"},
		{"bad cursor", JournalQuery{Units: web, AfterCursor: "'; reboot"}, "", "is no cursor"},
		{"bad host", JournalQuery{Units: web, Host: "-oProxyCommand=reboot"}, "", "is no host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			argv, err := tt.q.argv("json")
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if got := strings.Join(argv, " "); !strings.HasSuffix(got, tt.want) {
				t.Errorf("got %s\nwant at its end %s", got, tt.want)
			}
			if err == nil && tt.q.Host != "" && !slices.Equal(argv[:5], []string{"ssh", "-o", "BatchMode=yes", "--", tt.q.Host}) {
				t.Errorf("got %q", argv)
			}
		})
	}
}

func TestParseJournal(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       JournalEntry
		ok         bool
	}{
		{
			"own", `{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1764105600000001","_HOSTNAME":"h1","_SYSTEMD_UNIT":"web.service","SYSLOG_IDENTIFIER":"web","_PID":"77","PRIORITY":"3","MESSAGE":"no port"}`,
			JournalEntry{Cursor: "s=1", Time: time.UnixMicro(1764105600000001), Host: "h1", Unit: "web.service", Identifier: "web", PID: 77, Priority: 3, Message: "no port"},
			true,
		},
		{
			"by PID 1", `{"__CURSOR":"s=1","_SYSTEMD_UNIT":"init.scope","UNIT":"web.service","_COMM":"systemd","_PID":"1","MESSAGE":"Failed"}`,
			JournalEntry{Cursor: "s=1", Time: time.UnixMicro(0), Unit: "web.service", Identifier: "systemd", PID: 1, Priority: 6, Message: "Failed"},
			true,
		},
		{"too long", `{"__CURSOR":"s=1","MESSAGE":null}`, JournalEntry{Cursor: "s=1", Time: time.UnixMicro(0), Priority: 6, Message: "(more than 4096 bytes)"}, true},
		{"bytes", `{"__CURSOR":"s=1","MESSAGE":[104,105,255]}`, JournalEntry{Cursor: "s=1", Time: time.UnixMicro(0), Priority: 6, Message: "hi�"}, true},
		{"given twice", `{"__CURSOR":"s=1","MESSAGE":["a","b"]}`, JournalEntry{Cursor: "s=1", Time: time.UnixMicro(0), Priority: 6, Message: "a"}, true},
		{"cut", `{"__CURSOR":"s=1","MESS`, JournalEntry{}, false},
		{"empty", "", JournalEntry{}, false},
		{"something else", `{"error":1}`, JournalEntry{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseJournal([]byte(tt.line))
			if ok != tt.ok || got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestJournalLines(t *testing.T) {
	// Only PID 1 knew the invocation when journald read the last words of web.
	output := `… 9 bytes left out …
{"__CURSOR":"s=0","SYSLOG_IDENTIFIER":"web","_SYSTEMD_UNIT":"web.service","MESSAGE":"of another"}
{"__CURSOR":"s=1","SYSLOG_IDENTIFIER":"web","_SYSTEMD_INVOCATION_ID":"aaaa","MESSAGE":"of another"}
{"__CURSOR":"s=1a","__REALTIME_TIMESTAMP":"1764105600000000","SYSLOG_IDENTIFIER":"web","_SYSTEMD_UNIT":"web.service","MESSAGE":"of another"}
{"__CURSOR":"s=1b","__REALTIME_TIMESTAMP":"1764105601000000","SYSLOG_IDENTIFIER":"web","_SYSTEMD_UNIT":"web.service","MESSAGE":"early"}
{"__CURSOR":"s=1c","__REALTIME_TIMESTAMP":"1764105601000001","SYSLOG_IDENTIFIER":"systemd","INVOCATION_ID":"` + invocation + `","MESSAGE":"Starting"}
{"__CURSOR":"s=2","_SYSTEMD_UNIT":"web.service","SYSLOG_IDENTIFIER":"web","MESSAGE":"\u001b[31mtwo\u0007\nlines of https://me:secret@host/x"}
{"__CURSOR":"s=3","SYSLOG_IDENTIFIER":"systemd","INVOCATION_ID":"` + invocation + `","MESSAGE":"Main process exited, code=exited, status=3/NOTIMPLEMENTED"}
{"__CURSOR":"s=4","SYSLOG_IDENTIFIER":"web","_SYSTEMD_UNIT":"web.service","MESSAGE":"late"}
{"__CURSOR":"s=5","SYSLOG_IDENTIFIER":"systemd","INVOCATION_ID":"bbbb","MESSAGE":"Starting"}
`
	var argv []string
	run := func(_ context.Context, c Cmd) (Result, error) { argv = c.Argv; return Result{Output: output}, nil }
	got := JournalLines(run, 9)(t.Context(), "web.service", invocation)
	all := []string{"web: early", "systemd: Starting", "web: two lines of https://***@host/x", "systemd: Main process exited, code=exited, status=3/NOTIMPLEMENTED", "web: late"}
	if !slices.Equal(got, all) {
		t.Errorf("got  %q\nwant %q", got, all)
	}
	got = JournalLines(run, 2)(t.Context(), "web.service", invocation)
	want := all[3:]
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !slices.Contains(argv, "--lines=20") || !slices.Contains(argv, "_SYSTEMD_INVOCATION_ID="+invocation) {
		t.Errorf("ran %q", argv)
	}

	// What the process wrote reaches journald after PID 1's word of its end.
	synctest.Test(t, func(t *testing.T) {
		pid1 := `{"__CURSOR":"s=2","SYSLOG_IDENTIFIER":"systemd","INVOCATION_ID":"` + invocation + `","MESSAGE":"Main process exited"}` + "\n"
		late := `{"__CURSOR":"s=1","SYSLOG_IDENTIFIER":"web","MESSAGE":"no module named llama"}` + "\n"
		reads := 0
		run := func(context.Context, Cmd) (Result, error) {
			if reads++; reads < 3 {
				return Result{Output: pid1}, nil
			}
			return Result{Output: late + pid1}, nil
		}
		want := []string{"web: no module named llama", "systemd: Main process exited"}
		if got := JournalLines(run, 8)(t.Context(), "web.service", invocation); !slices.Equal(got, want) || reads != 3 {
			t.Errorf("after %d reads %q, want %q", reads, got, want)
		}
		// A process that wrote nothing is not waited for long.
		start := time.Now()
		run = func(context.Context, Cmd) (Result, error) { return Result{Output: pid1}, nil }
		if got := JournalLines(run, 8)(t.Context(), "web.service", invocation); !slices.Equal(got, want[1:]) || time.Since(start) != journalPatience {
			t.Errorf("after %v %q, want %q", time.Since(start), got, want[1:])
		}
		// The time that the caller has is over while it is waited for.
		reads = 0
		run = func(context.Context, Cmd) (Result, error) {
			if reads++; reads > 1 {
				return Result{}, context.DeadlineExceeded
			}
			return Result{Output: pid1}, nil
		}
		if got := JournalLines(run, 8)(t.Context(), "web.service", invocation); !slices.Equal(got, want[1:]) || reads != 2 {
			t.Errorf("after %d reads, the last of which failed, %q, want %q", reads, got, want[1:])
		}
	})

	run = func(context.Context, Cmd) (Result, error) { return Result{}, errors.New("no such program") }
	got = JournalLines(run, 2)(t.Context(), "web.service", invocation)
	if want := []string{"reading the journal of web.service: no such program"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// fakeJournalctl puts a journalctl of the test's own into PATH.
func fakeJournalctl(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestReadJournal(t *testing.T) {
	long := strings.Repeat("x", maxJournalEntry)
	entry := func(i int) string { return fmt.Sprintf(`{"__CURSOR":"s=%d","MESSAGE":"m%d"}`, i, i) }
	const has = "case $* in *--output=short*) exit;; esac\n" // a journal, and all of it
	t.Run("to its end", func(t *testing.T) {
		fakeJournalctl(t, "cat <<'E'\n"+entry(1)+"\nnoise\n{\"__CURSOR\":\"s=9\",\"MESSAGE\":\""+long+"\"}\n"+entry(2)+"\nE\n")
		var got []string
		err := ReadJournal(t.Context(), JournalQuery{Units: []string{"web.service"}}, func(e JournalEntry) error {
			got = append(got, e.Message)
			return nil
		})
		if want := []string{"m1", "m2"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
	})
	t.Run("followed until canceled", func(t *testing.T) {
		fakeJournalctl(t, has+"echo '"+entry(1)+"'\nexec sleep 600\n")
		ctx, cancel := context.WithCancel(t.Context())
		err := ReadJournal(ctx, JournalQuery{Units: []string{"web.service"}, Follow: true}, func(JournalEntry) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
	})
	t.Run("reader has enough", func(t *testing.T) {
		fakeJournalctl(t, has+"while echo '"+entry(1)+"'; do :; done\nexec sleep 600\n")
		enough := errors.New("enough")
		err := ReadJournal(t.Context(), JournalQuery{Units: []string{"web.service"}, Follow: true}, func(JournalEntry) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("got %v, want %v", err, enough)
		}
	})
	// Written for people only, journalctl tells why it has nothing.
	empty := func(says string) string {
		return "case $* in *--output=short*) echo '-- No entries --'; echo '" + says + "' >&2;; *--follow*) exec sleep 600;; esac\n"
	}
	for _, tt := range []struct {
		name, says string
		q          JournalQuery
		want       error
	}{
		{"no entries", "", JournalQuery{}, ErrNoEntries},
		{"none since the cursor", "", JournalQuery{AfterCursor: "s=1"}, nil},
		{"no journal", "No journal files were found.", JournalQuery{}, ErrNoJournal},
		{"no journal to follow", "No journal files were found.", JournalQuery{Follow: true}, ErrNoJournal},
		{"part of it", "Hint: You are currently not seeing messages from other users and the system.", JournalQuery{}, ErrPartJournal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fakeJournalctl(t, empty(tt.says))
			tt.q.Units = []string{"web.service"}
			err := ReadJournal(t.Context(), tt.q, func(JournalEntry) error { return nil })
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("denied", func(t *testing.T) {
		fakeJournalctl(t, "case $* in *--output=short*) echo 'No journal files were opened due to insufficient permissions.' >&2;; esac\nexit 1\n")
		err := ReadJournal(t.Context(), JournalQuery{Units: []string{"web.service"}}, func(JournalEntry) error { return nil })
		if !errors.Is(err, ErrNoJournal) {
			t.Errorf("got %v, want %v", err, ErrNoJournal)
		}
	})
	t.Run("refused", func(t *testing.T) {
		fakeJournalctl(t, "echo 'Failed to open journal' >&2\nexit 1\n")
		err := ReadJournal(t.Context(), JournalQuery{Units: []string{"web.service"}}, func(JournalEntry) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "exit status 1: Failed to open journal") {
			t.Errorf("got %v, want journalctl's own words", err)
		}
	})
	t.Run("not installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		err := ReadJournal(t.Context(), JournalQuery{Units: []string{"web.service"}}, func(JournalEntry) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "journalctl") {
			t.Errorf("got %v, want the missing program named", err)
		}
	})
}
