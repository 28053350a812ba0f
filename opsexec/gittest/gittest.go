// Package gittest makes git remotes and checkouts for tests. Its git sees no
// configuration of the user or the machine, and the same calls make the same
// revisions.
package gittest

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Remote is a bare repository whose branch main is pushed to by [Remote.Push].
type Remote struct {
	Dir string

	t       testing.TB
	commits int
}

// NewRemote makes a remote with one commit, in which the file "version" says 1.
// Without git on the machine the test is skipped, unless CI is set.
func NewRemote(t testing.TB) *Remote {
	t.Helper()
	needGit(t)
	r := &Remote{Dir: filepath.Join(t.TempDir(), "remote.git"), t: t}
	run(t, "", "", "init", "-q", "--bare", "--initial-branch=main", r.Dir)
	r.Push(map[string]string{"version": "1\n"})
	return r
}

// Push commits files (name → content) on top of main and returns the revision.
// An empty content removes the file.
func (r *Remote) Push(files map[string]string) string {
	r.t.Helper()
	return r.PushTo("main", files)
}

// PushTo is [Remote.Push] to another branch, which begins at main's tip.
func (r *Remote) PushTo(branch string, files map[string]string) string {
	r.t.Helper()
	ref := "refs/heads/" + branch
	r.commits++
	who := fmt.Sprintf("Test <test@example.org> %d +0000", 1_767_225_600+r.commits)
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s\nauthor %s\ncommitter %s\n", ref, who, who)
	data(&b, fmt.Sprintf("commit %d\n", r.commits))
	for _, from := range []string{ref, "refs/heads/main"} {
		if r.Revision(from) != "" {
			fmt.Fprintf(&b, "from %s^0\n", from)
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if files[name] == "" {
			fmt.Fprintf(&b, "D %s\n", name)
			continue
		}
		fmt.Fprintf(&b, "M 100644 inline %s\n", name)
		data(&b, files[name])
	}
	run(r.t, r.Dir, b.String(), "fast-import", "--quiet", "--force")
	return r.Revision(ref)
}

func data(b *strings.Builder, s string) { fmt.Fprintf(b, "data %d\n%s\n", len(s), s) }

// Revision returns the commit that a ref of the remote is at, "" without one.
func (r *Remote) Revision(ref string) string {
	cmd := exec.Command("git", "rev-parse", "--verify", "-q", ref+"^{commit}")
	cmd.Dir, cmd.Env = r.Dir, Env()
	out, _ := cmd.Output()
	return strings.TrimSpace(string(out))
}

// Clone makes a checkout of main in a new directory and returns its path.
func (r *Remote) Clone() string {
	r.t.Helper()
	dir := filepath.Join(r.t.TempDir(), "checkout")
	run(r.t, "", "", "clone", "-q", r.Dir, dir)
	return dir
}

// Tree returns n files, each with the given content after its own name.
func Tree(n int, content string) map[string]string {
	files := make(map[string]string, n)
	for i := range n {
		name := fmt.Sprintf("dir%02d/file%05d", i%50, i)
		files[name] = name + " " + content + "\n"
	}
	return files
}

// Git runs git in dir and returns its output without surrounding space.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return run(t, dir, "", args...)
}

// Head returns the revision that the checkout at dir is on.
func Head(t testing.TB, dir string) string {
	t.Helper()
	return Git(t, dir, "rev-parse", "HEAD")
}

// Env is the environment that the package's git runs in.
func Env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.org", "GIT_AUTHOR_DATE=1767225600 +0000",
		"GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.org", "GIT_COMMITTER_DATE=1767225600 +0000",
	}
}

func run(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, Env(), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func needGit(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("git"); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("git is not installed")
	}
	t.Skip("needs git: apt-get install git")
}
