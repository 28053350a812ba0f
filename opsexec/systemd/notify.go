package systemd

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// What a service tells its manager, for [Notify].
const (
	Ready    = daemon.SdNotifyReady    // it does its work
	Stopping = daemon.SdNotifyStopping // it is on its way out
)

// Reloading says that the configuration is being read again; [Ready] ends
// that. Type=notify-reload (systemd 253) insists on the clock in the same
// datagram, an older one ignores it.
func Reloading() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, ts.Nano()/1000)
}

// Notify sends states ("READY=1", "STATUS=…", "WATCHDOG=1") to the manager in
// one datagram. Outside a unit of Type=notify it does nothing.
func Notify(states ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("notifying systemd: %w", err)
	}
	return nil
}

// WatchdogInterval is how often WATCHDOG=1 must be said: half of what the unit
// allows, 0 when it has no watchdog.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("reading the unit's watchdog setting: %w", err)
	}
	return d / 2, nil
}
