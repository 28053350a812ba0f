package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sgfleet/sgfleet"

// goList runs go list in the module's root and returns its lines.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return strings.Fields(string(out))
}

// deps returns the packages that pkg links, standard library left out, those of
// this module as paths below its root.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	var list []string
	for _, p := range goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg) {
		list = append(list, strings.TrimPrefix(p, module+"/"))
	}
	return list
}

// TestArrows holds the rooms apart: who may import whom, by prefix of the
// package's path. Nothing else of this module, and nothing of the modules
// listed as forbidden, may be linked.
func TestArrows(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pkg    string
		rooms  []string // of this module, beside itself
		others bool     // may link other modules
		never  []string // other modules, by prefix
	}{
		{pkg: "opsexec"},
		{pkg: "opsexec/systemd", rooms: []string{"opsexec"}, others: true, never: []string{"github.com/redis/"}},
		{pkg: "fleet", others: true, never: []string{"github.com/coreos/go-systemd", "github.com/spf13/"}},
		{pkg: "control", rooms: []string{"fleet", "opsexec"}, others: true, never: []string{"github.com/coreos/go-systemd", "github.com/spf13/", "github.com/alicebob/"}},
		{pkg: "cmd/sgfleet", rooms: []string{"fleet", "opsexec", "opsexec/systemd", "control", "cmd/internal/cli"}, others: true, never: []string{"github.com/alicebob/", "github.com/rogpeppe/", "github.com/google/go-cmp"}},
	} {
		t.Run(tc.pkg, func(t *testing.T) {
			t.Parallel()
			for _, d := range deps(t, "./"+tc.pkg) {
				first, _, _ := strings.Cut(d, "/")
				switch {
				case strings.Contains(first, "."): // another module
					if !tc.others || slices.ContainsFunc(tc.never, func(n string) bool { return strings.HasPrefix(d, n) }) {
						t.Errorf("%s links %s", tc.pkg, d)
					}
				case d != tc.pkg && !slices.Contains(tc.rooms, d):
					t.Errorf("%s links %s; allowed are %q", tc.pkg, d, tc.rooms)
				}
			}
		})
	}
}

// TestProductionLinksNoTests keeps testing, the simulator and the helpers of
// tests out of the binary that runs on hosts.
func TestProductionLinksNoTests(t *testing.T) {
	t.Parallel()
	linked := goList(t, "-deps", "./cmd/sgfleet")
	for _, p := range linked {
		if p == "testing" || strings.HasPrefix(p, "testing/") || strings.HasPrefix(p, module+"/sim") || strings.HasSuffix(p, "test") && strings.HasPrefix(p, module) {
			t.Errorf("sgfleet links %s", p)
		}
	}
	if !slices.Contains(linked, module+"/control") {
		t.Errorf("go list told nothing: %d packages", len(linked))
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReadmeAndCIAgree: what the README tells a visitor to run is what CI runs.
func TestReadmeAndCIAgree(t *testing.T) {
	t.Parallel()
	const command = "make test"
	if readme := read(t, "README.md"); !strings.Contains(readme, "$ "+command+"\n") {
		t.Errorf("README.md does not show %q", "$ "+command)
	}
	if ci := read(t, ".ci/run"); !regexp.MustCompile(`(?m)^step test ` + command + `$`).MatchString(ci) {
		t.Errorf(".ci/run has no step that runs %q", command)
	}
}

// TestMakeHelp: every target that a person may call is in the help, and every
// one that README, CI or the help names exists.
func TestMakeHelp(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):(.*)$`).FindAllStringSubmatch(makefile, -1) {
		targets[m[1]] = true
		if documented := strings.Contains(m[2], "## "); !documented && m[1] != "deps" && m[1] != "need-go" {
			t.Errorf("make %s is not in make help", m[1])
		}
	}
	for _, file := range []string{"README.md", ".ci/run"} {
		for _, m := range regexp.MustCompile("(?:\\$ |`|step [a-z0-9]+ )make ([a-z0-9]+)").FindAllStringSubmatch(read(t, file), -1) {
			if !targets[m[1]] {
				t.Errorf("%s names make %s, which is not in the Makefile", file, m[1])
			}
		}
	}
}

// TestReadmeListsExitCodes keeps the README's table and the program's in step.
func TestReadmeListsExitCodes(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for _, m := range regexp.MustCompile(`(?m)^  (\d+) +(\S.*)$`).FindAllStringSubmatch(exitCodesTable, -1) {
		if row := "| " + m[1] + " | " + m[2]; !strings.Contains(readme, row) {
			t.Errorf("README.md has no row starting %q", row)
		}
	}
}
