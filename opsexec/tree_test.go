package opsexec

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

// asRoot skips a test that must make files of other users, or mount.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI must run as root for this test")
	}
	t.Skip("needs root")
}

func resolve(t *testing.T, dir string) Checkout {
	t.Helper()
	c, err := OSTree{}.Resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestResolve(t *testing.T) {
	dir := gittest.NewRemote(t).Clone()
	alias := filepath.Join(t.TempDir(), "alias")
	if err := os.Symlink(dir, alias); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "tree")
	gittest.Git(t, dir, "worktree", "add", "-q", tree)

	tests := map[string]Checkout{
		dir:        {Dir: dir, Real: dir, GitDir: filepath.Join(dir, ".git")},
		dir + "/.": {Dir: dir, Real: dir, GitDir: filepath.Join(dir, ".git")},
		alias:      {Dir: alias, Real: dir, GitDir: filepath.Join(dir, ".git")},
		tree:       {Dir: tree, Real: tree, GitDir: filepath.Join(dir, ".git/worktrees/tree")},
	}
	for in, want := range tests {
		if got, err := (OSTree{}).Resolve(in); got != want || err != nil {
			t.Errorf("Resolve(%s)\ngot  %+v, %v\nwant %+v", in, got, err, want)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, dir string) (resolve string)
		root    bool
		want    []string
	}{
		"relative": {func(*testing.T, string) string { return "srv/app" }, false, []string{"not an absolute path"}},
		"missing":  {func(_ *testing.T, dir string) string { return dir + "x" }, false, []string{"no such file"}},
		"no git":   {func(_ *testing.T, dir string) string { return filepath.Dir(dir) }, false, []string{"no git checkout", "correct its path"}},
		"inside":   {func(t *testing.T, dir string) string { mkdir(t, dir, "sub"); return dir + "/sub" }, false, []string{"inside the checkout DIR: name that one"}},
		"odd .git": {func(t *testing.T, dir string) string { d := t.TempDir(); write(t, "hello", d, ".git"); return d }, false, []string{"does not name a git directory"}},
		"gone .git": {func(t *testing.T, dir string) string {
			d := t.TempDir()
			write(t, "gitdir: ../nope", d, ".git")
			return d
		}, false, []string{"its git directory", "no such file"}},
		"writable .git": {
			func(t *testing.T, dir string) string { chmod(t, 0o775, dir, ".git"); return dir }, false,
			[]string{"DIR/.git may be written by other users (mode 0775)", "chmod -R go-w DIR/.git"},
		},
		"writable config": {
			func(t *testing.T, dir string) string { chmod(t, 0o646, dir, ".git/config"); return dir }, false,
			[]string{"DIR/.git/config may be written by other users", "chmod -R go-w"},
		},
		"foreign checkout": {
			func(t *testing.T, dir string) string { chown(t, dir); return dir }, true,
			[]string{"DIR belongs to nobody, but sgfleet runs as root", "sgfleet runs as root: run sgfleet as nobody (User= of its unit"},
		},
		"foreign .git":   {func(t *testing.T, dir string) string { chown(t, dir, ".git"); return dir }, true, []string{"DIR/.git belongs to nobody"}},
		"foreign config": {func(t *testing.T, dir string) string { chown(t, dir, ".git/config"); return dir }, true, []string{"DIR/.git/config belongs to nobody"}},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			if tt.root {
				asRoot(t)
			}
			dir := gittest.NewRemote(t).Clone()
			_, err := OSTree{}.Resolve(tt.prepare(t, dir))
			if err != nil && strings.Contains(err.Error(), "chown -R root") {
				t.Errorf("would take it from its services: %v", err)
			}
			for _, want := range tt.want {
				want = strings.ReplaceAll(want, "DIR", dir)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v\nwant %q", err, want)
				}
			}
		})
	}
}

// Whose checkout it has to be is not always who looks at it.
func TestResolveForUser(t *testing.T) {
	asRoot(t)
	dir := gittest.NewRemote(t).Clone()
	_, err := OSTree{User: "nobody"}.Resolve(dir)
	if want := dir + " belongs to root, but sgfleet runs as nobody: chown -R nobody " + dir; err == nil || err.Error() != want {
		t.Errorf("error %v\nwant %s", err, want)
	}
	for _, path := range []string{"", ".git", ".git/config"} {
		chown(t, dir, path)
	}
	if _, err := (OSTree{User: "nobody"}).Resolve(dir); err != nil {
		t.Error(err)
	}
	if _, err := (OSTree{User: "no-such-user"}).Resolve(dir); err == nil || !strings.Contains(err.Error(), "user no-such-user") {
		t.Errorf("error %v", err)
	}
}

func mkdir(t *testing.T, path ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(path...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, mode os.FileMode, path ...string) {
	t.Helper()
	if err := os.Chmod(filepath.Join(path...), mode); err != nil {
		t.Fatal(err)
	}
}

// chown gives a file to nobody (65534).
func chown(t *testing.T, path ...string) {
	t.Helper()
	if err := os.Chown(filepath.Join(path...), 65534, 65534); err != nil {
		t.Fatal(err)
	}
}

func TestLockModes(t *testing.T) {
	c := resolve(t, gittest.NewRemote(t).Clone())
	lock := func(mode LockMode) (Lock, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return OSTree{}.Lock(ctx, c, mode)
	}
	tests := []struct {
		held, asked LockMode
		locked      bool
	}{{Shared, Shared, false}, {Shared, Exclusive, true}, {Exclusive, Shared, true}, {Exclusive, Exclusive, true}}
	for _, tt := range tests {
		held, err := lock(tt.held)
		if err != nil {
			t.Fatal(err)
		}
		got, err := lock(tt.asked)
		if errors.Is(err, ErrLocked) != tt.locked || !tt.locked && err != nil {
			t.Errorf("%v while %v is held: error %v, want locked %v", tt.asked, tt.held, err, tt.locked)
		}
		if err == nil {
			got.Unlock()
		}
		held.Unlock()
	}
}

// Linked worktrees share refs that a pull changes, so they share the lock too.
func TestLockIsSharedByWorktrees(t *testing.T) {
	dir := gittest.NewRemote(t).Clone()
	other := filepath.Join(t.TempDir(), "other")
	gittest.Git(t, dir, "worktree", "add", "-q", other)
	l, err := OSTree{}.Lock(t.Context(), resolve(t, dir), Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (OSTree{}).Lock(ctx, resolve(t, other), Exclusive); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v, want locked", err)
	}
}

func TestLockWaits(t *testing.T) {
	c := resolve(t, gittest.NewRemote(t).Clone())
	held, err := OSTree{}.Lock(t.Context(), c, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { held.Unlock() })
	got, err := OSTree{}.Lock(t.Context(), c, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	got.Unlock()
}

func TestMarker(t *testing.T) {
	c := Checkout{GitDir: t.TempDir()}
	check := func(when string, want *Marker) {
		t.Helper()
		got, err := OSTree{}.Marker(c)
		if err != nil || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: got %+v, %v, want %+v", when, got, err, want)
		}
	}
	set := func(m *Marker) {
		t.Helper()
		if err := (OSTree{}).SetMarker(c, m); err != nil {
			t.Fatal(err)
		}
	}
	check("none", nil)
	set(nil)
	m := &Marker{Old: "a", OpID: "op", By: "web@h1", Next: "b"}
	set(m)
	check("set", m)
	write(t, "{torn", c.GitDir, markerFile)
	check("unreadable", &Marker{})
	set(nil)
	check("removed", nil)
	if left, _ := filepath.Glob(filepath.Join(c.GitDir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRemoveIndexLock(t *testing.T) {
	dir := gittest.NewRemote(t).Clone()
	c := resolve(t, dir)
	if removed, err := (OSTree{}).RemoveIndexLock(c); removed || err != nil {
		t.Errorf("nothing there: %v, %v", removed, err)
	}
	dead := []string{"index.lock", "HEAD.lock", "packed-refs.lock", "refs/remotes/origin/main.lock", "objects/pack/tmp_pack_abc123"}
	leave := func() {
		for _, f := range dead {
			write(t, "", c.GitDir, f)
		}
	}
	leave()
	if removed, err := (OSTree{}).RemoveIndexLock(c); !removed || err != nil {
		t.Errorf("dead locks: %v, %v, want true", removed, err)
	}
	checkTidy(t, dir)

	t.Run("git_alive", func(t *testing.T) {
		leave()
		end := liveGit(t, dir)
		removed, err := OSTree{}.RemoveIndexLock(c)
		if removed || !errors.Is(err, ErrForeignGit) || !strings.Contains(err.Error(), "git (pid ") {
			t.Errorf("got %v, %v, want ErrForeignGit that names it", removed, err)
		}
		if !exists(c.GitDir, "index.lock")() {
			t.Error("the lock of a live git was removed")
		}
		end()
		if removed, err := (OSTree{}).RemoveIndexLock(c); !removed || err != nil {
			t.Errorf("after it ended: %v, %v, want true", removed, err)
		}
	})

	t.Run("lock_file_open", func(t *testing.T) {
		leave()
		cmd := exec.Command("/bin/sh", "-c", "exec 9<"+filepath.Join(c.GitDir, "index.lock")+"; echo up; read x")
		in, out := pipes(t, cmd)
		awaitLine(t, out)
		if _, err := (OSTree{}).RemoveIndexLock(c); !errors.Is(err, ErrForeignGit) || !strings.Contains(err.Error(), "sh (pid ") {
			t.Errorf("error %v, want ErrForeignGit that names sh", err)
		}
		in.Close()
		_ = cmd.Wait()
	})

	t.Run("of_another_user", func(t *testing.T) {
		asRoot(t)
		leave()
		chown(t, c.GitDir, "index.lock")
		if _, err := (OSTree{}).RemoveIndexLock(c); !errors.Is(err, ErrForeignGit) || !strings.Contains(err.Error(), "held by nobody") {
			t.Errorf("young: error %v, want ErrForeignGit that names its owner", err)
		}
		old := time.Now().Add(-foreignLockAge - time.Second)
		if err := os.Chtimes(filepath.Join(c.GitDir, "index.lock"), old, old); err != nil {
			t.Fatal(err)
		}
		if removed, err := (OSTree{}).RemoveIndexLock(c); !removed || err != nil {
			t.Errorf("old: %v, %v, want true", removed, err)
		}
	})
}

// liveGit starts a git that lives in the checkout until end is called.
func liveGit(t *testing.T, dir string) (end func()) {
	t.Helper()
	cmd := exec.Command("git", "cat-file", "--batch-check")
	cmd.Dir, cmd.Env = dir, gittest.Env()
	in, out := pipes(t, cmd)
	if _, err := in.Write([]byte("HEAD\n")); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, out)
	return func() { in.Close(); _ = cmd.Wait() }
}
