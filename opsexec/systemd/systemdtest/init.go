package systemdtest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropped are the capabilities over what namespaces do not part: the kernel
// and its clock.
var dropped = map[string]uintptr{
	"sys_module": unix.CAP_SYS_MODULE,
	"sys_rawio":  unix.CAP_SYS_RAWIO,
	"sys_time":   unix.CAP_SYS_TIME,
	"syslog":     unix.CAP_SYSLOG,
	"bpf":        unix.CAP_BPF,
	"sys_boot":   unix.CAP_SYS_BOOT,
}

func droppedNames() []string {
	var names []string
	for name := range dropped {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

type mount struct {
	source, target, fs string
	flags              uintptr
	data               string
}

// runInit makes the namespaces' view of the machine and becomes systemd; it
// returns only when that fails. spec is the host's directory and more writable
// ones, separated by colons.
func runInit(spec string) error {
	runtime.LockOSThread()
	// Now that the process is in its cgroup, which is to be the root seen
	// inside.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("new cgroup namespace: %w", err)
	}
	writable := strings.Split(spec, ":")
	if err := mountAll(writable); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/systemd/journald.conf.d", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/run/systemd/journald.conf.d/test.conf", []byte(journaldConf), 0o644); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(Hostname)); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	for name, c := range dropped {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("dropping capability %s: %w", name, err)
		}
	}
	return syscall.Exec("/lib/systemd/systemd",
		[]string{"systemd", "--system", "--unit=default.target", "--log-target=journal", "--log-level=info", "--show-status=no"},
		[]string{"container=systemdtest", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH=" + writable[0] + "/units"})
}

func mountAll(writable []string) error {
	do := func(mounts ...mount) error {
		for _, m := range mounts {
			if err := unix.Mount(m.source, m.target, m.fs, m.flags, m.data); err != nil {
				return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
			}
		}
		return nil
	}
	if err := do(mount{"", "/", "", unix.MS_PRIVATE | unix.MS_REC, ""}); err != nil {
		return err
	}
	for _, dir := range writable {
		if err := do(mount{dir, dir, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	// The mounts only, never a superblock: that is the machine's.
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnly); err != nil {
		return fmt.Errorf("making everything read-only: %w", err)
	}
	for _, dir := range writable {
		if err := do(mount{"", dir, "", unix.MS_REMOUNT | unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	if err := do(
		mount{"proc", "/proc", "proc", 0, ""},
		mount{"/proc/sys", "/proc/sys", "", unix.MS_BIND, ""},
		mount{"", "/proc/sys", "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, ""},
		mount{"tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"},
		mount{"cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""},
		mount{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		mount{"tmpfs", "/var/lib", "tmpfs", 0, "mode=755"},
		mount{"tmpfs", "/var/log", "tmpfs", 0, "mode=755"},
	); err != nil {
		return err
	}
	for _, device := range []string{"/dev/console", "/dev/kmsg"} {
		if _, err := os.Stat(device); err != nil {
			continue
		}
		if err := do(mount{"/dev/null", device, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	// Not the machine's identity; and systemd sets the hostname itself.
	for file, text := range map[string]string{"machine-id": "0123456789abcdef0123456789abcdef", "hostname": Hostname} {
		if _, err := os.Stat("/etc/" + file); err != nil {
			continue
		}
		if err := os.WriteFile("/run/"+file, []byte(text+"\n"), 0o444); err != nil {
			return err
		}
		if err := do(mount{"/run/" + file, "/etc/" + file, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	return nil
}

const journaldConf = `[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
`

// baseUnits are all units that there are beside the test's.
func baseUnits(marker string) map[string]string {
	const early = "[Unit]\nDefaultDependencies=no\n"
	units := map[string]string{
		"default.target": early + "Requires=dbus.service systemd-journald.service\nAfter=dbus.service systemd-journald.service\n",
		"dbus.socket": early + "[Socket]\nListenStream=/run/dbus/system_bus_socket\n" +
			"ListenStream=@" + marker + "\n",
		"dbus.service": early + "Requires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n" +
			"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
		"systemd-journald.socket": early + "[Socket]\nListenStream=/run/systemd/journal/stdout\n" +
			"ListenDatagram=/run/systemd/journal/socket\nPassCredentials=yes\nSocketMode=0666\n",
		"systemd-journald.service": early + "Requires=systemd-journald.socket\nAfter=systemd-journald.socket\n" +
			"[Service]\nType=notify\nSockets=systemd-journald.socket\nExecStart=/lib/systemd/systemd-journald\n" +
			"StandardOutput=null\n",
		markerUnit: "[Unit]\nDescription=" + marker + "\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
	}
	for _, name := range []string{"basic", "sysinit", "sockets", "shutdown", "umount", "multi-user", "network", "network-online"} {
		units[name+".target"] = early
	}
	return units
}
