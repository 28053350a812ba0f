//go:build !linux

package opsexec

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// awaitExit returns when the child pid has ended. Only Linux hosts run the
// daemon; elsewhere polling will do.
func awaitExit(pid int) {
	for !errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH) && !errors.Is(syscall.Kill(-pid, 0), syscall.EPERM) {
		time.Sleep(20 * time.Millisecond)
	}
}

// allocate does nothing: see above.
func allocate(*os.File, int64) error { return nil }

// monotonic: there is no systemd whose times it would serve.
func monotonic() (time.Duration, bool) { return 0, false }
