package main

import (
	"bufio"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The README's transcript of the demo fleet (kept up, recorded, rehearsed and
// really restarted) is what the built programs print: every line that it shows
// comes in that order, with whatever times, ids and revisions.
func TestReadmeRehearsesAndRestartsTheDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo runs in real time")
	}
	bin, dir := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "../sgfleet", "../sgsim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "NO_COLOR=1", "TERM=dumb")
	ran := map[string]int{}
	for _, step := range transcript(t, "../../README.md", "sgsim demo --stay") {
		program, _, _ := strings.Cut(step.command, " ")
		var out string
		switch {
		case step.command == "sgsim demo --stay":
			out = stayingDemo(t, bin, dir, env)
			url := regexp.MustCompile(`export (SGFLEET_REDIS_URL=\S+)`).FindStringSubmatch(out)
			if url == nil {
				t.Fatalf("the demo does not say how to reach its Redis:\n%s", out)
			}
			env = append(env, url[1])
		case program == "export": // the demo's own words; the port is another each time
		default:
			cmd := exec.Command("bash", "-c", step.command)
			cmd.Dir, cmd.Env = dir, env
			data, _ := cmd.CombinedOutput()
			out = string(data)
			want := 0
			if strings.HasPrefix(cmp.Or(step.shown...), "NO-GO") {
				want = 2
			}
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Fatalf("%s: exit code %d, want %d\n%s", step.command, got, want, out)
			}
		}
		ran[program]++
		rest := strings.Split(blurred(out), "\n")
		for _, line := range step.shown {
			for len(rest) > 0 && rest[0] != blurred(line) {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Fatalf("README shows for %s\n\t%s\nwhich is not in what it prints, or not in this order:\n%s", step.command, line, out)
			}
		}
	}
	if ran["sgfleet"] < 2 || ran["sgsim"] < 2 {
		t.Errorf("README's transcript no longer records, rehearses and restarts: ran %v", ran)
	}
}

type transcriptStep struct {
	command string
	shown   []string // of the output, without the parts left out
}

// transcript reads the commands and what they print from the one block of file
// that begins with first.
func transcript(t *testing.T, file, first string) []transcriptStep {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```\n$ "+first+"\n")
	if !found {
		t.Fatalf("%s has no block that begins with $ %s", file, first)
	}
	block, _, _ = strings.Cut(block, "```")
	steps := []transcriptStep{{command: first}}
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		last := &steps[len(steps)-1]
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, transcriptStep{command: command})
		} else if line != "" && line != "…" {
			last.shown = append(last.shown, line)
		}
	}
	return steps
}

// stayingDemo starts the demo in the background, waits until it is there to
// stay, and returns what it has printed by then.
func stayingDemo(t *testing.T, bin, dir string, env []string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "sgsim"), "demo", "--stay")
	cmd.Dir, cmd.Env = dir, env
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		gone := false
		for lines.Scan() {
			gone = gone || lines.Text() == "the demo fleet is gone"
		}
		if err := cmd.Wait(); err != nil || !gone {
			t.Errorf("the demo did not end well on Ctrl-C: %v (said that it is gone: %v)", err, gone)
		}
	})
	var out strings.Builder
	for lines.Scan() {
		out.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "sgfleet restart") && strings.HasPrefix(lines.Text(), "  ") {
			return out.String() // the last of its hints
		}
	}
	t.Fatalf("the demo ended early:\n%s", out.String())
	return ""
}

var (
	changing = regexp.MustCompile(`\b(\d[\w.:/]*|[0-9a-f]{9,})\b( to \d\S*)?`)
	spaces   = regexp.MustCompile(`[ \t]+`)
)

// blurred is text without what differs from run to run: times, counts, ids,
// revisions, and the columns that follow from their widths.
func blurred(text string) string {
	return spaces.ReplaceAllString(changing.ReplaceAllString(text, "#"), " ")
}
