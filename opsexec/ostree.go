package opsexec

import (
	"encoding/json"
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

// markerFile lies in the git directory while a pull changes the tree.
const markerFile = "sgfleet.pull"

// Marker implements [Tree]. A marker that cannot be read as one still says that
// a pull was interrupted; its revision is then unknown ("").
func (OSTree) Marker(c Checkout) (*Marker, error) {
	b, err := os.ReadFile(filepath.Join(c.GitDir, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pull marker: %w", err)
	}
	m := &Marker{}
	if err := json.Unmarshal(b, m); err != nil {
		return &Marker{}, nil
	}
	return m, nil
}

// SetMarker implements [Tree]. The marker is on the disk, under its name,
// before it returns.
func (OSTree) SetMarker(c Checkout, m *Marker) error {
	path := filepath.Join(c.GitDir, markerFile)
	if m == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the pull marker: %w", err)
		}
		return syncDir(c.GitDir)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the pull marker: %w", err)
	}
	if err := writeDurably(path, b); err != nil {
		return fmt.Errorf("writing the pull marker: %w", err)
	}
	return syncDir(c.GitDir)
}

// writeDurably replaces a file by one that is wholly on the disk.
func writeDurably(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
