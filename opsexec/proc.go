package opsexec

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holdersOf names the processes that have the file open, as "git (pid 17)", as
// far as we may see them (those of our own user), ourselves excluded.
func holdersOf(path string) []string {
	want, err := os.Stat(path)
	if err != nil {
		return nil
	}
	var who []string
	for _, pid := range pids() {
		if hasOpen(pid, want) {
			who = append(who, describe(pid))
		}
	}
	return who
}

// gitsIn names the live git processes whose working directory is below one of
// the directories.
func gitsIn(dirs ...string) []string {
	var who []string
	for _, pid := range pids() {
		if !strings.HasPrefix(comm(pid), "git") {
			continue
		}
		cwd, err := os.Readlink(procPath(pid, "cwd"))
		if err != nil {
			continue
		}
		for _, d := range dirs {
			if cwd == d || strings.HasPrefix(cwd, d+string(filepath.Separator)) {
				who = append(who, describe(pid))
				break
			}
		}
	}
	return who
}

// pids lists the other live processes; none where there is no /proc.
func pids() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var list []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid != os.Getpid() {
			list = append(list, pid)
		}
	}
	return list
}

func hasOpen(pid int, want os.FileInfo) bool {
	fds, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if got, err := os.Stat(procPath(pid, "fd/"+fd.Name())); err == nil && os.SameFile(got, want) {
			return true
		}
	}
	return false
}

func describe(pid int) string { return fmt.Sprintf("%s (pid %d)", comm(pid), pid) }

// comm is the process's name; "" when it is gone or a zombie has no say.
func comm(pid int) string {
	b, _ := os.ReadFile(procPath(pid, "comm"))
	return strings.TrimSpace(string(b))
}

func procPath(pid int, what string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + what
}
