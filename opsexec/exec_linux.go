package opsexec

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// awaitExit returns when the child pid has ended, and leaves it a zombie: until
// it is reaped neither its number nor that of its group can be used again, so
// signals to the group hit nobody else.
func awaitExit(pid int) {
	const (
		pPID    = 1         // P_PID
		wExited = 4         // WEXITED
		wNoWait = 0x1000000 // WNOWAIT
	)
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), 0, wExited|wNoWait, 0, 0)
		if !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// allocate reserves size bytes for f on the disk, where the file system can.
func allocate(f *os.File, size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return err
}

// monotonic reads the clock by which systemd tells when a unit became active.
// (Go has its own reading of it, counted from the start of the process.)
func monotonic() (time.Duration, bool) {
	const clockMonotonic = 1
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano()), errno == 0
}
