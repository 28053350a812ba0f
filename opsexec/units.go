package opsexec

import (
	"context"
	"errors"
	"time"
)

// Units is systemd as far as sgfleet needs it. opsexec/systemd implements it
// over D-Bus, [Systemctl] with the systemctl command for hosts without a bus.
// Unit names always carry their suffix.
type Units interface {
	// Restart queues a restart job (mode "replace") and returns as soon as it
	// is queued. With try, systemd itself leaves a unit alone that is not
	// running when the job gets there (the job is then "done"): so a unit that
	// somebody stopped since it was looked at stays stopped.
	//
	// The job's result ("done", "failed", "canceled", "timeout", "dependency",
	// "skipped", …) arrives on the channel, which is buffered, until ctx ends.
	// It may stay silent when the bus is lost: never wait for it alone.
	// Errors: [ErrNoSuchUnit], [ErrUnitMasked], [ErrNotAuthorized],
	// [ErrBusLost] when it is not known whether the job was queued, or any
	// other for a job that was not queued.
	Restart(ctx context.Context, unit string, try bool) (<-chan string, error)

	// Show reads the unit's state. A unit that systemd does not know has
	// LoadState "not-found" and is no error.
	Show(ctx context.Context, unit string) (Unit, error)
}

// ManageUnits is the polkit action that systemd asks for when a user other than
// root wants a unit restarted.
const ManageUnits = "org.freedesktop.systemd1.manage-units"

// PolkitRules is the file of the rules that allow it.
const PolkitRules = "/etc/polkit-1/rules.d/50-sgfleet.rules"

var (
	ErrNoSuchUnit    = errors.New("no such unit")
	ErrUnitMasked    = errors.New("unit is masked")
	ErrNotAuthorized = errors.New("not authorized to manage the unit")
	ErrBusLost       = errors.New("no connection to systemd")
)

// Unit is the state of one unit, in systemd's own words.
type Unit struct {
	Name         string
	LoadState    string // loaded, not-found, masked, bad-setting, error
	ActiveState  string // active, reloading, inactive, failed, activating, deactivating
	SubState     string
	Result       string // success, exit-code, signal, timeout, start-limit-hit, …
	InvocationID string // 32 hex digits, new with every start; "" before the first
	MainPID      int
	NRestarts    int // automatic restarts only (Restart=); manual ones do not count
	Job          uint32
	// ActiveEnter is when it last became active; zero: never, or not known. It
	// goes by the monotonic clock: [time.Since] is right, though the host's
	// clock was set since.
	ActiveEnter time.Time

	// Exit says how the main process last ended ("exit status 1", "signal
	// KILL"), in words fit for chat; "" when it has not, or is not known.
	Exit string

	StartLimitBurst    int           // 0: no limit
	StartLimitInterval time.Duration // 0: no limit
	TimeoutStart       time.Duration // 0: infinite
	TimeoutStop        time.Duration // 0: infinite
}
