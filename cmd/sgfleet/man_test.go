package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestManPages builds what packages are made with: every command that help
// lists has a page, and the first one lists the exit codes.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "-tags", "man", ".", "man", dir).CombinedOutput(); err != nil {
		t.Fatalf("sgfleet man: %v\n%s", err, out)
	}
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		if !strings.Contains(string(page), cmd.Short) {
			t.Errorf("%s: does not say %q", name, cmd.Short)
		}
		for _, line := range strings.Split(exitCodesTable, "\n")[1:] {
			if _, means, _ := strings.Cut(strings.TrimSpace(line), " "); !cmd.HasParent() && !strings.Contains(string(page), strings.TrimSpace(means)) {
				t.Errorf("%s: exit status %q is missing", name, line)
			}
		}
		if says := strings.Contains(string(page), " [command] [flags]"); says != cmd.HasAvailableSubCommands() {
			t.Errorf("%s: its synopsis has [command]: %v", name, says)
		}
		if strings.Contains(string(page), "[=false]") {
			t.Errorf("%s: shows defaults that say nothing", name)
		}
		for _, section := range []string{"TARGETS", "EXIT STATUS", "ENVIRONMENT", "FILES"} {
			if !cmd.HasParent() && !strings.Contains(string(page), ".SH "+section+"\n") {
				t.Errorf("%s: no section %s", name, section)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check((&app{}).root())
}
