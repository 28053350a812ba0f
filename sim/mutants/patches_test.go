package mutants

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/sim"
)

// root is the repository.
const root = "../.."

// Each patch is one of the code as it is now, each has its line in the table,
// and the scenario named there states what must catch it.
func TestMutantPatches(t *testing.T) {
	var listed []string
	for _, m := range table {
		listed = append(listed, m.patch+".patch")
		t.Run(m.patch, func(t *testing.T) {
			for _, name := range slices.DeleteFunc([]string{m.scenario, m.realTime}, func(s string) bool { return s == "" }) {
				sc, _, err := sim.Load(filepath.Join(root, "scenarios", name+".yaml"))
				if err != nil {
					t.Fatal(err)
				}
				if !judges(sc, m.check) {
					t.Errorf("scenario %s does not judge %s", name, m.check)
				}
				if why := sc.VirtualOnly(); name == m.realTime && why != "" {
					t.Errorf("scenario %s cannot be run in real time: %s", name, why)
				}
			}
			files := command(t, root, "git", "apply", "--numstat", patchFile(t, m.patch))
			for line := range strings.Lines(files) {
				if !strings.Contains(line, "\tcontrol/") && !strings.Contains(line, "\topsexec/") {
					t.Errorf("the patch touches %s: it may only touch production code", strings.TrimSpace(line))
				}
			}
			command(t, root, "git", "apply", "--check", patchFile(t, m.patch))
		})
	}
	files, err := filepath.Glob("*.patch")
	if err != nil || !slices.Equal(files, listed) {
		t.Errorf("patches and table differ (%v):\n got %v\nwant %v", err, files, listed)
	}
}

// judges reports whether runs of sc are held against the check of that name.
func judges(sc *sim.Scenario, check string) bool {
	if slices.ContainsFunc(sim.Invariants(), func(i sim.Invariant) bool { return i.Name == check }) {
		return sc.Allow[check] == ""
	}
	return slices.ContainsFunc(slices.Concat(sc.Expect.Always, sc.Expect.Finally), func(e sim.Expectation) bool { return e.Name == check })
}

// patchFile is the path of a patch, from anywhere.
func patchFile(t *testing.T, patch string) string {
	t.Helper()
	p, err := filepath.Abs(patch + ".patch")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// command runs a command and returns its output.
func command(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}
