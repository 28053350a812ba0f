package opsexec

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

func TestFullDisk(t *testing.T) {
	asRoot(t)
	r := gittest.NewRemote(t)
	mnt := t.TempDir()
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) })
	dir := filepath.Join(mnt, "checkout")
	gittest.Git(t, "/", "clone", "-q", r.Dir, dir)
	big := strings.Repeat("a line that compresses well\n", 100_000) // 2.8 MB as a file, next to nothing as a pack
	next := r.Push(map[string]string{"version": big, "a-new-one": "x\n", "big1": big, "sub/big2": big})

	before := snapshot(t, dir)
	got := RunGitPull(t.Context(), dir, fileRemotes())
	if got.OK || !strings.Contains(got.Summary, "git merge: exit status") {
		t.Errorf("got %+v, want a merge that failed", got)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the tree is torn:\nbefore %.300s\nafter  %.300s", before, after)
	}
	checkTidy(t, dir)

	if err := syscall.Mount("tmpfs", mnt, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.New != next {
		t.Errorf("with room again: got %+v, want ok at %s", got, next)
	}
	checkTidy(t, dir)
}

func TestReadOnlyCheckout(t *testing.T) {
	asRoot(t)
	r := gittest.NewRemote(t)
	dir := r.Clone()
	r.Push(map[string]string{"version": "2\n"})
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	got := RunGitPull(t.Context(), dir, fileRemotes())
	if got.OK || got.Busy || !strings.Contains(got.Summary, "read-only file system") {
		t.Errorf("got %+v, want a failure that says read-only", got)
	}
}

// The tree's own directories cannot be written, as after a chown of a part.
func TestPermissionDenied(t *testing.T) {
	r := gittest.NewRemote(t)
	r.Push(map[string]string{"sub/a": "1\n"})
	dir := r.Clone()
	r.Push(map[string]string{"sub/a": "2\n"})
	if os.Geteuid() == 0 { // whom no mode stops
		if err := syscall.Mount(dir+"/sub", dir+"/sub", "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("cannot mount: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir+"/sub", syscall.MNT_DETACH) })
		if err := syscall.Mount("", dir+"/sub", "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	} else {
		chmod(t, 0o555, dir, "sub")
		t.Cleanup(func() { chmod(t, 0o755, dir, "sub") })
	}
	before := snapshot(t, dir)
	got := RunGitPull(t.Context(), dir, fileRemotes())
	if got.OK || !strings.Contains(got.Summary, "unable to unlink old 'sub/a'") {
		t.Errorf("got %+v, want a failure that names the file", got)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the tree was changed:\nbefore %s\nafter  %s", before, after)
	}
}
