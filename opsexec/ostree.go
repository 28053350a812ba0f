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
type OSTree struct {
	User string // name or uid: whose git works in the checkouts; "" means this process's
}

// Resolve implements [Tree]. Beyond the owner it checks that nobody else may
// write the git directory or its configuration: whoever can makes our git run
// their commands (filters, credential helpers, includes).
func (t OSTree) Resolve(dir string) (Checkout, error) {
	if !filepath.IsAbs(dir) {
		return Checkout{}, fmt.Errorf("checkout %q is not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	real, err := filepath.EvalSymlinks(dir)
	if at := (*fs.PathError)(nil); errors.As(err, &at) && at.Path == dir {
		err = at.Err // it names dir already
	}
	if err != nil {
		return Checkout{}, fmt.Errorf("checkout %s: %w", dir, err)
	}
	gitDir, err := findGitDir(dir, real)
	if err != nil {
		return Checkout{}, err
	}
	uid := os.Geteuid()
	if t.User != "" {
		if uid, err = userID(t.User); err != nil {
			return Checkout{}, err
		}
	}
	common := commonDir(gitDir)
	for _, path := range []string{real, gitDir, common, filepath.Join(common, "config")} {
		if err := ownedBy(uid, real, path); err != nil {
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

// ownedBy says what is wrong with the owner of path, which is the checkout at
// dir or belongs to it, or with who else may write there, and the way out. That
// is never to give it to root: the services that work in it would lose it.
func ownedBy(uid int, dir, path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("checkout %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if owner := int(st.Uid); owner != uid {
		var ways []string
		if uid != 0 {
			ways = append(ways, fmt.Sprintf("chown -R %s %s", userName(uid), dir))
		}
		if owner != 0 {
			ways = append(ways, fmt.Sprintf("run sgfleet as %s (User= of its unit; sgfleet_user of the Ansible role)", userName(owner)))
		}
		return fmt.Errorf("%s belongs to %s, but sgfleet runs as %s: %s", path, userName(owner), userName(uid), strings.Join(ways, " or "))
	}
	if path != dir && fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s may be written by other users (mode %04o), who could make git run anything: chmod -R go-w %s",
			path, fi.Mode().Perm(), path)
	}
	return nil
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return 0, fmt.Errorf("user %s, whom the checkouts have to belong to, is not known: %w", name, err)
		}
	}
	return strconv.Atoi(u.Uid)
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}
