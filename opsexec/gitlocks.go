package opsexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// foreignLockAge is when a lock file of another user's git is taken for dead:
// we cannot see whether its process lives (ProtectProc=invisible), and no git
// command holds a lock for as long.
const foreignLockAge = 10 * time.Minute

// RemoveIndexLock implements [Tree]. Git leaves its lock files behind when it is
// killed with SIGKILL, and refuses to work ever after.
//
// Under the exclusive flock no git of ours runs, so a lock file is either dead
// or foreign. It is foreign when a live process has it open, or a live git has
// its working directory in the checkout. Processes of our own user are always
// visible to us; a lock file of another user (root at work by hand) counts as
// alive until it is ten minutes old. Half-received packs are treated alike: gc,
// which would remove them, is off.
func (OSTree) RemoveIndexLock(c Checkout) (removed bool, err error) {
	freeSpare(c) // whoever calls this is about to put the tree right
	left := gitLeftovers(c)
	if len(left) == 0 {
		return false, nil
	}
	if err := foreignGit(c, left); err != nil {
		return false, err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, fmt.Errorf("removing what a dead git left: %w", err)
		}
		removed = true
	}
	return removed, nil
}

// gitLeftovers lists what a killed git leaves: lock files of the index and HEAD
// in the git directory, of refs and the rest in the common one, packs that were
// being received.
func gitLeftovers(c Checkout) []string {
	common := commonDir(c.GitDir)
	var locks []string
	for _, dir := range slices.Compact([]string{c.GitDir, common}) {
		found, _ := filepath.Glob(filepath.Join(dir, "*.lock"))
		for _, path := range found {
			if filepath.Base(path) != lockFile {
				locks = append(locks, path)
			}
		}
	}
	packs, _ := filepath.Glob(filepath.Join(common, "objects", "pack", "tmp_*"))
	locks = append(locks, packs...)
	_ = filepath.WalkDir(filepath.Join(common, "refs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".lock") {
			locks = append(locks, path)
		}
		return nil
	})
	return locks
}

// foreignGit returns an [ErrForeignGit] that names who is at work.
func foreignGit(c Checkout, locks []string) error {
	var who []string
	for _, path := range locks {
		who = append(who, holdersOf(path)...)
	}
	who = append(who, gitsIn(c.Real, c.GitDir, commonDir(c.GitDir))...)
	if len(who) > 0 {
		slices.Sort(who)
		return fmt.Errorf("%w: %s", ErrForeignGit, strings.Join(slices.Compact(who), ", "))
	}
	for _, path := range locks {
		fi, err := os.Stat(path)
		if err != nil {
			continue
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if ok && int(st.Uid) != os.Geteuid() && time.Since(fi.ModTime()) < foreignLockAge {
			return fmt.Errorf("%w: %s is held by %s", ErrForeignGit, path, userName(int(st.Uid)))
		}
	}
	return nil
}
