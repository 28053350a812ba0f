package opsexec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

// tear leaves dir as a daemon and a git that were killed in the middle of a
// merge to next do: some files are next's, some are half written, the index is
// locked, the marker is there.
func tear(t *testing.T, dir, next string) (old string) {
	t.Helper()
	old = gittest.Head(t, dir)
	c := resolve(t, dir)
	if err := (OSTree{}).SetMarker(c, &Marker{Old: old, Next: next}); err != nil {
		t.Fatal(err)
	}
	write(t, "", c.GitDir, "index.lock")
	write(t, gittest.Git(t, dir, "show", next+":version")+"\n", dir, "version")
	write(t, "ha", dir, "new") // of "half written"
	if err := os.Remove(filepath.Join(dir, "keep")); err != nil {
		t.Fatal(err)
	}
	return old
}

func tornCheckout(t *testing.T) (r *gittest.Remote, dir, old, next string) {
	r = gittest.NewRemote(t)
	r.Push(map[string]string{"keep": "kept\n"})
	dir = r.Clone()
	next = r.Push(map[string]string{"version": "2\n", "new": "half written\n"})
	gittest.Git(t, dir, "fetch", "-q")
	return r, dir, tear(t, dir, next), next
}

func TestInterruptedPullIsRepaired(t *testing.T) {
	t.Run("by_the_next_pull", func(t *testing.T) {
		_, dir, old, next := tornCheckout(t)
		got := RunGitPull(t.Context(), dir, fileRemotes())
		want := PullResult{
			Ran: true, OK: true, Old: old, New: next,
			Summary: old[:10] + ".." + next[:10] + ", 1 commit (repaired an interrupted pull, back to " + old[:10] + ")",
		}
		checkResult(t, "pull", got, want)
		if read(t, dir, "new") != "half written\n" || read(t, dir, "keep") != "kept\n" {
			t.Error("the files are not the new revision's")
		}
		checkTidy(t, dir)
	})
	t.Run("at_start-up", func(t *testing.T) {
		_, dir, old, _ := tornCheckout(t)
		write(t, "mine\n", dir, "untracked")
		done, err := Repair(t.Context(), dir, RepairOptions{})
		if want := "repaired an interrupted pull, back to " + old[:10]; done != want || err != nil {
			t.Errorf("got %q, %v, want %q", done, err, want)
		}
		if read(t, dir, "untracked") != "mine\n" || read(t, dir, "version") != "1\n" || exists(dir, "new")() {
			t.Error("want the old revision's files, and the untracked file untouched")
		}
		os.Remove(filepath.Join(dir, "untracked"))
		checkTidy(t, dir)
		if done, err := Repair(t.Context(), dir, RepairOptions{}); done != "" || err != nil {
			t.Errorf("second time: %q, %v, want nothing to do", done, err)
		}
	})
	t.Run("merge_had_finished", func(t *testing.T) {
		r, dir, old, next := tornCheckout(t)
		os.Remove(filepath.Join(dir, ".git/index.lock"))
		gittest.Git(t, dir, "reset", "-q", "--hard", next)
		if done, err := Repair(t.Context(), dir, RepairOptions{}); err != nil || gittest.Head(t, dir) != old {
			t.Errorf("got %q, %v, HEAD %s, want %s", done, err, gittest.Head(t, dir), old)
		}
		checkTidy(t, dir)
		_ = r
	})
	t.Run("unreadable_marker", func(t *testing.T) {
		_, dir, old, next := tornCheckout(t)
		write(t, "{torn", dir, ".git", markerFile)
		os.Remove(filepath.Join(dir, "new")) // cannot be told from a file of somebody's
		if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.Old != old || got.New != next {
			t.Errorf("got %+v, want %s..%s", got, old, next)
		}
		checkTidy(t, dir)
	})
	t.Run("at_start-up_though_time_is_up", func(t *testing.T) {
		_, dir, old, _ := tornCheckout(t)
		ctx, cancel := context.WithCancel(t.Context())
		exec := func(c context.Context, cmd Cmd) (Result, error) {
			cancel()
			return OSExec(c, cmd)
		}
		if _, err := Repair(ctx, dir, RepairOptions{Exec: exec}); err != nil || gittest.Head(t, dir) != old {
			t.Errorf("error %v, HEAD %s, want %s", err, gittest.Head(t, dir), old)
		}
		checkTidy(t, dir)
	})
	t.Run("stale_index_lock_alone", func(t *testing.T) {
		dir := gittest.NewRemote(t).Clone()
		write(t, "", dir, ".git/index.lock")
		done, err := Repair(t.Context(), dir, RepairOptions{})
		if done != "removed what a killed git left behind" || err != nil {
			t.Errorf("got %q, %v", done, err)
		}
		checkTidy(t, dir)
	})
}

// What somebody did to the checkout after the interruption is not undone.
func TestRepairKeepsWorkDoneByHand(t *testing.T) {
	byHand := func(t *testing.T) (dir, head string) {
		_, dir, _, _ = tornCheckout(t)
		os.Remove(filepath.Join(dir, ".git/index.lock"))
		gittest.Git(t, dir, "reset", "-q", "--hard")
		os.Remove(filepath.Join(dir, "new"))
		gittest.Git(t, dir, "commit", "-q", "--allow-empty", "-m", "by hand")
		return dir, gittest.Head(t, dir)
	}
	t.Run("clean", func(t *testing.T) {
		dir, head := byHand(t)
		done, err := Repair(t.Context(), dir, RepairOptions{})
		if err != nil || gittest.Head(t, dir) != head {
			t.Errorf("got %q, %v, HEAD moved to %s", done, err, gittest.Head(t, dir))
		}
		checkTidy(t, dir)
	})
	t.Run("dirty", func(t *testing.T) {
		dir, head := byHand(t)
		write(t, "mine\n", dir, "version")
		_, err := Repair(t.Context(), dir, RepairOptions{})
		if err == nil || !strings.Contains(err.Error(), "HEAD was moved by hand") || !strings.Contains(err.Error(), ": version") {
			t.Errorf("error %v, want one that names the file", err)
		}
		if gittest.Head(t, dir) != head || read(t, dir, "version") != "mine\n" {
			t.Error("work was lost")
		}
	})
}

// Nor is a file put back that the pull had nothing to do with: it was edited
// after the interruption.
func TestRepairKeepsEdits(t *testing.T) {
	for _, finished := range []bool{false, true} {
		_, dir, old, next := tornCheckout(t)
		if finished { // the daemon died between the end of the merge and the marker's
			os.Remove(filepath.Join(dir, ".git/index.lock"))
			gittest.Git(t, dir, "reset", "-q", "--hard", next)
		}
		write(t, "mine\n", dir, "keep")
		_, err := Repair(t.Context(), dir, RepairOptions{})
		got := RunGitPull(t.Context(), dir, fileRemotes())
		for _, says := range []string{fmt.Sprint(err), got.Summary} {
			if !strings.Contains(says, "local changes") || !strings.Contains(says, ": keep") || strings.Contains(says, "version") {
				t.Errorf("finished %v: %s; want a refusal that names the file keep, and no other", finished, says)
			}
		}
		if read(t, dir, "keep") != "mine\n" {
			t.Fatalf("finished %v: the edit was lost", finished)
		}
		gittest.Git(t, dir, "checkout", "-q", "HEAD", "keep")
		if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK || got.Old != old || got.New != next {
			t.Errorf("finished %v: once the edit is undone: got %+v, want %s..%s", finished, got, old, next)
		}
		checkTidy(t, dir)
	}
}

func TestRepairWaitsForARunningPull(t *testing.T) {
	_, dir, _, _ := tornCheckout(t)
	l, err := OSTree{}.Lock(t.Context(), resolve(t, dir), Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Repair(ctx, dir, RepairOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v, want locked", err)
	}
	if !exists(dir, ".git/index.lock")() {
		t.Error("index.lock was removed without the flock")
	}
}

// A git killed alone is cleaned up after at once: the daemon still lives.
func TestKilledMergeIsUndoneAtOnce(t *testing.T) {
	r := gittest.NewRemote(t)
	r.Push(map[string]string{"keep": "kept\n"})
	dir := r.Clone()
	next := r.Push(map[string]string{"version": "2\n", "new": "half written\n"})
	o := fileRemotes()
	var old string
	o.Exec = func(ctx context.Context, cmd Cmd) (Result, error) {
		if commandName(cmd.Argv) != "git merge" {
			return OSExec(ctx, cmd)
		}
		old = tear(t, dir, next)
		return Result{ExitCode: -1}, errors.New("git merge: signal: killed")
	}
	got := RunGitPull(t.Context(), dir, o)
	checkResult(t, "pull", got, PullResult{Ran: true, Old: old, New: old, Summary: "git merge: signal: killed"})
	if read(t, dir, "version") != "1\n" || read(t, dir, "keep") != "kept\n" || exists(dir, "new")() {
		t.Error("want the old revision's files")
	}
	checkTidy(t, dir)
}

// kills is how many pulls TestKilledPullsHeal kills.
func kills() int {
	switch {
	case os.Getenv("SGFLEET_SOAK") != "":
		return 1000
	case testing.Short():
		return 5
	}
	return 25
}

// Pulls are killed at random moments: git alone (as the kernel does when memory
// is short), the daemon alone, both (as a power cut does). Whatever is left, the
// next pull works and nothing stays behind.
func TestKilledPullsHeal(t *testing.T) {
	const files = 250
	r := gittest.NewRemote(t)
	r.Push(gittest.Tree(files, "0"))
	dir := r.Clone()
	rng := rand.New(rand.NewPCG(1, 2))
	job := childJob{Dir: dir, Home: t.TempDir()}
	mark := "HOME=" + job.Home
	t.Cleanup(func() { killMarked(mark) })

	longest := 500 * time.Millisecond // of an undisturbed pull, so far
	healed, struck := 0, 0
	for i := range kills() {
		next := r.Push(generation(files, i))
		began := time.Now()
		child := startChild(t, job)
		time.Sleep(time.Duration(rng.Int64N(int64(longest))))
		how := rng.IntN(3)
		if how != 0 {
			_ = child.Process.Kill()
		}
		if how != 1 {
			killMarked(mark)
		}
		_ = child.Wait()
		if m, _ := (OSTree{}).Marker(resolve(t, dir)); m != nil {
			struck++
		}
		got := RunGitPull(t.Context(), dir, job.options())
		if !got.OK || got.New != next || gittest.Head(t, dir) != next {
			t.Fatalf("kill %d (kind %d, after %v): got %+v, want ok at %s", i, how, time.Since(began), got, next)
		}
		checkTidy(t, dir)
		checkNoneLeft(t, mark)
		if t.Failed() {
			t.Fatalf("kill %d (kind %d)", i, how)
		}
		healed++
	}
	t.Logf("%d of %d healed, %d had left a marker", healed, kills(), struck)
}

// generation is a commit that changes, adds and removes files.
func generation(files, i int) map[string]string {
	all := gittest.Tree(files, fmt.Sprint("generation ", i))
	maps.Copy(all, map[string]string{"version": fmt.Sprintln(i + 2)})
	for k := range 40 {
		all[fmt.Sprintf("gen/%d/%d", i, k)] = "new\n"
		if i > 0 {
			all[fmt.Sprintf("gen/%d/%d", i-1, k)] = ""
		}
	}
	return all
}
