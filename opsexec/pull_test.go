package opsexec

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

// marking gives the git processes of a pull a mark by which they are found.
func marking(t *testing.T, o *PullOptions) (mark string) {
	t.Helper()
	o.Env.Home = t.TempDir()
	mark = "HOME=" + o.Env.Home
	t.Cleanup(func() { killMarked(mark) })
	return mark
}

func TestRunGitPullGoesToARevision(t *testing.T) {
	r := gittest.NewRemote(t)
	one := r.Revision("main")
	two := r.Push(map[string]string{"version": "2\n", "only-in-two": "x\n"})
	three := r.Push(map[string]string{"version": "3\n", "only-in-two": ""})
	side := r.PushTo("side", map[string]string{"version": "side\n"})
	dir := filepath.Join(t.TempDir(), "checkout")
	gittest.Git(t, "/", "clone", "-q", r.Dir, dir)
	gittest.Git(t, dir, "reset", "-q", "--hard", one)

	steps := []struct {
		name     string
		revision string
		backward bool
		want     PullResult
	}{
		{"forward", two, false, PullResult{Ran: true, OK: true, Old: one, New: two, Summary: one[:10] + ".." + two[:10] + ", 1 commit"}},
		{"already there", two, false, PullResult{Ran: true, OK: true, Old: two, New: two, Summary: "up to date at " + two[:10]}},
		{"abbreviated", three[:8], false, PullResult{Ran: true, OK: true, Old: two, New: three, Summary: two[:10] + ".." + three[:10] + ", 1 commit"}},
		{"back unasked", one, false, PullResult{Ran: true, Old: three, New: three, Summary: "refused: " + one[:10] + " is 2 commits behind the checkout's " + three[:10] + ", and going backward was not asked for"}},
		{"back", one, true, PullResult{Ran: true, OK: true, Old: three, New: one, Summary: three[:10] + ".." + one[:10] + ", back 2 commits"}},
		{"to the tip", "", false, PullResult{Ran: true, OK: true, Old: one, New: three, Summary: one[:10] + ".." + three[:10] + ", 2 commits"}},
		{"not on the branch", side, true, PullResult{Ran: true, OK: true, Old: three, New: side, Summary: three[:10] + ".." + side[:10] + ", 1 commit"}},
		{"tip has not what we have", "", false, PullResult{Ran: true, OK: true, Old: side, New: side, Summary: "up to date at " + side[:10] + ", 1 commit ahead of the upstream"}},
	}
	for _, s := range steps {
		o := fileRemotes()
		o.Revision, o.AllowBackward = s.revision, s.backward
		checkResult(t, s.name, RunGitPull(t.Context(), dir, o), s.want)
		if got := gittest.Head(t, dir); got != s.want.New {
			t.Errorf("%s: HEAD is %s, want %s", s.name, got, s.want.New)
		}
		checkTidy(t, dir)
	}
}

func TestRunGitPullFollowsTheUpstream(t *testing.T) {
	r := gittest.NewRemote(t)
	r.PushTo("release", map[string]string{"version": "r1\n"})
	dir := r.Clone()
	gittest.Git(t, dir, "remote", "rename", "origin", "hub")
	gittest.Git(t, dir, "checkout", "-q", "-b", "prod", "hub/release")
	next := r.PushTo("release", map[string]string{"version": "r2\n"})
	if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.New != next {
		t.Errorf("got %+v, want %s of hub/release", got, next)
	}
	// The index's times say that a file may have changed; it has not.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "version"), later, later); err != nil {
		t.Fatal(err)
	}
	next = r.PushTo("release", map[string]string{"version": "r3\n"})
	if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.New != next {
		t.Errorf("touched file: got %+v, want %s", got, next)
	}
}

func TestRunGitPullInAWorktree(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := filepath.Join(t.TempDir(), "tree")
	gittest.Git(t, r.Clone(), "worktree", "add", "-q", "-b", "prod", dir, "origin/main")
	next := r.Push(map[string]string{"version": "2\n"})
	if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.New != next {
		t.Errorf("got %+v, want %s", got, next)
	}
}

func TestAfterPullRunsInTheCheckout(t *testing.T) {
	t.Setenv("SG_SECRET", "canary")
	r := gittest.NewRemote(t)
	dir := r.Clone()
	r.Push(map[string]string{"version": "2\n"})
	o := fileRemotes()
	out := filepath.Join(t.TempDir(), "out")
	o.AfterPull = []string{"sh", "-c", "{ cat version; pwd; env; } >" + out}
	if got := RunGitPull(t.Context(), dir, o); !got.OK {
		t.Fatalf("got %+v", got)
	}
	got := read(t, out)
	if !strings.HasPrefix(got, "2\n"+dir+"\n") || !strings.Contains(got, "GIT_TERMINAL_PROMPT=0\n") || strings.Contains(got, "canary") {
		t.Errorf("after_pull saw\n%s\nwant the new version, the checkout, git's environment and no secret", got)
	}
}

func TestAfterPullOfTheCheckoutItself(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := r.Clone()
	r.Push(map[string]string{"bin/install": "#!/bin/sh\npwd >installed\n"})
	o := fileRemotes()
	o.AfterPull = []string{"bin/install"}
	if got := RunGitPull(t.Context(), dir, o); got.OK || !strings.Contains(got.Summary, "permission denied") {
		t.Errorf("a program that may not be executed: got %+v", got)
	}
	write(t, "#!/bin/sh\npwd >installed\n", dir, "bin/local") // not git's: a changed mode would be a local change
	chmod(t, 0o755, dir, "bin/local")
	o.AfterPull = []string{"bin/local"}
	if got := RunGitPull(t.Context(), dir, o); !got.OK {
		t.Fatalf("got %+v", got)
	}
	if got := read(t, filepath.Join(dir, "installed")); got != dir+"\n" {
		t.Errorf("it ran in %q, want %q", got, dir)
	}
}

// A filter of the repository's configuration does run, but finds no secret.
func TestFiltersFindNoSecret(t *testing.T) {
	t.Setenv("SG_SECRET", "canary")
	r := gittest.NewRemote(t)
	dir := r.Clone()
	loot := filepath.Join(t.TempDir(), "loot")
	gittest.Git(t, dir, "config", "filter.x.smudge", "env >>"+loot+"; cat")
	r.Push(map[string]string{".gitattributes": "* filter=x\n"})
	r.Push(map[string]string{"version": "2\n"})
	if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK {
		t.Fatalf("got %+v", got)
	}
	if s := read(t, loot); strings.Contains(s, "canary") || !strings.Contains(s, "PATH=") {
		t.Errorf("the filter saw\n%s", s)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	dir := gittest.NewRemote(t).Clone()
	gittest.Git(t, dir, "remote", "set-url", "origin", "https://deploy:hunter2@127.0.0.1:1/app.git")
	o := fileRemotes()
	o.Env.Pass = []string{"HTTPS_PROXY=http://px:s3same@127.0.0.1:1", "API_TOKEN=opensesame"}
	o.AfterPull = []string{"false"}
	s := &lockServer{}
	o.Lock, o.OpID = s.lock("web@h1"), "op1"
	got := RunGitPull(t.Context(), dir, o)
	for _, text := range []string{got.Summary, s.outcome.Error} {
		for _, secret := range []string{"hunter2", "s3same", "opensesame"} {
			if strings.Contains(text, secret) || got.OK {
				t.Errorf("%q shows %q", text, secret)
			}
		}
	}
	if !strings.Contains(got.Summary, "git fetch") {
		t.Errorf("got %+v, want the fetch to have failed", got)
	}
}

// hang makes the remote's side of a fetch wait until the file "go" appears in
// the returned directory; "up" appears there when it has begun.
func hang(t *testing.T, dir string) (state string) {
	t.Helper()
	state = t.TempDir()
	script := filepath.Join(state, "upload-pack")
	write(t, "#!/bin/sh\ntouch "+state+"/up\nuntil [ -e "+state+"/go ]; do sleep 0.02; done\nexec git-upload-pack \"$@\"\n", script)
	chmod(t, 0o755, script)
	gittest.Git(t, dir, "config", "remote.origin.uploadpack", script)
	return state
}

func TestHungRemoteIsKilled(t *testing.T) {
	r := gittest.NewRemote(t)
	for _, how := range []string{"file", "ssh"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := r.Clone()
			o := fileRemotes()
			// The time is the pull's: the gits before the fetch use it up as well,
			// on a slow machine all of it. So it is cut for the fetch alone.
			o.Exec = func(ctx context.Context, cmd Cmd) (Result, error) {
				if commandName(cmd.Argv) == "git fetch" {
					if cmd.Timeout <= 0 || cmd.Timeout > o.Timeout {
						t.Errorf("the fetch may take %v of %v", cmd.Timeout, o.Timeout)
					}
					cmd.Timeout = time.Second
				}
				return OSExec(ctx, cmd)
			}
			if how == "file" {
				hang(t, dir)
			} else { // the real ssh, at a server that accepts and says nothing
				if _, err := exec.LookPath("ssh"); err != nil {
					t.Skip("needs ssh: apt-get install openssh-client")
				}
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				gittest.Git(t, dir, "remote", "set-url", "origin", "ssh://git@"+l.Addr().String()+"/app.git")
			}
			mark := marking(t, &o)
			before := snapshot(t, dir)
			began := time.Now()
			got := RunGitPull(t.Context(), dir, o)
			if got.OK || !strings.Contains(got.Summary, "git fetch: timed out after") {
				t.Errorf("got %+v, want a fetch that timed out", got)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("took %v", took)
			}
			checkNoneLeft(t, mark)
			checkTidy(t, dir)
			if after := snapshot(t, dir); after != before {
				t.Errorf("the tree was changed:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// The daemon is killed while git fetches: the flock stays with git.
func TestKilledDaemonLeavesTheFlockWithGit(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := r.Clone()
	next := r.Push(map[string]string{"version": "2\n"})
	state := hang(t, dir)
	job := childJob{Dir: dir, Home: t.TempDir()}
	mark := "HOME=" + job.Home
	t.Cleanup(func() { killMarked(mark) })
	child := startChild(t, job)
	eventually(t, "the fetch", exists(state, "up"))
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	s := &lockServer{}
	s.hold(PullHolder{Instance: "dead@h1"}, 90*time.Second)
	if len(marked(mark)) == 0 {
		t.Fatal("no orphan git: the test does not test what it says")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := (OSTree{}).Lock(ctx, resolve(t, dir), Exclusive); err == nil {
		t.Error("the flock is free while the orphan lives")
	}

	const n = 4
	results := make([]PullResult, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			o := fileRemotes()
			o.OpID, o.InstanceID = "op1", fmt.Sprintf("svc%d@h1", i)
			o.Lock = s.lock(o.InstanceID)
			results[i] = RunGitPull(t.Context(), dir, o)
		})
	}
	time.Sleep(1500 * time.Millisecond) // all of them find the flock held
	if len(s.writes) > 0 {
		t.Errorf("pulled while the orphan lived: %+v", s.writes)
	}
	write(t, "", state, "go")
	wg.Wait()
	ran := 0
	for _, got := range results {
		if got.Ran {
			ran++
		}
		if !got.OK || got.New != next {
			t.Errorf("got %+v, want ok at %s", got, next)
		}
	}
	if ran != 1 || len(s.writes) != 1 {
		t.Errorf("%d pulled, %d outcomes; want one takeover", ran, len(s.writes))
	}
	checkNoneLeft(t, mark)
	checkTidy(t, dir)
}

func TestServicesShareOneRealPull(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := r.Clone()
	next := r.Push(gittest.Tree(200, "one"))
	s := &lockServer{}
	results := make([]PullResult, 6)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			o := fileRemotes()
			o.OpID, o.InstanceID = "op1", fmt.Sprintf("svc%d@h1", i)
			o.Lock = s.lock(o.InstanceID)
			results[i] = RunGitPull(t.Context(), dir, o)
		})
	}
	wg.Wait()
	ran := 0
	for _, got := range results {
		if got.Ran {
			ran++
		}
		if !got.OK || got.New != next || got.Ran == got.Joined {
			t.Errorf("got %+v, want it to have pulled or joined %s", got, next)
		}
	}
	if ran != 1 {
		t.Errorf("%d pulls, want 1", ran)
	}
}

func TestForeignGitMakesBusy(t *testing.T) {
	r := gittest.NewRemote(t)
	dir := r.Clone()
	r.Push(map[string]string{"version": "2\n"})
	write(t, "", dir, ".git/index.lock")
	end := liveGit(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), foreignWait/3)
	defer cancel()
	got := RunGitPull(ctx, dir, fileRemotes())
	if !got.Busy || got.OK || !strings.Contains(got.Summary, "busy: another git is at work in the checkout: git (pid ") {
		t.Errorf("got %+v, want busy and who it is", got)
	}
	end()
	// Its lock file is a dead one's now.
	if got = RunGitPull(t.Context(), dir, fileRemotes()); !got.OK {
		t.Errorf("got %+v, want ok", got)
	}
	checkTidy(t, dir)
}

func TestHead(t *testing.T) {
	dir := gittest.NewRemote(t).Clone()
	want := gittest.Head(t, dir)
	if got, err := Head(t.Context(), OSExec, OSTree{}, dir); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := Head(t.Context(), OSExec, OSTree{}, t.TempDir()); err == nil {
		t.Error("no checkout: no error")
	}
}
