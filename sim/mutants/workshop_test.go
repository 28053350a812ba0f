package mutants

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/sim"
)

// realTimeSeed marks a run in real time against the redis-server. One seed is
// enough there: time itself is not repeatable.
const realTimeSeed = "1"

// workshop is the copy of the repository that bugs are planted in.
type workshop struct {
	ctx   context.Context
	repo  string // the copy
	bin   string // for what is built
	clean string // sgsim without a bug
	redis string // URL

	green map[string]func() (*result, error) // scenario → what clean code gives
}

func newWorkshop(t *testing.T, redis string) *workshop {
	t.Helper()
	w := &workshop{
		ctx: t.Context(), repo: filepath.Join(t.TempDir(), "repo"), bin: t.TempDir(), redis: redis,
		green: map[string]func() (*result, error){},
	}
	for name := range strings.SplitSeq(command(t, root, "git", "ls-files", "-z"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if name == "" || errors.Is(err, os.ErrNotExist) || err == nil && info.Mode()&os.ModeSymlink != 0 {
			continue // removed, and not committed yet; or Ansible's, whose links nothing in Go needs
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		to := filepath.Join(w.repo, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.clean = w.build(t, "sgsim")
	return w
}

// build builds sgsim from the copy as it is now. With -trimpath the build cache
// does not care where the copy lies.
func (w *workshop) build(t *testing.T, name string) string {
	t.Helper()
	exe := filepath.Join(w.bin, name)
	cmd := exec.CommandContext(w.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", exe, "./cmd/sgsim")
	cmd.Dir, cmd.Env = w.repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, out)
	}
	return exe
}

// plant builds sgsim with one bug, and takes the bug out of the copy again.
func (w *workshop) plant(t *testing.T, patch string) string {
	t.Helper()
	command(t, w.repo, "git", "apply", patchFile(t, patch))
	defer command(t, w.repo, "git", "apply", "-R", patchFile(t, patch))
	return w.build(t, patch)
}

// result is what sgsim says.
type result struct {
	exit   int
	runs   []sim.SeedRun
	events map[int]time.Duration // of the first seed that fails: Seq → when
	seed   int64                 // that seed
}

// healthy is a run of clean code; the same run is made once.
func (w *workshop) healthy(scenario, seeds string) func() (*result, error) {
	key := scenario + " " + seeds
	if w.green[key] == nil {
		f := func() (*result, error) { return w.sgsim(w.clean, scenario, seeds) }
		if seeds == realTimeSeed {
			f = inBackground(f)
		}
		w.green[key] = sync.OnceValues(f)
	}
	return w.green[key]
}

// inBackground begins f at once and returns what waits for it.
func inBackground(f func() (*result, error)) func() (*result, error) {
	var got *result
	var err error
	done := make(chan struct{})
	go func() { defer close(done); got, err = f() }()
	return func() (*result, error) { <-done; return got, err }
}

// sgsim runs a scenario on some seeds, in real time for realTimeSeed.
func (w *workshop) sgsim(exe, scenario, seeds string) (*result, error) {
	dir, err := os.MkdirTemp(w.bin, "run")
	if err != nil {
		return nil, err
	}
	events := filepath.Join(dir, "events.jsonl")
	args := []string{"run", "scenarios/" + scenario + ".yaml", "--seeds", seeds, "--recheck", "0", "--progress", "none", "-o", "jsonl"}
	if seeds == realTimeSeed {
		args = append(args, "--real-time", "--redis", w.redis)
	} else {
		args = append(args, "--events", events)
	}
	cmd := exec.CommandContext(w.ctx, exe, args...)
	cmd.Dir = w.repo
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its workers, then itself
	cmd.WaitDelay = 10 * time.Second
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	res := &result{exit: cmd.ProcessState.ExitCode(), events: map[int]time.Duration{}}
	for dec := json.NewDecoder(&out); dec.More(); {
		var s sim.SeedRun
		if err := dec.Decode(&s); err != nil {
			return nil, fmt.Errorf("sgsim %s: %w\n%s", strings.Join(args, " "), err, log.String())
		}
		res.runs = append(res.runs, s)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || len(res.runs) == 0 || res.exit > sim.ExitVacuous {
		return nil, fmt.Errorf("sgsim %s: exit code %d: %w\n%s", strings.Join(args, " "), res.exit, err, log.String())
	}
	slices.SortFunc(res.runs, func(a, b sim.SeedRun) int { return int(a.Seed - b.Seed) })
	if i := slices.IndexFunc(res.runs, func(s sim.SeedRun) bool { return s.Failed() }); i >= 0 {
		res.seed = res.runs[i].Seed
		res.readEvents(events)
	}
	return res, nil
}

// readEvents reads when things happened; without the file that is not known.
func (r *result) readEvents(file string) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		var e sim.Event
		if json.Unmarshal(line, &e) == nil {
			r.events[e.Seq] = e.T
		}
		if err != nil {
			return
		}
	}
}

// when tells at what time of the run a check was first broken: at the last
// event that its violation names.
func (r *result) when(s *sim.SeedRun, check string) time.Duration {
	first := s.Virtual
	for _, v := range violations(s) {
		if s.Seed != r.seed || !isCheck(v.Check, check) || len(v.Events) == 0 {
			continue
		}
		if t, ok := r.events[v.Events[len(v.Events)-1]]; ok {
			first = min(first, t)
		}
	}
	return first.Round(time.Millisecond)
}

func violations(s *sim.SeedRun) []sim.Violation {
	if s.Verdict == nil {
		return nil
	}
	return s.Verdict.Violations
}

// isCheck reports whether a violation's check is of that name; that of an
// expectation goes on with its line.
func isCheck(got, name string) bool { return got == name || strings.HasPrefix(got, name+" (") }

// broken says how a run broke a check, "" when it did not. A daemon that panics
// takes the whole process of the run with it, so that nobody is left to say
// that it is not alive.
func broken(s *sim.SeedRun, check string) string {
	if i := strings.Index(s.Crash, "panic: "); check == "alive" && i >= 0 {
		why, _, _ := strings.Cut(s.Crash[i:], "\n")
		return why
	}
	for _, v := range violations(s) {
		if isCheck(v.Check, check) {
			return v.Detail
		}
	}
	return ""
}

// others lists what else a run broke.
func others(s *sim.SeedRun, check string) []string {
	var out []string
	for _, v := range violations(s) {
		if !isCheck(v.Check, check) && !slices.Contains(out, v.Check) {
			out = append(out, v.Check)
		}
	}
	return out
}

// summary is a run in one line.
func summary(s *sim.SeedRun) string {
	switch all := others(s, ""); {
	case s.Crash != "":
		return "crashed: " + s.Crash
	case s.Internal != "":
		return "internal error: " + s.Internal
	case len(all) > 0:
		return fmt.Sprintf("broken: %s (%s)", strings.Join(all, ", "), violations(s)[0].Detail)
	}
	return "every promise was kept"
}
