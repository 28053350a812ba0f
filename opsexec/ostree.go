package opsexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// OSTree is the real [Tree].
type OSTree struct{}

// Resolve implements [Tree]. Beyond the owner it checks that nobody else may
// write the git directory or its configuration: whoever can makes our git run
// their commands (filters, credential helpers, includes).
func (OSTree) Resolve(dir string) (Checkout, error) {
	if !filepath.IsAbs(dir) {
		return Checkout{}, fmt.Errorf("checkout %q is not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Checkout{}, fmt.Errorf("checkout %s: %w", dir, err)
	}
	gitDir, err := findGitDir(dir, real)
	if err != nil {
		return Checkout{}, err
	}
	common := commonDir(gitDir)
	for _, path := range []string{real, gitDir, common, filepath.Join(common, "config")} {
		if err := ownedByUs(dir, path, path != real); err != nil {
			return Checkout{}, err
		}
	}
	return Checkout{Dir: dir, Real: real, GitDir: gitDir}, nil
}

// findGitDir finds the git directory of a checkout: .git itself or, in a linked
// worktree, what the file .git points at (gitrepository-layout(5)).
func findGitDir(dir, real string) (string, error) {
	dotGit := filepath.Join(real, ".git")
	fi, err := os.Stat(dotGit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if top := checkoutAbove(real); top != "" {
			return "", fmt.Errorf("%s is inside the checkout %s: name that one", dir, top)
		}
		return "", fmt.Errorf("%s is no git checkout (it has no .git): clone it there, or correct its path in the config", dir)
	case err != nil:
		return "", fmt.Errorf("checkout %s: %w", dir, err)
	case fi.IsDir():
		return filepath.EvalSymlinks(dotGit)
	}
	b, err := os.ReadFile(dotGit)
	if err != nil {
		return "", fmt.Errorf("checkout %s: %w", dir, err)
	}
	target, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "gitdir: ")
	if !ok {
		return "", fmt.Errorf("checkout %s: %s does not name a git directory (\"gitdir: …\")", dir, dotGit)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(real, target)
	}
	if target, err = filepath.EvalSymlinks(target); err != nil {
		return "", fmt.Errorf("checkout %s: its git directory: %w", dir, err)
	}
	return target, nil
}

// checkoutAbove returns the parent of dir that is a checkout, "" when none is.
func checkoutAbove(dir string) string {
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		if _, err := os.Stat(filepath.Join(up, ".git")); err == nil {
			return up
		}
		if up == filepath.Dir(up) {
			return ""
		}
	}
}

// ownedByUs says what is wrong with the owner of path and, when private, with
// who else may write it, together with the way out.
func ownedByUs(dir, path string, private bool) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("checkout %s: %w", dir, err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	me := os.Geteuid()
	if int(st.Uid) != me {
		owner := userName(int(st.Uid))
		return fmt.Errorf("checkout %s: %s belongs to %s, but sgfleet runs as %s: run sgfleet as %s (sgfleet_user) or chown -R %s the checkout",
			dir, path, owner, userName(me), owner, userName(me))
	}
	if private && fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("checkout %s: %s may be written by other users (mode %04o), who could make git run anything: chmod -R go-w %s",
			dir, path, fi.Mode().Perm(), path)
	}
	return nil
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}
