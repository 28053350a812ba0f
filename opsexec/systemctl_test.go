package opsexec

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answers is an Exec that always gives one answer and keeps what it was asked.
type answers struct {
	res Result
	err error
	got Cmd
}

func (a *answers) exec(_ context.Context, cmd Cmd) (Result, error) {
	a.got = cmd
	return a.res, a.err
}

// As printed by systemctl 252.
const showWeb = `Id=web.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
InvocationID=0123456789abcdef0123456789abcdef
MainPID=4711
NRestarts=2
Job=815
ActiveEnterTimestampMonotonic=1
ExecMainCode=2
ExecMainStatus=9
StartLimitBurst=5
StartLimitIntervalUSec=10s
TimeoutStartUSec=1min 30s
TimeoutStopUSec=infinity
`

func TestSystemctlShow(t *testing.T) {
	a := &answers{res: Result{Output: showWeb}}
	got, err := Systemctl{a.exec}.Show(t.Context(), "web")
	want := Unit{
		Name: "web.service", LoadState: "loaded", ActiveState: "active", SubState: "running", Result: "success",
		InvocationID: "0123456789abcdef0123456789abcdef", MainPID: 4711, NRestarts: 2, Job: 815,
		ActiveEnter: got.ActiveEnter, Exit: "signal 9 (killed)",
		StartLimitBurst: 5, StartLimitInterval: 10 * time.Second, TimeoutStart: 90 * time.Second,
	}
	if got != want || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	checkActiveSinceBoot(t, got)
	args := strings.Join(a.got.Argv, " ")
	if !strings.HasPrefix(args, "systemctl --no-ask-password ") || !strings.HasSuffix(args, " -- web.service") {
		t.Errorf("ran %q", args)
	}
	a.res.Output = "garbage"
	if _, err := (Systemctl{a.exec}).Show(t.Context(), "web"); err == nil {
		t.Error("garbage: no error")
	}
}

func TestSystemctlRestart(t *testing.T) {
	failed := errors.New("systemctl restart: exit status 1")
	tests := map[string]struct {
		unit, output string
		err          error
		timedOut     bool
		wantErr      error // of Units.Restart
		wantOK       bool  // of SystemctlRestart
		want         string
	}{
		"works":      {unit: "web", wantOK: true, want: "web.service: restarted in 0s"},
		"unknown":    {unit: "web", output: "Failed to restart web.service: Unit web.service not found.\n", err: failed, wantErr: ErrNoSuchUnit, want: "web.service: systemctl restart: exit status 1"},
		"masked":     {unit: "web", output: "Failed to restart web.service: Unit web.service is masked.\n", err: failed, wantErr: ErrUnitMasked, want: "exit status 1"},
		"polkit":     {unit: "web", output: "Failed to restart web.service: Interactive authentication required.\n", err: failed, wantErr: ErrNotAuthorized, want: "exit status 1"},
		"denied":     {unit: "web", output: "Failed to restart web.service: Access denied\n", err: failed, wantErr: ErrNotAuthorized, want: "exit status 1"},
		"no bus":     {unit: "web", output: "Failed to connect to bus: No such file or directory\n", err: failed, wantErr: ErrBusLost, want: "exit status 1"},
		"slow":       {unit: "web", err: failed, timedOut: true, wantErr: ErrBusLost, want: "not restarted within 20s, systemd is still at it"},
		"an option":  {unit: "--help", wantErr: errAny, want: `"--help" is not a unit's name`},
		"a pattern":  {unit: "*", wantErr: errAny, want: `"*" is not a unit's name`},
		"empty":      {unit: "", wantErr: errAny, want: "is not a unit's name"},
		"other type": {unit: "app.target", wantOK: true, want: "app.target: restarted"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			a := &answers{res: Result{Output: tt.output, TimedOut: tt.timedOut}, err: tt.err}
			ch, err := Systemctl{a.exec}.Restart(t.Context(), tt.unit, true)
			switch {
			case tt.wantErr == nil && (err != nil || cap(ch) != 1):
				t.Errorf("Restart: %v, %d; want a buffered channel", err, cap(ch))
			case tt.wantErr == errAny && err == nil, tt.wantErr != nil && tt.wantErr != errAny && !errors.Is(err, tt.wantErr):
				t.Errorf("Restart: error %v, want %v", err, tt.wantErr)
			}
			if err == nil && !strings.Contains(strings.Join(a.got.Argv, " "), " try-restart --no-block -- ") {
				t.Errorf("ran %q", a.got.Argv)
			}
			ok, summary := SystemctlRestart(t.Context(), a.exec, tt.unit, 0)
			if ok != tt.wantOK || !strings.Contains(summary, tt.want) {
				t.Errorf("SystemctlRestart = %v, %q\nwant %v, %q", ok, summary, tt.wantOK, tt.want)
			}
		})
	}
}

var errAny = errors.New("any error")

func TestParseSpan(t *testing.T) {
	tests := map[string]time.Duration{
		"1min 30s": 90 * time.Second, "10s": 10 * time.Second, "500ms": 500 * time.Millisecond, "1.5s": 1500 * time.Millisecond,
		"1w 2d 3h": 219 * time.Hour, "infinity": 0, "0": 0, "100us": 100 * time.Microsecond, "1month": 2629800 * time.Second,
	}
	for in, want := range tests {
		if got, err := parseSpan(in); got != want || err != nil {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "10", "s", "-1s", "1s30", "1e9s"} {
		if got, err := parseSpan(in); err == nil {
			t.Errorf("parseSpan(%q) = %v, want an error", in, got)
		}
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add(showWeb)
	f.Add("TimeoutStopUSec=999999999999y\nJob=-1\nMainPID=x\n=\n")
	f.Fuzz(func(t *testing.T, out string) {
		u := parseShow(out)
		if u.TimeoutStart < 0 || u.TimeoutStop < 0 || u.StartLimitInterval < 0 {
			t.Errorf("negative time span: %+v", u)
		}
	})
}

// checkActiveSinceBoot checks that a unit that is active since the system's
// monotonic clock began is that old.
func checkActiveSinceBoot(t *testing.T, u Unit) {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	if age := time.Since(u.ActiveEnter); u.ActiveEnter.IsZero() || age > time.Duration(now.Nano()) || age < time.Duration(now.Nano())-time.Minute {
		t.Errorf("active for %v; want %v", age, time.Duration(now.Nano()))
	}
	if got := OfMonotonic(uint64(now.Nano()/1000) + 1e12); !got.IsZero() {
		t.Errorf("a moment to come is %v; want the zero time", got)
	}
}
