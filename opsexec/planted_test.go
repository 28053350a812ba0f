package opsexec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec/gittest"
)

// plants are ways to make somebody's git run a script: from the repository's own
// directory, or from the configuration of the user. Each must work on a plain
// "git pull", or the test would prove nothing.
var plants = map[string]func(t *testing.T, dir, home, script string){
	"hooks": func(t *testing.T, dir, _, script string) {
		for _, hook := range []string{"post-merge", "reference-transaction", "post-index-change", "post-checkout"} {
			to := filepath.Join(dir, ".git/hooks", hook)
			if err := os.Symlink(script, to); err != nil {
				t.Fatal(err)
			}
		}
	},
	"hooks_path": func(t *testing.T, dir, _, script string) {
		mkdir(t, dir, ".git/planted")
		if err := os.Symlink(script, filepath.Join(dir, ".git/planted/post-merge")); err != nil {
			t.Fatal(err)
		}
		gittest.Git(t, dir, "config", "core.hooksPath", filepath.Join(dir, ".git/planted"))
	},
	"fsmonitor": func(t *testing.T, dir, _, script string) {
		gittest.Git(t, dir, "config", "core.fsmonitor", script)
	},
	"ext_remote": func(t *testing.T, dir, _, script string) {
		gittest.Git(t, dir, "config", "protocol.ext.allow", "always")
		gittest.Git(t, dir, "remote", "set-url", "origin", "ext::"+script)
	},
	"ssh_command": func(t *testing.T, dir, _, script string) {
		gittest.Git(t, dir, "config", "core.sshCommand", script)
		gittest.Git(t, dir, "remote", "set-url", "origin", "ssh://127.0.0.1:1/x.git")
	},
	"user_config": func(t *testing.T, dir, home, script string) {
		write(t, "[core]\n\tfsmonitor = "+script+"\n\thooksPath = /nowhere\n[filter \"x\"]\n\tsmudge = "+script+" filter\n\tclean = "+script+" filter\n", home, ".gitconfig")
		write(t, "version filter=x\n", dir, ".git/info/attributes")
	},
}

func TestPlantedCommandsDoNotRun(t *testing.T) {
	t.Setenv("SG_SECRET", "canary")
	r := gittest.NewRemote(t)
	for name, plant := range plants {
		for _, plain := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/plain_git=%v", name, plain), func(t *testing.T) {
				dir := r.Clone()
				gittest.Git(t, dir, "reset", "-q", "--hard", "HEAD")
				r.Push(map[string]string{"version": t.Name() + "\n"})
				home, state := t.TempDir(), t.TempDir()
				loot, script := filepath.Join(state, "loot"), filepath.Join(state, "script")
				write(t, "#!/bin/sh\necho $0 $SG_SECRET >>"+loot+"\nif [ \"$1\" = filter ]; then cat; fi\n", script)
				chmod(t, 0o755, script)
				plant(t, dir, home, script)
				os.Remove(loot)
				if plain {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					cmd := exec.CommandContext(ctx, "git", "pull", "-q", "--ff-only")
					cmd.Dir = dir
					cmd.Env = append(os.Environ(), "HOME="+home, "GIT_TERMINAL_PROMPT=0")
					_ = cmd.Run() // whether it works is not the point
				} else {
					o := fileRemotes()
					o.Env.Home = home
					RunGitPull(t.Context(), dir, o)
				}
				b, _ := os.ReadFile(loot)
				if ran := len(b) > 0; ran != plain {
					t.Errorf("planted commands ran: %v, want %v\n%s", ran, plain, b)
				}
				if plain && !strings.Contains(string(b), "canary") {
					t.Errorf("the canary does not sing:\n%s", b)
				}
			})
		}
	}
}

// gc would run detached, outside our group, and hold the flock.
func TestPullDoesNotCollectGarbage(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprintf("plain_git=%v", plain), func(t *testing.T) {
			r := gittest.NewRemote(t)
			dir := r.Clone()
			for _, kv := range []string{"gc.autoPackLimit=1", "gc.autoDetach=false", "fetch.unpackLimit=1"} {
				k, v, _ := strings.Cut(kv, "=")
				gittest.Git(t, dir, "config", k, v)
			}
			packs := 0
			for i := range 3 {
				r.Push(map[string]string{"version": fmt.Sprintln("gc", i)})
				if plain {
					gittest.Git(t, dir, "pull", "-q", "--ff-only")
				} else if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK {
					t.Fatalf("got %+v", got)
				}
				found, _ := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.pack"))
				packs = len(found)
			}
			if collected := packs == 1; collected != plain {
				t.Errorf("%d packs after three pulls: collected %v, want %v", packs, collected, plain)
			}
		})
	}
}

// Submodules are not ours to move, and one that has been left behind does not
// make the tree dirty for ever.
func TestPullLeavesSubmodulesAlone(t *testing.T) {
	sub, r := gittest.NewRemote(t), gittest.NewRemote(t)
	work := r.Clone()
	add := func(args ...string) {
		gittest.Git(t, work, append([]string{"-c", "protocol.file.allow=always"}, args...)...)
	}
	add("submodule", "add", "-q", sub.Dir, "lib")
	add("commit", "-q", "-m", "with a submodule")
	add("push", "-q")
	dir := filepath.Join(t.TempDir(), "checkout")
	gittest.Git(t, "/", "-c", "protocol.file.allow=always", "clone", "-q", "--recurse-submodules", r.Dir, dir)
	gittest.Git(t, dir, "config", "submodule.recurse", "true")
	was := gittest.Head(t, dir+"/lib")

	sub.Push(map[string]string{"version": "2\n"})
	add("-C", "lib", "pull", "-q")
	add("commit", "-q", "-a", "-m", "newer submodule")
	add("push", "-q")
	for range 2 {
		if got := RunGitPull(t.Context(), dir, fileRemotes()); !got.OK {
			t.Errorf("got %+v, want ok", got)
		}
	}
	if got, want := gittest.Head(t, dir), gittest.Head(t, work); got != want {
		t.Errorf("checkout at %s, want %s", got, want)
	}
	if got := gittest.Head(t, dir+"/lib"); got != was {
		t.Errorf("submodule moved to %s, want it left at %s", got, was)
	}
}
