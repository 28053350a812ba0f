package opsexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sh is a command line for tests, whose processes can be found by their mark.
func sh(t *testing.T, script string) (cmd Cmd, mark string) {
	mark = "OPSEXEC_MARK=" + filepath.Base(t.TempDir()) + "-" + strings.ReplaceAll(t.Name(), "/", "-")
	t.Cleanup(func() { killMarked(mark) })
	return Cmd{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", mark}}, mark
}

// marked lists the live processes that have the mark in their environment.
func marked(mark string) []int {
	var found []int
	for _, pid := range pids() {
		env, err := os.ReadFile(procPath(pid, "environ"))
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), mark) {
			found = append(found, pid)
		}
	}
	return found
}

func killMarked(mark string) {
	for _, pid := range marked(mark) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// patience is how long a test waits for what must come, however slow the
// machine is. Nothing waits for it that passes.
const patience = time.Minute

// checkNoneLeft fails when a marked process is still there after a while: one
// that was killed takes a moment to be gone.
func checkNoneLeft(t *testing.T, mark string) {
	t.Helper()
	var left []int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = marked(mark); len(left) == 0 {
			return
		}
	}
	for _, pid := range left {
		t.Errorf("process left: %s", describe(pid))
	}
}

// eventually waits for an event that has no channel.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for: %s", what)
}

func exists(path ...string) func() bool {
	return func() bool { _, err := os.Stat(filepath.Join(path...)); return err == nil }
}

func TestOSExecRunsWhatItIsTold(t *testing.T) {
	t.Setenv("SG_SECRET", "canary")
	tests := map[string]struct {
		cmd     Cmd
		want    Result
		wantErr string
	}{
		"no shell":           {cmd: Cmd{Argv: []string{"/bin/echo", "$HOME", "; id", "*"}}, want: Result{Output: "$HOME ; id *\n"}},
		"environment":        {cmd: Cmd{Argv: []string{"/usr/bin/env"}, Env: []string{"A=1", "B=2"}}, want: Result{Output: "A=1\nB=2\n"}},
		"no environment":     {cmd: Cmd{Argv: []string{"/usr/bin/env"}}, want: Result{}},
		"looked up in PATH":  {cmd: Cmd{Argv: []string{"echo", "x"}, Env: []string{"PATH=/nowhere:/usr/bin:/bin"}}, want: Result{Output: "x\n"}},
		"directory":          {cmd: Cmd{Argv: []string{"/bin/pwd"}, Dir: "/usr"}, want: Result{Output: "/usr\n"}},
		"root by default":    {cmd: Cmd{Argv: []string{"/bin/pwd"}}, want: Result{Output: "/\n"}},
		"empty stdin":        {cmd: Cmd{Argv: []string{"/bin/cat"}}, want: Result{}},
		"both outputs":       {cmd: Cmd{Argv: []string{"/bin/sh", "-c", "echo out; echo err >&2"}}, want: Result{Output: "out\nerr\n"}},
		"exit code":          {cmd: Cmd{Argv: []string{"/bin/sh", "-c", "echo; echo fatal: no; echo more; exit 3"}}, want: Result{Output: "\nfatal: no\nmore\n", ExitCode: 3}, wantErr: "sh: exit status 3: fatal: no"},
		"ended by a signal":  {cmd: Cmd{Argv: []string{"/bin/sh", "-c", "kill -9 $$"}}, want: Result{ExitCode: -1}, wantErr: "sh: signal: killed"},
		"missing program":    {cmd: Cmd{Argv: []string{"nope", "x"}, Env: []string{"PATH=/usr/bin"}}, want: Result{ExitCode: -1}, wantErr: `nope: not started: "nope" is not installed in PATH=/usr/bin`},
		"not by our PATH":    {cmd: Cmd{Argv: []string{"sh", "-c", "true"}}, want: Result{ExitCode: -1}, wantErr: `"sh" is not installed in PATH=`},
		"relative PATH":      {cmd: Cmd{Argv: []string{"sh"}, Env: []string{"PATH=.:bin"}, Dir: "/"}, want: Result{ExitCode: -1}, wantErr: "not installed"},
		"relative program":   {cmd: Cmd{Argv: []string{"bin/echo", "x"}, Dir: "/usr"}, want: Result{Output: "x\n"}},
		"empty":              {cmd: Cmd{}, want: Result{ExitCode: -1}, wantErr: "command: not started: empty command"},
		"missing directory":  {cmd: Cmd{Argv: []string{"/bin/pwd"}, Dir: "/no/such"}, want: Result{ExitCode: -1}, wantErr: "pwd: not started: working directory: stat /no/such: no such file"},
		"git's subcommand":   {cmd: Cmd{Argv: []string{"/bin/git", "-c", "a=b", "-C", "x", "--no-pager", "fetch", "-q"}, Dir: "/no"}, want: Result{ExitCode: -1}, wantErr: "git fetch: not started"},
		"control characters": {cmd: Cmd{Argv: []string{"/bin/sh", "-c", `printf 'a\033[31mb\007\n'; exit 1`}}, want: Result{Output: "a\x1b[31mb\a\n", ExitCode: 1}, wantErr: "sh: exit status 1: ab"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			got, err := OSExec(t.Context(), tt.cmd)
			got.Duration = 0
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func TestOSExecKillsTheWholeGroup(t *testing.T) {
	deaf := `trap "" TERM; (trap "" TERM; sleep 300) & echo up; sleep 300; sleep 300`
	tests := map[string]struct {
		script   string
		timeout  time.Duration
		cancel   bool
		timedOut bool
		want     string
	}{
		"timeout, polite":       {script: "sleep 300 & echo up; wait", timeout: 100 * time.Millisecond, timedOut: true, want: "timed out after 100ms"},
		"timeout, deaf":         {script: deaf, timeout: 100 * time.Millisecond, timedOut: true, want: "timed out after 100ms"},
		"cancelled":             {script: "sleep 300 & echo up; wait", cancel: true, want: "context canceled"},
		"cancelled, deaf":       {script: deaf, cancel: true, want: "context canceled"},
		"leader ends by itself": {script: "sleep 300 & echo up", want: ""},
	}
	for name, tt := range tests {
		t.Run(strings.NewReplacer(" ", "_", ",", "").Replace(name), func(t *testing.T) {
			t.Parallel()
			cmd, mark := sh(t, tt.script)
			cmd.Timeout, cmd.Grace = tt.timeout, 300*time.Millisecond
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			got, err := OSExec(ctx, cmd)
			if got.TimedOut != tt.timedOut {
				t.Errorf("TimedOut = %v, want %v", got.TimedOut, tt.timedOut)
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if got.Duration > patience { // the sleeps take 300 s
				t.Errorf("took %v", got.Duration)
			}
			checkNoneLeft(t, mark)
		})
	}
}

// A git that gets SIGTERM removes its lock files: it must have the time to.
func TestOSExecTermComesBeforeKill(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := sh(t, `trap "echo tidied; exit 0" TERM; touch `+dir+`/up; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := startProcess(ctx, cmd) // the first half of OSExec
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trap", exists(dir, "up"))
	cancel()
	got, err := p.wait(ctx, cmd)
	if want := "tidied\n"; !strings.HasSuffix(got.Output, want) || err == nil {
		t.Errorf("output %q, error %v; want it to end with %q and an error", got.Output, err, want)
	}
}

// A grandchild outside the group that holds the pipe must not hang us.
func TestOSExecDoesNotWaitForPipeHolders(t *testing.T) {
	// It is killed with the group unless it has left it when the leader ends.
	dir := t.TempDir()
	cmd, mark := sh(t, "setsid sh -c 'touch "+dir+"/left; exec sleep 300' & until [ -e "+dir+"/left ]; do sleep 0.01; done; echo up")
	got, err := OSExec(t.Context(), cmd)
	if err != nil || got.Output != "up\n" {
		t.Errorf("output %q, error %v; want up", got.Output, err)
	}
	if got.Duration > patience {
		t.Errorf("took %v, want about %v", got.Duration, pipeWait)
	}
	if n := len(marked(mark)); n != 1 {
		t.Errorf("%d processes hold the pipe, want 1: the test does not test what it says", n)
	}
}

func TestOSExecBoundsMemory(t *testing.T) {
	const size = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := OSExec(t.Context(), Cmd{Argv: []string{"/usr/bin/head", "-c", fmt.Sprint(size), "/dev/zero"}})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Errorf("1 GiB of output cost %d bytes, want less than 2 MiB", used)
	}
	want := fmt.Sprintf("\n… %d bytes left out …\n", size-keepHead-keepTail)
	if !strings.Contains(got.Output, want) || len(got.Output) != keepHead+keepTail+len(want) {
		t.Errorf("output of %d bytes, want head, %q and tail", len(got.Output), want)
	}
}

func TestCappedOutputKeepsHeadAndTail(t *testing.T) {
	all := make([]byte, 3*(keepHead+keepTail)+17)
	for i := range all {
		all[i] = "0123456789abcdefghijklmnopqrstuvwxyz\n"[i%37]
	}
	for _, total := range []int{0, 1, keepHead, keepHead + 1, keepHead + keepTail, keepHead + keepTail + 1, len(all)} {
		for _, step := range []int{1, 7, 4096, keepHead + 3, keepTail + 5, len(all)} {
			o, text := &cappedOutput{}, all[:total]
			for chunk := range slices.Chunk(text, step) {
				if n, err := o.Write(chunk); n != len(chunk) || err != nil {
					t.Fatalf("Write = %d, %v, want %d", n, err, len(chunk))
				}
			}
			want := string(text)
			if left := total - keepHead - keepTail; left > 0 {
				want = fmt.Sprintf("%s\n… %d bytes left out …\n%s", text[:keepHead], left, text[total-keepTail:])
			}
			if o.String() != want {
				t.Errorf("%d bytes in steps of %d: kept %d bytes, want %d, or other ones", total, step, len(o.String()), len(want))
			}
		}
	}
}

// The command, and it alone, holds the lock when we no longer do.
func TestOSExecLockIsInherited(t *testing.T) {
	for _, inherit := range []bool{true, false} {
		t.Run(fmt.Sprintf("inherit=%v", inherit), func(t *testing.T) {
			dir := t.TempDir()
			c := Checkout{Dir: dir, Real: dir, GitDir: dir}
			l, err := OSTree{}.Lock(t.Context(), c, Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			cmd, _ := sh(t, "touch "+dir+"/up; until [ -e "+dir+"/end ]; do sleep 0.01; done")
			if inherit {
				cmd.Lock = l
			}
			p, err := startProcess(t.Context(), cmd) // the first half of OSExec
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the command's start", exists(dir, "up"))
			if err := l.Unlock(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			other, err := OSTree{}.Lock(ctx, c, Exclusive)
			if inherit != errors.Is(err, ErrLocked) {
				t.Errorf("while the command runs: error %v, want locked %v", err, inherit)
			}
			if inherit && !strings.Contains(fmt.Sprint(err), "sh (pid ") {
				t.Errorf("error %v does not name the holder", err)
			}
			if err == nil {
				other.Unlock()
			}
			write(t, "", dir, "end")
			if _, err := p.wait(t.Context(), cmd); err != nil {
				t.Error(err)
			}
			other, err = OSTree{}.Lock(t.Context(), c, Exclusive)
			if err != nil {
				t.Fatalf("after the command: %v", err)
			}
			other.Unlock()
		})
	}
}

func TestOSExecCancelledBeforeStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := OSExec(ctx, Cmd{Argv: []string{"/usr/bin/touch", filepath.Join(dir, "x")}})
	if !errors.Is(err, context.Canceled) || exists(dir, "x")() {
		t.Errorf("error %v, file made: %v; want canceled and no file", err, exists(dir, "x")())
	}
}

func TestChatLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"  plain\ttext\r\nnext  ", "plain text next"},
		{"\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\x00", "red end"},
		{"a\u202egnp.exe\u200b", "agnp.exe"},
		{"bad \xff utf8", "bad � utf8"},
		{"fetch https://user:hunter2@example.org/x.git failed", "fetch https://***@example.org/x.git failed"},
		{"ssh://deploy@example.org and me@example.org", "ssh://***@example.org and me@example.org"},
		{"the key is sesame, sesame!", "the key is ***, ***!"},
		{"the key is ses\x00a\u200bme", "the key is ***"},
		{strings.Repeat("é", MaxChatLine+1), strings.Repeat("é", MaxChatLine-1) + "…"},
	}
	for _, tt := range tests {
		if got := ChatLine(tt.in, "sesame", "a"); got != tt.want {
			t.Errorf("ChatLine(%q)\ngot  %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

func FuzzChatLine(f *testing.F) {
	f.Add("fetch https://u:p@h/x\x1b[2J\nnext", "sesame")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := ChatLine(text, secret)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 }) {
			t.Errorf("control characters in %q", got)
		}
		if n := len([]rune(got)); n > MaxChatLine {
			t.Errorf("%d runes", n)
		}
		if len(secret) >= 4 && !strings.Contains("***", secret) && strings.Contains(got, secret) {
			t.Errorf("secret %q in %q", secret, got)
		}
		if !bytes.Equal([]byte(got), []byte(strings.ToValidUTF8(got, ""))) {
			t.Errorf("bad UTF-8 in %q", got)
		}
	})
}
