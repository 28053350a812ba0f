package opsexec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeUnits is one scripted unit.
type fakeUnits struct {
	// restart is what a job does: it changes the unit by after, and announces
	// the job's result.
	restart func(f *fakeUnits, result chan<- string) error

	mu       sync.Mutex
	unit     Unit
	away     bool // the bus is lost
	restarts int
	tries    int // of those, with try
}

func (f *fakeUnits) Show(context.Context, string) (Unit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return Unit{}, ErrBusLost
	}
	return f.unit, nil
}

func (f *fakeUnits) Restart(_ context.Context, _ string, try bool) (<-chan string, error) {
	f.mu.Lock()
	f.restarts++
	if try {
		f.tries++
	}
	f.mu.Unlock()
	ch := make(chan string, 1)
	if err := f.restart(f, ch); err != nil {
		return nil, err
	}
	return ch, nil
}

// set changes the unit now, after changes it later.
func (f *fakeUnits) set(change func(u *Unit)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.unit)
}

func (f *fakeUnits) after(d time.Duration, change func(u *Unit)) {
	time.AfterFunc(d, func() { f.set(change) })
}

// up is a fresh invocation that runs.
func up(u *Unit) {
	n := 0
	fmt.Sscanf(u.InvocationID, "inv%d", &n)
	u.InvocationID = fmt.Sprintf("inv%d", n+1)
	u.ActiveState, u.SubState, u.Result, u.Job, u.NRestarts, u.MainPID = "active", "running", "success", 0, 0, 100+n
}

func deactivating(u *Unit) { u.ActiveState, u.SubState, u.Job = "deactivating", "stop-sigterm", 7 }
func stopped(u *Unit)      { u.ActiveState, u.SubState, u.Job = "inactive", "dead", 0 }
func forgotten(u *Unit)    { stopped(u); u.InvocationID = "" }
func died(u *Unit) {
	u.ActiveState, u.SubState, u.Result, u.Exit, u.Job = "failed", "failed", "exit-code", "exit status 3", 0
}

// job is a restart that takes d and ends with result after the change.
func job(d time.Duration, change func(*Unit), result string) func(*fakeUnits, chan<- string) error {
	return func(f *fakeUnits, ch chan<- string) error {
		f.set(deactivating)
		time.AfterFunc(d, func() {
			f.set(change)
			if result != "" {
				ch <- result
			}
		})
		return nil
	}
}

func TestRestartUnit(t *testing.T) {
	active := func(u *Unit) { up(u) }
	fails := func(err error) func(*fakeUnits, chan<- string) error {
		return func(*fakeUnits, chan<- string) error { return err }
	}
	must := func(t *testing.T) func(*fakeUnits, chan<- string) error {
		return func(*fakeUnits, chan<- string) error {
			t.Error("a job was queued")
			return errors.New("no")
		}
	}
	for _, tt := range []struct {
		name    string
		before  func(u *Unit)
		restart func(*fakeUnits, chan<- string) error // nil: must not be called
		o       RestartOptions
		begin   func(f *fakeUnits) // runs along

		want     RestartStatus
		err      error
		summary  string // part of it
		took     time.Duration
		journal  string // invocation whose journal is asked for
		restarts int
	}{
		{
			name: "ok", before: active, restart: job(4*time.Second, up, "done"),
			want: RestartOK, summary: "web.service: restarted in 4s", took: 6 * time.Second, restarts: 1,
		},
		{
			name: "own settle time", before: active, restart: job(time.Second, up, "done"), o: RestartOptions{Settle: 30 * time.Second},
			want: RestartOK, took: 31 * time.Second, restarts: 1,
		},
		{
			name: "reloading is up", before: active, restart: job(time.Second, func(u *Unit) { up(u); u.ActiveState = "reloading" }, "done"),
			want: RestartOK, took: 3 * time.Second, restarts: 1,
		},
		{
			name: "unknown unit", before: func(u *Unit) { u.LoadState, u.ActiveState = "not-found", "inactive" },
			want: RestartFailed, err: ErrNoSuchUnit, summary: "no such unit",
		},
		{
			name: "masked unit", before: func(u *Unit) { active(u); u.LoadState = "masked" },
			want: RestartFailed, err: ErrUnitMasked, summary: "masked",
		},
		{
			name: "broken unit file", before: func(u *Unit) { active(u); u.LoadState = "bad-setting" },
			want: RestartFailed, summary: "systemd-analyze verify web.service",
		},
		{
			name: "not authorized", before: active, restart: fails(fmt.Errorf("%w: interactive authorization required", ErrNotAuthorized)),
			want: RestartFailed, err: ErrNotAuthorized, restarts: 1,
			summary: "no polkit rule allows org.freedesktop.systemd1.manage-units to ",
		},
		{name: "stopped", before: stopped, want: RestartSkipped, summary: "it is stopped"},
		{name: "stopped, failed included", before: stopped, o: RestartOptions{IncludeFailed: true}, want: RestartSkipped, summary: "it is stopped"},
		{name: "failed", before: died, want: RestartSkipped, summary: "it has failed (exit status 3 (failed))"},
		{
			name: "failed included", before: died, o: RestartOptions{IncludeFailed: true}, restart: job(time.Second, up, "done"),
			want: RestartOK, took: 3 * time.Second, restarts: 1,
		},
		{
			name: "crash loop", before: func(u *Unit) { active(u); u.ActiveState, u.SubState, u.NRestarts = "activating", "auto-restart", 9 },
			restart: job(time.Second, up, "done"), want: RestartOK, took: 3 * time.Second, restarts: 1,
		},
		{
			name: "stopped between look and job", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error { f.set(stopped); ch <- "done"; return nil },
			want:    RestartSkipped, summary: "stopped meanwhile", restarts: 1,
		},
		{
			name: "stopped between look and job, forgotten", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error { f.set(forgotten); ch <- "done"; return nil },
			want:    RestartSkipped, summary: "stopped meanwhile", restarts: 1,
		},
		{
			name: "being stopped, then forgotten", before: func(u *Unit) { active(u); deactivating(u) },
			begin: func(f *fakeUnits) { f.after(1500*time.Millisecond, forgotten) },
			want:  RestartSkipped, summary: "it is stopped", took: 2 * time.Second,
		},
		{
			name: "being stopped, then stopped", before: func(u *Unit) { active(u); deactivating(u) },
			begin: func(f *fakeUnits) { f.after(1500*time.Millisecond, stopped) },
			want:  RestartSkipped, summary: "it is stopped", took: 2 * time.Second,
		},
		{
			name: "being stopped for ever", before: func(u *Unit) { active(u); deactivating(u) }, o: RestartOptions{Timeout: 10 * time.Second},
			want: RestartBusy, summary: "being stopped", took: 8 * time.Second,
		},
		{
			name: "restarted by another", before: func(u *Unit) { active(u); deactivating(u) },
			begin: func(f *fakeUnits) { f.after(1500*time.Millisecond, up) },
			want:  RestartOK, took: 4 * time.Second,
		},
		{
			name: "dies after start", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(up)
				ch <- "done"
				f.after(50*time.Millisecond, died)
				return nil
			},
			want: RestartFailed, summary: "died after it was started: exit status 3 (failed)", took: 2 * time.Second, journal: "inv2", restarts: 1,
		},
		{
			name: "missing program", before: active, restart: job(0, func(u *Unit) { up(u); died(u) }, "done"),
			want: RestartFailed, summary: "died right after it was started: exit status 3", journal: "inv2", restarts: 1,
		},
		{
			name: "dies and is started again", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(up)
				ch <- "done"
				f.after(time.Second, func(u *Unit) { up(u); u.NRestarts = 1 })
				return nil
			},
			want: RestartFailed, summary: "systemd has started it again", took: 2 * time.Second, journal: "inv2", restarts: 1,
		},
		{
			name: "dies at once, waits for its automatic restart", before: active,
			restart: job(0, func(u *Unit) { up(u); u.ActiveState, u.SubState, u.Result = "activating", "auto-restart", "exit-code" }, "done"),
			want:    RestartFailed, summary: "exit-code (activating, auto-restart)", journal: "inv2", restarts: 1,
		},
		{
			name: "restarted again while it settles", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(up)
				ch <- "done"
				f.after(time.Second, deactivating)
				f.after(2500*time.Millisecond, up)
				return nil
			},
			want: RestartOK, took: 5 * time.Second, restarts: 1,
		},
		{
			name: "restarted again unseen while it settles", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(up)
				ch <- "done"
				f.after(1500*time.Millisecond, up)
				return nil
			},
			want: RestartOK, took: 4 * time.Second, restarts: 1,
		},
		{
			name: "up with a bad result", before: active, restart: job(0, func(u *Unit) { up(u); u.Result = "watchdog" }, "done"),
			want: RestartFailed, summary: "watchdog", took: 2 * time.Second, journal: "inv2", restarts: 1,
		},
		{
			name: "job failed", before: active, restart: job(3*time.Second, func(u *Unit) { up(u); died(u) }, "failed"),
			want: RestartFailed, summary: `systemd says "failed": exit status 3`, took: 3 * time.Second, journal: "inv2", restarts: 1,
		},
		{
			name: "start limit hit", before: active, restart: job(0, func(u *Unit) { died(u); u.Result = "start-limit-hit" }, "failed"),
			want: RestartFailed, summary: "systemctl reset-failed web.service", journal: "inv1", restarts: 1,
		},
		{
			name: "dependency failed", before: active, restart: job(time.Second, stopped, "dependency"),
			want: RestartFailed, summary: `"dependency"`, took: time.Second, journal: "inv1", restarts: 1,
		},
		{
			name: "done, but old process", before: active, restart: job(time.Second, func(u *Unit) { up(u); u.InvocationID = "inv1" }, "done"),
			want: RestartFailed, summary: "old process still runs", took: time.Second, journal: "inv1", restarts: 1,
		},
		{
			name: "canceled by a stop", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(deactivating)
				time.AfterFunc(time.Second, func() { ch <- "canceled" })
				f.after(1500*time.Millisecond, stopped)
				return nil
			},
			want: RestartFailed, summary: "canceled by a stop of the unit", took: 2 * time.Second, journal: "inv1", restarts: 1,
		},
		{
			name: "canceled by a stop and started again", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(deactivating)
				time.AfterFunc(time.Second, func() { ch <- "canceled" })
				f.after(1500*time.Millisecond, up)
				return nil
			},
			want: RestartOK, took: 4 * time.Second, restarts: 1,
		},
		{
			name: "canceled, stopped, and queued to start", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error {
				f.set(func(u *Unit) { stopped(u); u.Job = 8 })
				ch <- "canceled"
				f.after(1500*time.Millisecond, up)
				return nil
			},
			want: RestartOK, took: 4 * time.Second, restarts: 1,
		},
		{
			name: "canceled, untouched", before: active,
			restart: func(f *fakeUnits, ch chan<- string) error { ch <- "canceled"; return nil },
			want:    RestartFailed, summary: "canceled by another job; the old process still runs", journal: "inv1", restarts: 1,
		},
		{
			name: "SIGTERM ignored, verdict due before", before: active, restart: job(90*time.Second, up, "done"), o: RestartOptions{Timeout: 20 * time.Second},
			want: RestartPending, summary: "still restarting it after 18s (deactivating, stop-sigterm)", took: 18 * time.Second, restarts: 1,
		},
		{
			name: "verdict due before the first poll", before: active, restart: job(90*time.Second, up, "done"), o: RestartOptions{Timeout: time.Second},
			want: RestartPending, summary: "(deactivating, stop-sigterm)", took: 500 * time.Millisecond, restarts: 1,
		},
		{
			name: "SIGTERM ignored, then the truth", before: active, restart: job(90*time.Second, up, "done"),
			want: RestartOK, summary: "restarted in 1m30s", took: 92 * time.Second, restarts: 1,
		},
		{
			name: "channel never fires", before: active, restart: job(1500*time.Millisecond, up, ""),
			want: RestartOK, took: 2*time.Second + confirm + 2*time.Second, restarts: 1,
		},
		{
			name: "channel never fires, bus away", before: active,
			restart: func(f *fakeUnits, _ chan<- string) error {
				f.set(func(u *Unit) { deactivating(u); f.away = true })
				f.after(1500*time.Millisecond, up)
				f.after(2500*time.Millisecond, func(*Unit) { f.away = false })
				return nil
			},
			want: RestartOK, took: 3*time.Second + confirm + 2*time.Second, restarts: 1,
		},
		{
			name: "bus lost in the call, job queued", before: active,
			restart: func(f *fakeUnits, _ chan<- string) error {
				f.set(deactivating)
				f.after(1500*time.Millisecond, up)
				return ErrBusLost
			},
			want: RestartOK, took: 2*time.Second + confirm + 2*time.Second, restarts: 1,
		},
		{
			name: "bus lost in the call, job not queued", before: active, restart: fails(ErrBusLost),
			want: RestartFailed, summary: "no restart was seen", took: time.Second + confirm, journal: "inv1", restarts: 1,
		},
		{
			name: "bus lost for good", before: active,
			restart: func(f *fakeUnits, _ chan<- string) error { f.set(func(*Unit) { f.away = true }); return nil },
			o:       RestartOptions{Timeout: 20 * time.Second}, want: RestartPending, took: 18 * time.Second, restarts: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeUnits{restart: tt.restart, unit: Unit{
					Name: "web.service", LoadState: "loaded", TimeoutStop: 90 * time.Second, TimeoutStart: 90 * time.Second,
				}}
				if f.restart == nil {
					f.restart = must(t)
				}
				f.unit.InvocationID = "inv1"
				tt.before(&f.unit)
				f.unit.InvocationID = "inv1"
				if tt.begin != nil {
					tt.begin(f)
				}
				journal := ""
				tt.o.Journal = func(_ context.Context, unit, invocation string) []string {
					journal = invocation
					return []string{unit + " says why"}
				}
				t0 := time.Now()
				got := RestartUnit(t.Context(), f, "web.service", tt.o)
				took := time.Since(t0)
				time.Sleep(5 * time.Minute) // whatever was to come
				if got.Status != tt.want {
					t.Fatalf("status %s, want %s: %s", got.Status, tt.want, got.Summary)
				}
				if !strings.Contains(got.Summary, tt.summary) || !strings.HasPrefix(got.Summary, "web.service: ") {
					t.Errorf("summary %q, want %q in it", got.Summary, tt.summary)
				}
				if (got.Err != nil) != (tt.want == RestartFailed) || (tt.err != nil && !errors.Is(got.Err, tt.err)) {
					t.Errorf("error %v, want %v", got.Err, tt.err)
				}
				if tt.journal != "" {
					took -= journalLag
				}
				if took -= took % (5 * time.Millisecond); took != tt.took { // waits end a little late, see residue
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if journal != tt.journal || (len(got.Journal) > 0) != (journal != "") {
					t.Errorf("journal of %q asked for, want %q; got %v", journal, tt.journal, got.Journal)
				}
				if f.restarts != tt.restarts {
					t.Errorf("%d jobs queued, want %d", f.restarts, tt.restarts)
				}
				if wantTry := f.restarts == 1 && !(tt.o.IncludeFailed && tt.name == "failed included"); (f.tries == 1) != wantTry {
					t.Errorf("%d of %d jobs with try", f.tries, f.restarts)
				}
			})
		})
	}
}

func TestRestartUnitStateUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeUnits{away: true, restart: job(time.Second, up, "done"), unit: Unit{LoadState: "loaded", ActiveState: "active"}}
		got := RestartUnit(t.Context(), f, "web.service", RestartOptions{})
		if got.Status != RestartFailed || !errors.Is(got.Err, ErrBusLost) || f.restarts != 0 {
			t.Fatalf("got %+v after %d restarts, want failed by %v and none", got, f.restarts, ErrBusLost)
		}
		f.after(2500*time.Millisecond, func(*Unit) { f.away = false }) // dbus-daemon was restarting
		if got := RestartUnit(t.Context(), f, "web.service", RestartOptions{}); got.Status != RestartOK {
			t.Fatalf("bus back soon: %s: %s", got.Status, got.Summary)
		}
	})
}

// A daemon that is told to stop does not wait for the job, which goes on.
func TestRestartUnitContextEnds(t *testing.T) {
	for _, at := range []time.Duration{time.Second, 5 * time.Second} { // in the job, in the settle time
		synctest.Test(t, func(t *testing.T) {
			f := &fakeUnits{restart: job(4*time.Second, up, "done"), unit: Unit{LoadState: "loaded", ActiveState: "active"}}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(at, func() { cancel(errors.New("told to stop")) })
			t0 := time.Now()
			got := RestartUnit(ctx, f, "web.service", RestartOptions{})
			if took := time.Since(t0); got.Status != RestartPending || !strings.Contains(got.Summary, "told to stop") || took != at {
				t.Errorf("after %v: %s: %s, want pending at %v", took, got.Status, got.Summary, at)
			}
			time.Sleep(time.Minute)
		})
	}
}

func TestQueueRestart(t *testing.T) {
	for _, tt := range []struct {
		name string
		unit Unit
		job  error
		want error
	}{
		{"queued", Unit{LoadState: "loaded", ActiveState: "active"}, nil, nil},
		{"unknown", Unit{LoadState: "not-found"}, nil, ErrNoSuchUnit},
		{"not authorized", Unit{LoadState: "loaded"}, ErrNotAuthorized, ErrNotAuthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeUnits{unit: tt.unit, restart: func(*fakeUnits, chan<- string) error { return tt.job }}
			if err := QueueRestart(t.Context(), f, "self.service"); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestDoneTimeout(t *testing.T) {
	for _, tt := range []struct {
		stop, start, settle, want time.Duration
	}{
		{90 * time.Second, 90 * time.Second, 0, 185 * time.Second},
		{10 * time.Second, 4 * time.Minute, 10 * time.Second, 4*time.Minute + 23*time.Second},
		{90 * time.Second, 0, 0, 10*time.Minute + 95*time.Second},
		{0, 0, 0, 15 * time.Minute},
		{time.Hour, 90 * time.Second, 0, 10*time.Minute + 95*time.Second},
	} {
		if got := DoneTimeout(Unit{TimeoutStop: tt.stop, TimeoutStart: tt.start}, tt.settle); got != tt.want {
			t.Errorf("stop %v, start %v, settle %v: got %v, want %v", tt.stop, tt.start, tt.settle, got, tt.want)
		}
	}
}
