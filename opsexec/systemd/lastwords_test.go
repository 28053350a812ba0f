package systemd

import (
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd/systemdtest"
)

// A process that says why and ends at once is often gone before journald looks
// at what it said, which then has no invocation: in one of twenty runs.
func TestLastWords(t *testing.T) {
	h := systemdtest.Boot(t, map[string]string{
		"quick.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart=/bin/sh -c 'echo no port left for $$INVOCATION_ID >&2; exit 1'\n",
	})
	for range 40 {
		// It fails before or after systemctl is content.
		_, _ = h.Exec(t.Context(), opsexec.Cmd{Argv: []string{"systemctl", "start", "quick.service"}})
		id := h.InvocationID("quick.service")
		said, want := "", "no port left for "+id
		for end := time.Now().Add(time.Minute); !strings.Contains(said, want); {
			if time.Now().After(end) {
				t.Fatalf("%q is not among\n%s", want, said)
			}
			h.SyncJournal() // which does not wait for what a process has just said
			said = strings.Join(opsexec.JournalLines(h.Exec, 8)(t.Context(), "quick.service", id), "\n")
		}
	}
}
