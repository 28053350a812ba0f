package systemd

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd/systemdtest"
)

// bus connects to the host's systemd and checks that nothing of the connection
// is left after the test.
func bus(t *testing.T, h *systemdtest.Host) *Bus {
	t.Helper()
	before := goleak.IgnoreCurrent()
	b := New(h.BusAddress)
	t.Cleanup(func() {
		b.Close()
		goleak.VerifyNone(t, before)
	})
	return b
}

// settle is short: no verdict here depends on what happens within it, see
// [deathwatch].
const settle = 300 * time.Millisecond

// restart restarts a unit. When that fails, its journal is read until all of
// says is in it.
func restart(t *testing.T, h *systemdtest.Host, units opsexec.Units, unit string, o opsexec.RestartOptions, says ...string) opsexec.RestartResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.Settle = settle
	o.Journal = func(ctx context.Context, unit, invocation string) (lines []string) {
		// Not by this context, which leaves a daemon 3 s: here each read starts
		// several programs.
		ctx = context.WithoutCancel(ctx)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			h.SyncJournal() // which does not wait for what a process has just said
			lines = opsexec.JournalLines(h.Exec, 8)(ctx, unit, invocation)
			text := strings.Join(lines, "\n")
			if !slices.ContainsFunc(says, func(s string) bool { return !strings.Contains(text, s) }) {
				return lines
			}
		}
		t.Errorf("%q is not all in the journal of %s:\n%s", says, unit, strings.Join(lines, "\n"))
		return lines
	}
	begin := time.Now()
	r := opsexec.RestartUnit(ctx, units, unit, o)
	t.Logf("%s after %v: %s", r.Status, time.Since(begin).Round(time.Millisecond), r.Summary)
	return r
}

// deathwatch is a Bus for units that die soon after their start: who looks again
// at an invocation that was up sees how it ended, however long that took.
type deathwatch struct {
	*Bus
	up string // invocation seen last
}

func (d *deathwatch) Show(ctx context.Context, unit string) (opsexec.Unit, error) {
	for ; ; time.Sleep(5 * time.Millisecond) {
		u, err := d.Bus.Show(ctx, unit)
		if err != nil || u.ActiveState != "active" || u.InvocationID != d.up {
			d.up = u.InvocationID
			return u, err
		}
	}
}

// unhurried is a Bus whose calls outlast their context: a verdict that is due
// soon is about the unit then, not about how soon the bus answers.
type unhurried struct {
	*Bus
	seen func(opsexec.Unit) // called with what each look finds
}

func (b unhurried) Restart(ctx context.Context, unit string, try bool) (<-chan string, error) {
	return b.Bus.Restart(context.WithoutCancel(ctx), unit, try)
}

func (b unhurried) Show(ctx context.Context, unit string) (opsexec.Unit, error) {
	u, err := b.Bus.Show(context.WithoutCancel(ctx), unit)
	if err == nil && b.seen != nil {
		b.seen(u)
	}
	return u, err
}

// await polls until the unit's state is as wanted.
func await(t *testing.T, b *Bus, unit, activeState string) opsexec.Unit {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		u, err := b.Show(t.Context(), unit)
		if err == nil && u.ActiveState == activeState {
			return u
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %q (%v), want %s", unit, u.ActiveState, err, activeState)
		}
	}
}

// What systemd says about a restart, and what is true.
func TestRestartVerdicts(t *testing.T) {
	h := systemdtest.Boot(t, map[string]string{
		"good.service":     unit(t, "READY_AFTER=50ms"),
		"slow.service":     unit(t, "READY_AFTER=1s"),
		"hangs.service":    unit(t, "HANG_IF=/run/hang"),
		"stopped.service":  unit(t, ""),
		"masked.service":   "/dev/null",
		"dies.service":     systemdtest.Service(t, "service", "Type=notify", "EnvironmentFile=-/run/dies.env"),
		"missing.service":  "[Service]\nExecStart=/run/program\n",
		"stubborn.service": unit(t, "TERM=ignore", "TimeoutStopSec=infinity"),
		"broken.service":   "[Service]\nType=exec\n",
	})
	b := bus(t, h)
	run := func(script string) {
		t.Helper()
		if out, err := h.Command(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	// As good as any other until it is replaced by nothing.
	run("printf '#!/bin/sh\\nexec sleep 600\\n' > /run/program && chmod +x /run/program")
	for _, u := range []string{"good", "slow", "hangs", "dies", "missing", "stubborn"} {
		h.Systemctl("start", u+".service")
	}
	run("rm /run/program; echo DIE_AFTER=50ms > /run/dies.env; touch /run/hang")

	check := func(t *testing.T, r opsexec.RestartResult, status opsexec.RestartStatus, err error, summary string) {
		t.Helper()
		if r.Status != status || !strings.Contains(r.Summary, summary) {
			t.Errorf("got %s: %s\nwant %s: …%s…", r.Status, r.Summary, status, summary)
		}
		if !wraps(r.Err, err) {
			t.Errorf("got error %v, want %v", r.Err, err)
		}
	}
	t.Run("good", func(t *testing.T) {
		r := restart(t, h, b, "good", opsexec.RestartOptions{}) // the suffix is systemd's to add
		check(t, r, opsexec.RestartOK, nil, "restarted in ")
		if id := h.InvocationID("good.service"); id == r.Before.InvocationID || id != r.After.InvocationID || len(id) != 32 {
			t.Errorf("invocation %s, reported %s → %s", id, r.Before.InvocationID, r.After.InvocationID)
		}
		if u := r.After; u.MainPID == 0 || u.StartLimitBurst != 5 || u.StartLimitInterval != 10*time.Second ||
			u.TimeoutStop != 90*time.Second || u.TimeoutStart != 90*time.Second || time.Since(u.ActiveEnter) > time.Minute {
			t.Errorf("read %+v", u)
		}
	})
	t.Run("dies after start", func(t *testing.T) {
		r := restart(t, h, &deathwatch{Bus: b}, "dies.service", opsexec.RestartOptions{}, "no port left", "status=3")
		check(t, r, opsexec.RestartFailed, nil, "exit status 3")
		check(t, restart(t, h, b, "dies.service", opsexec.RestartOptions{}), opsexec.RestartSkipped, nil, "it has failed")
		run("echo > /run/dies.env")
		check(t, restart(t, h, b, "dies.service", opsexec.RestartOptions{IncludeFailed: true}), opsexec.RestartOK, nil, "restarted")
	})
	t.Run("missing program", func(t *testing.T) {
		r := restart(t, h, &deathwatch{Bus: b}, "missing.service", opsexec.RestartOptions{}, "/run/program")
		check(t, r, opsexec.RestartFailed, nil, "exit status 203")
	})
	t.Run("by systemctl", func(t *testing.T) {
		units := opsexec.Systemctl{Exec: h.Exec}
		check(t, opsexec.RestartUnit(t.Context(), units, "good.service", opsexec.RestartOptions{Settle: settle}), opsexec.RestartOK, nil, "restarted")
		check(t, opsexec.RestartUnit(t.Context(), units, "stopped.service", opsexec.RestartOptions{Settle: settle}), opsexec.RestartSkipped, nil, "it is stopped")
		check(t, opsexec.RestartUnit(t.Context(), units, "unknown.service", opsexec.RestartOptions{Settle: settle}), opsexec.RestartFailed, opsexec.ErrNoSuchUnit, "no such unit")
	})
	t.Run("masked", func(t *testing.T) {
		check(t, restart(t, h, b, "masked.service", opsexec.RestartOptions{}), opsexec.RestartFailed, opsexec.ErrUnitMasked, "masked")
		if _, err := b.Restart(t.Context(), "masked.service", false); !wraps(err, opsexec.ErrUnitMasked) {
			t.Errorf("asked all the same: %v, want %v", err, opsexec.ErrUnitMasked)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		check(t, restart(t, h, b, "unknown.service", opsexec.RestartOptions{}), opsexec.RestartFailed, opsexec.ErrNoSuchUnit, "no such unit")
		if _, err := b.Restart(t.Context(), "unknown.service", false); !wraps(err, opsexec.ErrNoSuchUnit) {
			t.Errorf("asked all the same: %v, want %v", err, opsexec.ErrNoSuchUnit)
		}
	})
	t.Run("broken unit file", func(t *testing.T) {
		check(t, restart(t, h, b, "broken.service", opsexec.RestartOptions{}), opsexec.RestartFailed, nil, "systemd-analyze verify broken.service")
	})
	t.Run("no such name", func(t *testing.T) {
		for _, name := range []string{"--help", "a/b.service", "a b.service", ""} {
			if r := restart(t, h, b, name, opsexec.RestartOptions{}); r.Status != opsexec.RestartFailed {
				t.Errorf("%q: %s", name, r.Status)
			}
		}
	})
	t.Run("not authorized", func(t *testing.T) {
		h.Unit("asker.service", systemdtest.Service(t, "asker", "Type=oneshot", "StandardOutput=file:"+h.Dir+"/asker"))
		h.Systemctl("start", "asker.service")
		b, err := os.ReadFile(h.Dir + "/asker")
		if err != nil {
			t.Fatal(err)
		}
		got := string(b)
		if want := "failed good.service: not restarted: " + opsexec.ErrNotAuthorized.Error(); !strings.Contains(got, want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
	t.Run("stopped stays stopped", func(t *testing.T) {
		check(t, restart(t, h, b, "stopped.service", opsexec.RestartOptions{IncludeFailed: true}), opsexec.RestartSkipped, nil, "it is stopped")
		// Also when it is stopped between our look and our job.
		ch, err := b.Restart(t.Context(), "stopped.service", true)
		if err != nil {
			t.Fatal(err)
		}
		if r := <-ch; r != "done" || h.Property("stopped.service", "ActiveState") != "inactive" {
			t.Errorf("job %s, unit %s, want done and inactive", r, h.Property("stopped.service", "ActiveState"))
		}
	})
	t.Run("two at once", func(t *testing.T) {
		before := h.InvocationID("slow.service")
		results := make([]opsexec.RestartResult, 2)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i] = restart(t, h, b, "slow.service", opsexec.RestartOptions{}) })
		}
		wg.Wait()
		for _, r := range results {
			check(t, r, opsexec.RestartOK, nil, "restarted")
		}
		if x, y := results[0].After.InvocationID, results[1].After.InvocationID; x != y || x == before {
			t.Errorf("invocations %s and %s after %s, want the same new one", x, y, before)
		}
	})
	t.Run("stop during the restart", func(t *testing.T) {
		result := make(chan opsexec.RestartResult, 1)
		go func() { result <- restart(t, h, b, "hangs.service", opsexec.RestartOptions{}) }()
		await(t, b, "hangs.service", "activating")
		h.Systemctl("stop", "hangs.service")
		check(t, <-result, opsexec.RestartFailed, nil, "canceled by a stop")
		if s := h.Property("hangs.service", "ActiveState"); s == "active" {
			t.Errorf("unit is %s", s)
		}
	})
	t.Run("SIGTERM ignored", func(t *testing.T) {
		before := h.InvocationID("stubborn.service")
		check(t, restart(t, h, unhurried{Bus: b}, "stubborn.service", opsexec.RestartOptions{Timeout: time.Second}), opsexec.RestartPending, nil, "stop-sigterm")
		// It ends once the next restart has found it so.
		kill := sync.OnceFunc(func() { h.Systemctl("kill", "--signal=KILL", "stubborn.service") })
		r := restart(t, h, unhurried{b, func(u opsexec.Unit) {
			if u.SubState == "stop-sigterm" {
				kill()
			}
		}}, "stubborn.service", opsexec.RestartOptions{})
		check(t, r, opsexec.RestartOK, nil, "restarted in ")
		if r.After.InvocationID == before {
			t.Error("same invocation")
		}
	})
}

// systemd forgets to announce a job when it re-executes itself meanwhile, and
// when the bus restarts nobody could hear of it.
func TestRestartBusLost(t *testing.T) {
	h := systemdtest.Boot(t, map[string]string{"slow.service": unit(t, "READY_AFTER=1s"), "good.service": unit(t, "")})
	b := bus(t, h)
	h.Systemctl("start", "slow.service", "good.service")
	for _, tt := range []struct {
		name    string
		disturb []string
	}{
		{"daemon-reexec", []string{"daemon-reexec"}},
		{"dbus restarted", []string{"restart", "dbus.service"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			result := make(chan opsexec.RestartResult, 1)
			go func() { result <- restart(t, h, b, "slow.service", opsexec.RestartOptions{}) }()
			await(t, b, "slow.service", "activating")
			h.Systemctl(tt.disturb...)
			r := <-result
			if took := time.Since(r.After.ActiveEnter); r.Status != opsexec.RestartOK || took > 20*time.Second {
				t.Errorf("%s, %v after the unit was up: %s", r.Status, took, r.Summary)
			}
			if id := h.InvocationID("slow.service"); id != r.After.InvocationID || id == r.Before.InvocationID {
				t.Errorf("invocation %s, reported %s → %s", id, r.Before.InvocationID, r.After.InvocationID)
			}
			// And the next one goes over a new connection as if nothing had been.
			if r := restart(t, h, b, "good.service", opsexec.RestartOptions{}); r.Status != opsexec.RestartOK {
				t.Errorf("after it: %s", r.Summary)
			}
		})
	}
}

func TestStartLimit(t *testing.T) {
	// An hour is longer than the test may take on any machine: there, what the
	// limit does cannot depend on how long the restarts took.
	limit := func(interval string) string {
		return "[Unit]\nStartLimitBurst=5\nStartLimitIntervalSec=" + interval + "\n"
	}
	sleeps := "[Service]\nType=exec\nExecStart=/bin/sleep infinity\n" // restarts in milliseconds
	h := systemdtest.Boot(t, map[string]string{
		"kept.service":    limit("3s") + sleeps,
		"spent.service":   limit("1h") + sleeps,
		"ruined.service":  limit("1h") + sleeps,
		"crashes.service": limit("1h") + systemdtest.Service(t, "service", "Type=notify", "EnvironmentFile=-/run/crash.env", "Restart=always", "RestartSec=10ms"),
	})
	b := bus(t, h)
	// These starts are counted by systemd and not by us.
	h.Systemctl("start", "kept.service", "spent.service", "ruined.service", "crashes.service")
	budget := &opsexec.StartBudget{}
	again := func(unit string) opsexec.RestartResult {
		t.Helper()
		r := opsexec.RestartUnit(t.Context(), b, unit, opsexec.RestartOptions{Budget: budget, Settle: time.Millisecond})
		if r.Status != opsexec.RestartOK && r.Status != opsexec.RestartBusy {
			t.Fatalf("%s: %s", r.Status, r.Summary)
		}
		return r
	}
	up := func(unit string) {
		t.Helper()
		if u, err := b.Show(t.Context(), unit); err != nil || u.ActiveState != "active" || u.Result != "success" {
			t.Errorf("%s is %s (%s), %v", unit, u.ActiveState, u.Result, err)
		}
	}

	// Asked for again and again, over more than an interval. A slow machine may
	// never be refused one.
	count := map[opsexec.RestartStatus]int{}
	for count[opsexec.RestartOK] < 8 {
		r := again("kept.service")
		if count[r.Status]++; r.Status != opsexec.RestartOK {
			time.Sleep(40 * time.Millisecond)
		}
	}
	up("kept.service")
	t.Log(count)

	// An interval that does not end.
	for i := range 6 {
		want := opsexec.RestartOK
		if i >= 4 {
			want = opsexec.RestartBusy
		}
		if r := again("spent.service"); r.Status != want {
			t.Errorf("restart %d: %s: %s, want %s", i, r.Status, r.Summary, want)
		}
	}
	up("spent.service")

	// What it is for: without a budget the sixth start stops a healthy unit.
	var last opsexec.RestartResult
	for range 5 {
		last = opsexec.RestartUnit(t.Context(), b, "ruined.service", opsexec.RestartOptions{Settle: time.Millisecond})
	}
	if last.Status != opsexec.RestartFailed || last.After.Result != "start-limit-hit" || !strings.Contains(last.Summary, "reset-failed ruined.service") {
		t.Errorf("without a budget: %s: %s", last.Status, last.Summary)
	}

	// A crash loop that ends in the start limit.
	if out, err := h.Command(t.Context(), "sh", "-c", "echo DIE_AFTER=5ms > /run/crash.env").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if r := restart(t, h, &deathwatch{Bus: b}, "crashes.service", opsexec.RestartOptions{}); r.Status != opsexec.RestartFailed || !strings.Contains(r.Summary, "died") {
		t.Errorf("crash loop: %s: %s", r.Status, r.Summary)
	}
	await(t, b, "crashes.service", "failed")
}

// A process that restarts its own unit is heard before it ends, and its
// successor proves that it did.
func TestRestartOfOneself(t *testing.T) {
	h := systemdtest.Boot(t, nil)
	fifo := filepath.Join(h.Dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	// Both ends, so that neither opening nor a pause of the writers ends it.
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	h.Unit("self.service", systemdtest.Service(t, "self", "Type=notify", "Environment=FIFO="+fifo))
	h.Systemctl("start", "--no-block", "self.service")
	var said [][]string
	for s := bufio.NewScanner(f); len(said) < 3 && s.Scan(); {
		said = append(said, strings.Fields(s.Text()))
	}
	if len(said) != 3 || said[0][0] != "accepted" || said[1][0] != "terminated" || said[2][0] != "done" {
		t.Fatalf("heard %q, want accepted, terminated, done", said)
	}
	if old, now := said[0][1], said[2][1]; old == now || now != h.InvocationID("self.service") {
		t.Errorf("invocation %s → %s, systemd says %s", old, now, h.InvocationID("self.service"))
	}
}

// The journal is read and followed through the real journalctl.
func TestReadJournal(t *testing.T) {
	h := systemdtest.Boot(t, map[string]string{
		"talk.service": "[Service]\nType=oneshot\nSyslogIdentifier=talk\nExecStart=/bin/sh -c 'echo one; echo two >&2; printf \"\\033[31mred\\n\"'\n",
	})
	// journalctl, inside.
	inside := h.Command(t.Context(), "/usr/bin/journalctl")
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + strings.Join(inside.Args, " ") + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	q := opsexec.JournalQuery{Units: []string{"talk.service"}, Follow: true, Lines: -1}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	read := func(q opsexec.JournalQuery, until string) (got []opsexec.JournalEntry) {
		t.Helper()
		ctx, enough := context.WithCancel(ctx)
		defer enough()
		err := opsexec.ReadJournal(ctx, q, func(e opsexec.JournalEntry) error {
			got = append(got, e)
			if e.Message == until {
				enough()
			}
			return nil
		})
		if !wraps(err, context.Canceled) {
			t.Fatalf("%v after %+v", err, got)
		}
		return got
	}
	h.Systemctl("start", "--no-block", "talk.service")
	got := read(q, "\x1b[31mred")
	var own []opsexec.JournalEntry
	for _, e := range got {
		if e.Unit != "talk.service" {
			t.Errorf("entry of %q", e.Unit)
		}
		if e.Identifier == "talk" {
			own = append(own, e)
		}
	}
	if len(own) != 3 || own[0].Message != "one" || own[1].Message != "two" || own[0].Host != systemdtest.Hostname || own[0].PID == 0 || time.Since(own[0].Time) > time.Minute {
		t.Fatalf("read %+v", own)
	}
	// On from a cursor: nothing twice, nothing left out.
	q.AfterCursor, q.Lines = own[0].Cursor, 0
	if got := read(q, "\x1b[31mred"); got[0].Message != "two" {
		t.Errorf("after the cursor of one: %+v", got[0])
	}
}
