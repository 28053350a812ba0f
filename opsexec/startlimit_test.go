package opsexec

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// systemdLimit counts starts as PID 1 does: a window begins with a start, and
// more than burst starts in it hit the limit.
type systemdLimit struct {
	begin time.Time
	n     int
}

func (l *systemdLimit) hit(burst int, interval time.Duration) bool {
	if now := time.Now(); l.begin.IsZero() || now.Sub(l.begin) > interval {
		l.begin, l.n = now, 0
	}
	l.n++
	return l.n > burst
}

// However restarts are asked for, and however long their stops take, PID 1
// never counts as many starts as it allows: one is left to somebody else.
func TestStartBudgetStaysBelowLimit(t *testing.T) {
	for _, stop := range []time.Duration{0, 30 * time.Millisecond, 700 * time.Millisecond, 9 * time.Second} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := systemdLimit{}
				slow := false
				f := &fakeUnits{unit: Unit{
					Name: "web.service", LoadState: "loaded", ActiveState: "active", InvocationID: "inv1",
					StartLimitBurst: 5, StartLimitInterval: 10 * time.Second, TimeoutStart: time.Minute, TimeoutStop: time.Minute,
				}}
				f.restart = func(f *fakeUnits, ch chan<- string) error {
					d := stop
					if slow = !slow; !slow {
						d = 0 // starts get closer to each other than their requests
					}
					return job(d, func(u *Unit) {
						if limit.hit(4, 10*time.Second) {
							t.Error("start limit hit")
						}
						up(u)
					}, "done")(f, ch)
				}
				budget := &StartBudget{}
				ok, busy := 0, 0
				for range 200 {
					switch r := RestartUnit(t.Context(), f, "web.service", RestartOptions{Budget: budget, Settle: time.Millisecond}); r.Status {
					case RestartOK:
						ok++
					case RestartBusy:
						busy++
						if !strings.Contains(r.Summary, "possible again in ") {
							t.Fatalf("refusal does not say when: %s", r.Summary)
						}
						time.Sleep(77 * time.Millisecond)
					default:
						t.Fatal(r.Summary)
					}
				}
				if ok < 5 || (stop < time.Second && busy == 0) {
					t.Errorf("%d restarted and %d refused, want some of both", ok, busy)
				}
			})
		})
	}
}

// A start that systemd refused does not count; one that it may still make does.
func TestRestartUnitBudget(t *testing.T) {
	u := Unit{
		Name: "web.service", LoadState: "loaded", ActiveState: "active", InvocationID: "inv1",
		StartLimitBurst: 2, StartLimitInterval: 10 * time.Second, TimeoutStop: 30 * time.Second, TimeoutStart: 30 * time.Second,
	}
	t.Run("refused", func(t *testing.T) {
		f := &fakeUnits{unit: u, restart: func(*fakeUnits, chan<- string) error { return ErrNotAuthorized }}
		budget := &StartBudget{}
		for range 3 {
			if r := RestartUnit(t.Context(), f, "web.service", RestartOptions{Budget: budget}); !errors.Is(r.Err, ErrNotAuthorized) {
				t.Fatalf("%s: %s, want %v", r.Status, r.Summary, ErrNotAuthorized)
			}
		}
	})
	t.Run("pending", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeUnits{unit: u, restart: job(55*time.Second, up, "done")}
			o := RestartOptions{Budget: &StartBudget{}, Timeout: 5 * time.Second}
			if r := RestartUnit(t.Context(), f, "web.service", o); r.Status != RestartPending {
				t.Fatal(r.Status, r.Summary)
			}
			time.Sleep(56 * time.Second) // a minute since the request, seconds since the start
			f.restart = job(0, up, "done")
			if r := RestartUnit(t.Context(), f, "web.service", o); r.Status != RestartBusy {
				t.Errorf("%s: %s, want busy", r.Status, r.Summary)
			}
			time.Sleep(20 * time.Second)
			if r := RestartUnit(t.Context(), f, "web.service", o); r.Status != RestartOK {
				t.Errorf("%s: %s, want ok", r.Status, r.Summary)
			}
		})
	})
}

func TestStartBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := Unit{Name: "web.service", StartLimitBurst: 3, StartLimitInterval: 10 * time.Second}
		b := &StartBudget{}
		take := func(u Unit, want bool, wantAgain time.Duration) *start {
			t.Helper()
			s, again := b.take(u)
			if (s != nil) != want || again != wantAgain {
				t.Fatalf("got %v, again in %v, want %v, %v", s != nil, again, want, wantAgain)
			}
			return s
		}
		first := take(u, true, 0)
		first.end(0)
		time.Sleep(4 * time.Second)
		second := take(u, true, 0)
		take(u, false, 6*time.Second)
		take(Unit{Name: "agents.service", StartLimitBurst: 1, StartLimitInterval: time.Second}, true, 0) // burst 1: one all the same
		take(Unit{Name: "proxy.service", StartLimitInterval: time.Second}, true, 0)                      // no limit
		second.unused()
		third := take(u, true, 0)
		third.end(5 * time.Second) // PID 1 may go on with it until then
		time.Sleep(7 * time.Second)
		fourth := take(u, true, 0)
		fourth.end(0)
		take(u, false, 8*time.Second)
		time.Sleep(8*time.Second + 1)
		take(u, true, 0)

		var none *StartBudget
		for range 100 {
			if s, _ := none.take(u); s == nil {
				t.Fatal("no budget refused a start")
			} else {
				s.end(0)
			}
		}
	})
}
