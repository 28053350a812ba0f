package opsexec

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultSystemctlTimeout is the original's (seed).
const DefaultSystemctlTimeout = 20 * time.Second

// SystemctlRestart restarts a unit with the systemctl command and waits until
// systemd says that it is done, at most for timeout (0 means 20 s). It is the
// original's plain helper: "done" is no proof that the unit stays up, see
// [RestartUnit] for that. exec nil means [OSExec].
func SystemctlRestart(ctx context.Context, exec Exec, service string, timeout time.Duration) (ok bool, summary string) {
	if timeout <= 0 {
		timeout = DefaultSystemctlTimeout
	}
	unit, err := unitArg(service)
	if err != nil {
		return false, ChatLine(err.Error())
	}
	began := time.Now()
	res, err := Systemctl{Exec: exec}.run(ctx, timeout, "restart", "--", unit)
	switch {
	case res.TimedOut:
		return false, fmt.Sprintf("%s: not restarted within %v, systemd is still at it", unit, timeout)
	case err != nil:
		return false, ChatLine(fmt.Sprintf("%s: %v", unit, err))
	}
	return true, fmt.Sprintf("%s: restarted in %v", unit, time.Since(began).Round(100*time.Millisecond))
}

// Systemctl is [Units] by means of the systemctl command, for hosts whose bus
// cannot be reached. It needs systemd 247 or newer.
type Systemctl struct {
	Exec Exec // nil means OSExec
}

// systemctlLimit is how long a command that waits for nothing may take.
const systemctlLimit = 10 * time.Second

func (s Systemctl) run(ctx context.Context, limit time.Duration, args ...string) (Result, error) {
	run := s.Exec
	if run == nil {
		run = OSExec
	}
	return run(ctx, Cmd{
		Argv:    append([]string{"systemctl", "--no-ask-password", "--no-pager"}, args...),
		Env:     []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "SYSTEMD_COLORS=0"},
		Timeout: limit, Grace: time.Second,
	})
}

// Restart implements [Units]. The command does not tell how the job ends, so the
// channel stays silent: the unit's state has to be looked at.
func (s Systemctl) Restart(ctx context.Context, unit string, try bool) (<-chan string, error) {
	unit, err := unitArg(unit)
	if err != nil {
		return nil, err
	}
	verb := "restart"
	if try {
		verb = "try-restart"
	}
	if res, err := s.run(ctx, systemctlLimit, verb, "--no-block", "--", unit); err != nil {
		return nil, systemctlError(res, err)
	}
	return make(chan string, 1), nil
}

// systemctlError gives what systemctl says the names that [Units] promises.
func systemctlError(res Result, err error) error {
	says := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(res.Output, t) {
				return true
			}
		}
		return false
	}
	switch {
	case says(" not found.", "not loaded."):
		return fmt.Errorf("%w: %w", ErrNoSuchUnit, err)
	case says(" is masked."):
		return fmt.Errorf("%w: %w", ErrUnitMasked, err)
	case says("Access denied", "uthentication is required", "authentication required", "Permission denied"):
		return fmt.Errorf("%w: %w", ErrNotAuthorized, err)
	case res.TimedOut, says("Failed to connect to bus", "Connection reset", "Transport endpoint", "Connection timed out"):
		return fmt.Errorf("%w: %w", ErrBusLost, err)
	}
	return err
}

// shown are the properties of a unit that Show asks for.
var shown = strings.Join([]string{
	"Id", "LoadState", "ActiveState", "SubState", "Result", "InvocationID", "MainPID", "NRestarts", "Job",
	"ActiveEnterTimestampMonotonic", "ExecMainCode", "ExecMainStatus",
	"StartLimitBurst", "StartLimitIntervalUSec", "TimeoutStartUSec", "TimeoutStopUSec",
}, ",")

// Show implements [Units].
func (s Systemctl) Show(ctx context.Context, unit string) (Unit, error) {
	unit, err := unitArg(unit)
	if err != nil {
		return Unit{}, err
	}
	res, err := s.run(ctx, systemctlLimit, "show", "--property="+shown, "--", unit)
	if err != nil {
		return Unit{}, systemctlError(res, err)
	}
	u := parseShow(res.Output)
	if u.LoadState == "" {
		return Unit{}, fmt.Errorf("systemctl show %s: no state in its answer: %s", unit, excerpt(res.Output))
	}
	u.Name = unit
	return u, nil
}

// parseShow reads "systemctl show" output: NAME=value lines. A property that is
// missing or odd leaves its field zero.
func parseShow(out string) Unit {
	p := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			p[name] = value
		}
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(p[name])
		return n
	}
	span := func(name string) time.Duration {
		d, _ := parseSpan(p[name])
		return d
	}
	job, _ := strconv.ParseUint(p["Job"], 10, 32)
	u := Unit{
		Name: p["Id"], LoadState: p["LoadState"], ActiveState: p["ActiveState"], SubState: p["SubState"],
		Result: p["Result"], InvocationID: p["InvocationID"],
		MainPID: number("MainPID"), NRestarts: number("NRestarts"), Job: uint32(job),
		StartLimitBurst: number("StartLimitBurst"), StartLimitInterval: span("StartLimitIntervalUSec"),
		TimeoutStart: span("TimeoutStartUSec"), TimeoutStop: span("TimeoutStopUSec"),
		Exit: exitWords(number("ExecMainCode"), number("ExecMainStatus")),
	}
	µs, _ := strconv.ParseUint(p["ActiveEnterTimestampMonotonic"], 10, 64)
	u.ActiveEnter = OfMonotonic(µs)
	return u
}

// exitWords puts how a main process ended (CLD_EXITED, CLD_KILLED, CLD_DUMPED
// of waitid(2)) into words.
func exitWords(code, status int) string {
	switch code {
	case 1:
		return fmt.Sprintf("exit status %d", status)
	case 2, 3:
		return fmt.Sprintf("signal %d (%v)", status, syscall.Signal(status))
	}
	return ""
}

// spanUnits are the units that systemd prints time spans in (systemd.time(7)).
var spanUnits = map[string]time.Duration{
	"y": 31_557_600 * time.Second, "month": 2_629_800 * time.Second, "w": 7 * 24 * time.Hour, "d": 24 * time.Hour,
	"h": time.Hour, "min": time.Minute, "s": time.Second, "ms": time.Millisecond, "us": time.Microsecond,
}

var spanPart = regexp.MustCompile(`^([0-9]{1,12}(?:\.[0-9]{1,9})?)([a-z]+)$`)

// parseSpan reads a time span as systemd prints it ("1min 30s"); its infinity is
// opsexec's 0.
func parseSpan(s string) (time.Duration, error) {
	if s == "infinity" || s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, errors.New("empty time span")
	}
	total := 0.0
	for _, f := range strings.Fields(s) {
		m := spanPart.FindStringSubmatch(f)
		if m == nil || spanUnits[m[2]] == 0 {
			return 0, fmt.Errorf("time span %q: %q is not a number with a unit", s, f)
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, fmt.Errorf("time span %q: %w", s, err)
		}
		total += n * float64(spanUnits[m[2]])
	}
	if total > float64(1<<62) {
		return 0, nil // centuries: as good as infinite
	}
	return time.Duration(total), nil
}

var unitPattern = regexp.MustCompile(`^[A-Za-z0-9:_.\\][A-Za-z0-9:_.\\@-]{0,254}$`)

// unitArg checks a unit's name, so that it cannot be an option or a pattern, and
// adds the suffix that systemctl would.
func unitArg(unit string) (string, error) {
	if !unitPattern.MatchString(unit) {
		return "", fmt.Errorf("%q is not a unit's name", ChatLine(unit))
	}
	switch path.Ext(unit) {
	case ".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice", ".scope", ".device":
		return unit, nil
	}
	return unit + ".service", nil
}
