package opsexec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

// fileRemotes are options for pulling from remotes of gittest.
func fileRemotes() PullOptions {
	return PullOptions{Env: GitEnv{AllowFile: true}, Timeout: 30 * time.Second}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRunGitPullFastForwards(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := r.Clone()
	old := gittest.Head(t, dir)

	got := RunGitPull(t.Context(), dir, fileRemotes())
	want := PullResult{Ran: true, OK: true, Old: old, New: old, Summary: "up to date at " + old[:10]}
	if got != want {
		t.Errorf("nothing new:\ngot  %+v\nwant %+v", got, want)
	}

	r.Push(map[string]string{"version": "2\n", "new": "x\n"})
	next := r.Push(map[string]string{"version": "3\n"})
	got = RunGitPull(t.Context(), dir, fileRemotes())
	want = PullResult{Ran: true, OK: true, Old: old, New: next, Summary: old[:10] + ".." + next[:10] + ", 2 commits"}
	if got != want {
		t.Errorf("two commits:\ngot  %+v\nwant %+v", got, want)
	}
	if v := read(t, dir, "version"); v != "3\n" {
		t.Errorf("version = %q, want 3", v)
	}
	checkTidy(t, dir)
}

// checkTidy fails when a pull has left its marker, a lock of git or a change.
func checkTidy(t *testing.T, dir string) {
	t.Helper()
	if m, err := (OSTree{}).Marker(Checkout{GitDir: filepath.Join(dir, ".git")}); m != nil || err != nil {
		t.Errorf("marker left: %+v, %v", m, err)
	}
	if s := gittest.Git(t, dir, "status", "--porcelain"); s != "" {
		t.Errorf("tree is not clean:\n%s", s)
	}
	for _, f := range gitLeftovers(Checkout{GitDir: filepath.Join(dir, ".git")}) {
		t.Errorf("left behind: %s", f)
	}
}

func TestRunGitPullRefuses(t *testing.T) {
	type fixture struct {
		remote *gittest.Remote
		dir    string
		o      *PullOptions
	}
	tests := map[string]struct {
		prepare func(*testing.T, fixture)
		want    string
	}{
		"dirty tree": {func(t *testing.T, f fixture) { write(t, "mine\n", f.dir, "version") }, "local changes, commit or undo them (git -C DIR status): version"},
		"staged change": {func(t *testing.T, f fixture) {
			write(t, "mine\n", f.dir, "added")
			gittest.Git(t, f.dir, "add", "added")
		}, "local changes, commit or undo them (git -C DIR status): added"},
		"untracked file in the way": {func(t *testing.T, f fixture) { write(t, "mine\n", f.dir, "new") }, "Untracked working tree file 'new' would be overwritten by merge"},
		"diverged":                  {func(t *testing.T, f fixture) { gittest.Git(t, f.dir, "commit", "-q", "--allow-empty", "-m", "x") }, "have diverged (1 commit here, 2 commits there)"},
		"detached":                  {func(t *testing.T, f fixture) { gittest.Git(t, f.dir, "checkout", "-q", "--detach") }, "HEAD is detached: set the checkout's branch"},
		"unknown branch":            {func(_ *testing.T, f fixture) { f.o.Branch = "nowhere" }, "couldn't find remote ref refs/heads/nowhere"},
		"unknown remote":            {func(_ *testing.T, f fixture) { f.o.Remote = "nowhere" }, "'nowhere' does not appear to be a git repository"},
		"unknown revision":          {func(_ *testing.T, f fixture) { f.o.Revision = strings.Repeat("ab", 20) }, "is not in origin/main"},
		"remote like an option":     {func(_ *testing.T, f fixture) { f.o.Remote = "--upload-pack=touch pwned" }, "is not a valid name"},
		"branch like an option":     {func(_ *testing.T, f fixture) { f.o.Branch = "-b" }, "is not a valid name"},
		"revision like an option":   {func(_ *testing.T, f fixture) { f.o.Revision = "--output=x" }, "is not a commit id"},
		"file remote not allowed":   {func(_ *testing.T, f fixture) { f.o.Env.AllowFile = false }, "transport 'file' not allowed"},
		"no checkout":               {func(t *testing.T, f fixture) { os.RemoveAll(filepath.Join(f.dir, ".git")) }, "is no git checkout"},
		"after_pull fails":          {func(_ *testing.T, f fixture) { f.o.AfterPull = []string{"false"} }, "but after_pull failed: false: exit status 1"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			o := fileRemotes()
			f := fixture{gittest.NewRemote(t), "", &o}
			f.dir = f.remote.Clone()
			f.remote.Push(map[string]string{"version": "2\n", "new": "x\n"})
			f.remote.Push(map[string]string{"version": "3\n"})
			tt.prepare(t, f)
			want := strings.ReplaceAll(tt.want, "DIR", f.dir)
			before := snapshot(t, f.dir)
			got := RunGitPull(t.Context(), f.dir, o)
			if got.OK || got.Busy || !strings.Contains(got.Summary, want) {
				t.Errorf("got %+v\nwant a refusal with %q", got, want)
			}
			if name == "after_pull fails" {
				return
			}
			if after := snapshot(t, f.dir); after != before {
				t.Errorf("the tree was changed:\nbefore %s\nafter  %s", before, after)
			}
			if m, _ := (OSTree{}).Marker(Checkout{GitDir: filepath.Join(f.dir, ".git")}); m != nil {
				t.Errorf("marker left: %+v", m)
			}
		})
	}
}

// snapshot is the content of all files of a checkout and where HEAD is.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil && fi.Mode().IsRegular() {
			b.WriteString(filepath.Base(f) + "=" + read(t, f) + ";")
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		b.WriteString(gittest.Head(t, dir))
	}
	return b.String()
}
