#!/bin/bash
# Real hosts for end-to-end tests, without a container engine or a virtual
# machine: systemd as PID 1 of new pid, mount, uts, ipc, cgroup and net
# namespaces over an overlay of one Debian tree. They have their own hostname,
# address, sshd, D-Bus, polkit and journal, and share only the kernel.
#
#   hosts.sh tree               build the Debian tree once (cached; about 70 s)
#   hosts.sh up NAME[:OCTET]…   boot hosts on a bridge and wait until they run
#   hosts.sh in NAME CMD…       run a command inside a host
#   hosts.sh off NAME           power loss: SIGKILL of its init; the disk stays
#   hosts.sh cut|join NAME      take the host's network link down, up
#   hosts.sh down               end every host and remove all that was made
#
# Needs root, util-linux, iproute2, openssh-client; tree needs mmdebstrap.
# State: $E2E_STATE (hosts, default a directory under /tmp), $E2E_CACHE (tree).
set -eu

CACHE=${E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sgfleet-e2e}
STATE=${E2E_STATE:-/tmp/sgfleet-e2e}
TREE=$CACHE/bookworm-2
BRIDGE=${E2E_BRIDGE:-sge2e0}
NET=${E2E_NET:-10.77.0}
SELF=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

# What a host must not do to the machine whose kernel it shares: set its clock,
# load modules, reach devices or read the kernel's log. nsenter keeps the
# caller's capabilities, so they are dropped there as well.
DROP=-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override,-bpf,-perfmon

die() { echo "hosts.sh: $*" >&2; exit 1; }
pid_of() { cat "$STATE/$1/pid" 2>/dev/null || die "host $1 is not up"; }
cgroup_of() { echo "$(awk '$3=="cgroup2"{print $2; exit}' /proc/mounts)/$(basename "$STATE")-$1"; }

tree() {
	[ -e "$TREE/.complete" ] && return
	command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
	rm -rf "$TREE" && mkdir -p "$CACHE"
	nice mmdebstrap --quiet --mode=root --variant=minbase --skip=check/qemu \
		--include=systemd,systemd-sysv,dbus,libpam-systemd,polkitd,git,openssh-server,python3,python3-apt,redis-server,redis-sentinel,iproute2,ca-certificates,procps,sudo,rpm \
		--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io bookworm "$TREE" >&2
	rm -f "$TREE/etc/machine-id" "$TREE/var/lib/dbus/machine-id"
	local sys=$TREE/etc/systemd/system u
	# Units that would touch the shared kernel or wait for hardware there is none of.
	for u in console-getty.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
		fstrim.timer systemd-timesyncd.service systemd-networkd.service systemd-resolved.service e2scrub_reap.service \
		systemd-logind.service systemd-firstboot.service systemd-sysctl.service systemd-modules-load.service \
		systemd-journald-audit.socket sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
		dev-hugepages.mount systemd-remount-fs.service systemd-network-generator.service systemd-sysusers.service \
		systemd-udevd.service; do ln -sfn /dev/null "$sys/$u"; done
	rm -f "$sys"/multi-user.target.wants/redis-*.service "$sys"/redis.service "$sys"/sentinel.service "$sys"/*.wants/ssh.socket
	mkdir -p "$sys/multi-user.target.wants" "$TREE/etc/systemd/system.conf.d" "$TREE/etc/systemd/journald.conf.d"
	ln -sfn /lib/systemd/system/ssh.service "$sys/multi-user.target.wants/ssh.service"
	ln -sfn /lib/systemd/system/multi-user.target "$sys/default.target"
	printf '[Manager]\nDefaultTimeoutStopSec=10s\n' >"$TREE/etc/systemd/system.conf.d/e2e.conf"
	printf '[Journal]\nAudit=no\nStorage=volatile\nRateLimitBurst=0\n' >"$TREE/etc/systemd/journald.conf.d/e2e.conf"
	printf 'UseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n' >"$TREE/etc/ssh/sshd_config.d/e2e.conf"
	ls "$TREE"/etc/ssh/ssh_host_ed25519_key >/dev/null 2>&1 || ssh-keygen -A -f "$TREE" >/dev/null
	touch "$TREE/.complete"
}

key() { # one ssh key for this run, known to every host
	[ -f "$STATE/id" ] || ssh-keygen -q -t ed25519 -N '' -C sgfleet-e2e -f "$STATE/id"
}

boot() { # NAME OCTET
	local name=$1 octet=$2 h=$STATE/$1 ns link cg outer
	ns=$BRIDGE-$name link=$BRIDGE$octet cg=$(cgroup_of "$name")
	mkdir -p "$h"/{upper/etc,upper/root/.ssh,overlay,root} "$cg"
	rm -rf "$h/overlay/work/incompat" # left by an unclean end of a volatile overlay
	# Identity before the first boot: without a machine id systemd would run
	# preset-all, which enables everything that is installed.
	[ -s "$h/upper/etc/machine-id" ] || printf '%s' "$STATE-$name" | md5sum | cut -c1-32 >"$h/upper/etc/machine-id"
	echo "$name" >"$h/upper/etc/hostname"
	echo "$octet" >"$h/octet"
	chmod 700 "$h/upper/root/.ssh" && cp "$STATE/id.pub" "$h/upper/root/.ssh/authorized_keys"
	if ! [ -e "/run/netns/$ns" ]; then
		ip netns add "$ns"
		ip link add "$link" type veth peer name eth0 netns "$ns"
		ip link set "$link" master "$BRIDGE" up
		ip -n "$ns" addr add "$NET.$octet/24" dev eth0
		ip -n "$ns" link set lo up && ip -n "$ns" link set eth0 up
	fi
	# Into the cgroup before unshare --cgroup, so that it is the root seen inside.
	TREE=$TREE H=$h NAME=$name DROP=$DROP setsid bash -c 'echo $$ >"$1/cgroup.procs"
		exec nsenter --net="/run/netns/$2" unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --propagation private "$3" init' \
		_ "$cg" "$ns" "$SELF" </dev/null >"$h/console.log" 2>&1 &
	outer=$!
	find_init "$outer" >"$h/pid" || { cat "$h/console.log" >&2; die "host $name did not boot"; }
}

find_init() { # the pid, seen from here, of PID 1 in the namespace below $1
	local c n me
	me=$(readlink /proc/self/ns/pid)
	for _ in $(seq 1000); do
		for c in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
			n=$(readlink "/proc/$c/ns/pid" 2>/dev/null) || continue
			[ "$n" = "$me" ] || { echo "$c"; return 0; }
		done
		sleep 0.005
	done
	return 1
}

init() { # inside the new namespaces: the host's own view of the world, then systemd
	local r=$H/root n a b c
	mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$H/upper,workdir=$H/overlay,volatile" "$r"
	hostname "$NAME"
	mount -t proc -o nosuid,nodev,noexec proc "$r/proc"
	mount --bind "$r/proc/sys" "$r/proc/sys" && mount -o remount,bind,ro "$r/proc/sys" # the kernel is shared: no sysctl writes
	[ ! -e "$r/proc/sysrq-trigger" ] || mount --bind /dev/null "$r/proc/sysrq-trigger"
	mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$r/sys"
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$r/sys/fs/cgroup"
	mount -t tmpfs -o mode=755,nosuid tmpfs "$r/dev"
	for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
		IFS=: read -r a b c <<<"$n"
		mknod -m 666 "$r/dev/$a" c "$b" "$c"
	done
	mknod -m 600 "$r/dev/console" c 1 3
	mkdir "$r/dev/pts" "$r/dev/shm"
	ln -s pts/ptmx "$r/dev/ptmx" && ln -s /proc/self/fd "$r/dev/fd"
	for n in 0:in 1:out 2:err; do ln -s "fd/${n%:*}" "$r/dev/std${n#*:}"; done
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$r/dev/pts"
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$r/dev/shm"
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$r/run"
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$r/tmp"
	cd "$r" && mkdir -p .old && pivot_root . .old
	umount -l /.old && { rmdir /.old 2>/dev/null || true; }
	# systemd does this itself only outside containers; without it the credentials
	# of LoadCredential= are mounted where the service cannot see them.
	mount --make-rshared /
	exec env -i container=sgfleet-e2e PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		setpriv --bounding-set "$DROP" /lib/systemd/systemd --system --log-target=journal --show-status=no
}

in_host() {
	local p
	p=$(pid_of "$1")
	shift
	exec nsenter -t "$p" -m -u -i -n -p -C -r -w -- setpriv --bounding-set "$DROP" \
		env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 "$@"
}

wait_gone() { # PID SECONDS
	local i
	for ((i = 0; i < $2 * 50; i++)); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.02; done
	return 1
}

off() {
	local p
	p=$(pid_of "$1")
	kill -KILL "$p" 2>/dev/null || true
	wait_gone "$p" 10 || die "host $1 did not end"
	rm -f "$STATE/$1/pid"
}

up() {
	[ "$(id -u)" = 0 ] || die "needs root"
	tree
	mkdir -p "$STATE" && key
	if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
		ip link add "$BRIDGE" type bridge
		ip addr add "$NET.1/24" dev "$BRIDGE"
		ip link set "$BRIDGE" up
	fi
	local spec name octet state next=11
	for spec in "$@"; do
		name=${spec%%:*} octet=${spec#*:}
		[ "$octet" != "$spec" ] || octet=$(cat "$STATE/$name/octet" 2>/dev/null || echo $next)
		next=$((octet + 1))
		[ ! -e "$STATE/$name/pid" ] || die "host $name is up already"
		boot "$name" "$octet" &
	done
	wait
	for spec in "$@"; do
		name=${spec%%:*}
		state=
		for _ in $(seq 600); do
			state=$("$SELF" in "$name" systemctl is-system-running 2>/dev/null || true)
			case $state in running | degraded) break ;; esac
			sleep 0.05
		done
		case $state in running | degraded) ;; *) die "host $name is '$state' after 30 s" ;; esac
	done
}

down() {
	local h name cg
	for h in "$STATE"/*/; do
		[ -d "$h" ] || continue
		name=$(basename "$h")
		[ ! -e "$h/pid" ] || off "$name"
		ip link del "$BRIDGE$(cat "$h/octet")" 2>/dev/null || true # the kernel takes its time to do that for a namespace
		ip netns del "$BRIDGE-$name" 2>/dev/null || true
		cg=$(cgroup_of "$name")
		[ ! -d "$cg" ] || find "$cg" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
	ip link del "$BRIDGE" 2>/dev/null || true
	rm -rf "$STATE"
}

cmd=${1:-}
[ $# -eq 0 ] || shift
case $cmd in
tree) tree ;;
up) up "$@" ;;
init) init ;;
in) in_host "$@" ;;
off) off "$1" ;;
cut) ip link set "$BRIDGE$(cat "$STATE/$1/octet")" down ;;
join) ip link set "$BRIDGE$(cat "$STATE/$1/octet")" up ;;
down) down ;;
*) sed -n '2,/^set/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2 ;;
esac
