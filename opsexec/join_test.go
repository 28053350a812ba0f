package opsexec

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// host is one host in a bubble: a checkout, a git, a lock server.
type host struct {
	git    *fakeGit
	tree   *fakeTree
	server *lockServer
}

func newHost() *host {
	return &host{
		git:    &fakeGit{head: 1, tracked: 1, upstream: 3, fetch: 3 * time.Second},
		tree:   newFakeTree(),
		server: &lockServer{},
	}
}

func (h *host) pull(ctx context.Context, name string, o PullOptions) PullResult {
	o.Exec, o.Tree, o.InstanceID = h.git.exec, h.tree, name
	if o.Lock == nil {
		o.Lock = h.server.lock(name)
	}
	return RunGitPull(ctx, "/srv/app", o)
}

// together lets n services pull, splayed as the daemons do it.
func (h *host) together(ctx context.Context, n int, o PullOptions) []PullResult {
	results := make([]PullResult, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			time.Sleep(time.Duration(i)*37*time.Millisecond + time.Duration(i))
			results[i] = h.pull(ctx, fmt.Sprintf("svc%d@h1", i), o)
		})
	}
	wg.Wait()
	return results
}

func inBubble(t *testing.T, name string, f func(t *testing.T, h *host)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, newHost()) }) })
}

func checkResult(t *testing.T, what string, got, want PullResult) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

func TestOnePullPerCheckout(t *testing.T) {
	ok := PullResult{Ran: true, OK: true, Old: rev(1), New: rev(3), Summary: "0000000000..0000000000, 2 commits"}
	join := PullResult{OK: true, Joined: true, Holder: "svc0@h1", Old: rev(1), New: rev(3), Summary: "joined the pull of svc0@h1: 0000000000..0000000000"}

	inBubble(t, "same_op", func(t *testing.T, h *host) {
		got := h.together(t.Context(), 5, PullOptions{OpID: "op1"})
		checkResult(t, "holder", got[0], ok)
		for _, r := range got[1:] {
			checkResult(t, "joiner", r, join)
		}
		if got := h.server.holderLocked(); got.Instance != "" {
			t.Errorf("%s still holds the lock", got.Instance)
		}
		if n := h.git.count("fetch"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
	inBubble(t, "late_instance_of_the_same_op", func(t *testing.T, h *host) {
		h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1"})
		h.git.upstream = 9
		time.Sleep(time.Minute)
		checkResult(t, "late", h.pull(t.Context(), "svc1@h1", PullOptions{OpID: "op1"}), join)
	})
	inBubble(t, "newer_pull_than_the_op", func(t *testing.T, h *host) {
		issued := time.Now().UnixMicro()
		time.Sleep(time.Second)
		h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op2", IssuedAt: time.Now().UnixMicro()})
		checkResult(t, "older op", h.pull(t.Context(), "svc1@h1", PullOptions{OpID: "op1", IssuedAt: issued}), join)
	})
	inBubble(t, "older_pull_than_the_op", func(t *testing.T, h *host) {
		h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1", IssuedAt: time.Now().UnixMicro()})
		time.Sleep(time.Second)
		h.git.upstream = 4
		got := h.pull(t.Context(), "svc1@h1", PullOptions{OpID: "op2", IssuedAt: time.Now().UnixMicro()})
		if !got.Ran || got.New != rev(4) {
			t.Errorf("got %+v, want a pull of its own to %s", got, rev(4))
		}
	})
	inBubble(t, "other_revision_wanted", func(t *testing.T, h *host) {
		issued := time.Now().UnixMicro()
		h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1", IssuedAt: issued})
		got := h.pull(t.Context(), "svc1@h1", PullOptions{OpID: "op2", IssuedAt: issued, Revision: rev(3)})
		if !got.Ran {
			t.Errorf("got %+v, want a pull of its own: that pull was not asked for %s", got, rev(3))
		}
	})
	inBubble(t, "callers_without_an_op", func(t *testing.T, h *host) {
		h.pull(t.Context(), "svc9@h1", PullOptions{})
		h.git.head, h.git.tracked = 1, 1
		got := h.together(t.Context(), 3, PullOptions{})
		checkResult(t, "holder", got[0], ok)
		checkResult(t, "joiner", got[1], join)
		checkResult(t, "joiner", got[2], join)
		if n := h.git.count("fetch"); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
	inBubble(t, "same_error", func(t *testing.T, h *host) {
		h.git.fails = "fetch"
		got := h.together(t.Context(), 3, PullOptions{OpID: "op1"})
		checkResult(t, "holder", got[0], PullResult{Ran: true, Old: rev(1), New: rev(1), Summary: "git fetch: exit status 128: fatal: it fails"})
		checkResult(t, "joiner", got[2], PullResult{
			Joined: true, Holder: "svc0@h1", Old: rev(1), New: rev(1),
			Summary: "joined the pull of svc0@h1: git fetch: exit status 128: fatal: it fails",
		})
	})
	inBubble(t, "dedupe_off", func(t *testing.T, h *host) {
		for _, r := range h.together(t.Context(), 3, PullOptions{OpID: "op1", NoDedupe: true}) {
			if !r.Ran || !r.OK {
				t.Errorf("got %+v, want a pull of its own", r)
			}
		}
		if n := h.git.count("fetch"); n != 3 || h.git.overlap {
			t.Errorf("%d fetches, overlap %v; want 3 one after the other", n, h.git.overlap)
		}
	})
}

func TestPullWithoutRedis(t *testing.T) {
	inBubble(t, "down_at_the_start", func(t *testing.T, h *host) {
		h.server.down = true
		for _, r := range h.together(t.Context(), 3, PullOptions{OpID: "op1"}) {
			if !r.Ran || !r.OK || !strings.Contains(r.Summary, "(not deduped: dial tcp") {
				t.Errorf("got %+v, want a pull that says not deduped", r)
			}
		}
		if h.git.overlap {
			t.Error("two pulls ran at once")
		}
	})
	inBubble(t, "lost_while_waiting", func(t *testing.T, h *host) {
		time.AfterFunc(time.Second, func() { h.server.mu.Lock(); h.server.down = true; h.server.mu.Unlock() })
		got := h.together(t.Context(), 2, PullOptions{OpID: "op1"})
		if !got[0].OK || !strings.Contains(got[0].Summary, "not told the others") {
			t.Errorf("holder: %+v, want ok, and that it could not tell the others", got[0])
		}
		if !got[1].Ran || !got[1].OK || !strings.Contains(got[1].Summary, "not deduped") || h.git.overlap {
			t.Errorf("waiting one: %+v, overlap %v; want its own pull after the other", got[1], h.git.overlap)
		}
	})
}

func TestDeadHolderIsReplacedOnce(t *testing.T) {
	// The holder's daemon was killed; its git, an orphan, keeps the flock.
	inBubble(t, "orphan_git", func(t *testing.T, h *host) {
		h.server.hold(PullHolder{Instance: "dead@h1"}, 90*time.Second)
		l, _ := h.tree.Lock(t.Context(), Checkout{}, Exclusive)
		time.AfterFunc(20*time.Second, func() { l.Unlock() })
		began := time.Now()
		got := h.together(t.Context(), 4, PullOptions{OpID: "op1"})
		checkTakeover(t, h, got, 4)
		if took := time.Since(began); took < 20*time.Second || took > 30*time.Second {
			t.Errorf("took %v, want the orphan's 20 s and one pull", took)
		}
	})
	inBubble(t, "no_git_either", func(t *testing.T, h *host) {
		h.server.hold(PullHolder{Instance: "dead@h1"}, 90*time.Second)
		began := time.Now()
		checkTakeover(t, h, h.together(t.Context(), 4, PullOptions{OpID: "op1"}), 4)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v, want no wait for the lock's life", took)
		}
		if got := h.server.holderLocked(); got.Instance != "dead@h1" {
			t.Errorf("lock is %q's now, want it left to the dead holder", got.Instance)
		}
	})
	inBubble(t, "lock_ran_out_while_pulling", func(t *testing.T, h *host) {
		h.git.fetch = 20 * time.Second
		got := h.together(t.Context(), 4, PullOptions{OpID: "op1", LockTTL: 5 * time.Second})
		checkTakeover(t, h, got, 4)
	})
}

// checkTakeover wants one pull, which all others joined.
func checkTakeover(t *testing.T, h *host, got []PullResult, n int) {
	t.Helper()
	ran := 0
	for _, r := range got {
		if r.Ran {
			ran++
		}
		if !r.OK || r.New != rev(3) {
			t.Errorf("got %+v, want ok at %s", r, rev(3))
		}
	}
	if len(got) != n || ran != 1 || h.git.count("fetch") != 1 || h.git.overlap {
		t.Errorf("%d of %d ran, %d fetches, overlap %v; want 1 and 1", ran, len(got), h.git.count("fetch"), h.git.overlap)
	}
}

// A service of the original system takes no flock and records no outcome.
func TestForeignHolderIsWaitedOut(t *testing.T) {
	foreign := PullHolder{Instance: "legacy-bot", Foreign: true}
	inBubble(t, "then_checked_against_the_upstream", func(t *testing.T, h *host) {
		h.server.hold(foreign, 12*time.Second)
		time.AfterFunc(11*time.Second, func() { h.git.mu.Lock(); h.git.head = 3; h.git.mu.Unlock() })
		began := time.Now()
		got := h.together(t.Context(), 3, PullOptions{OpID: "op1"})
		ran := 0
		for _, r := range got {
			if !r.OK || r.New != rev(3) || r.Old != rev(3) {
				t.Errorf("got %+v, want up to date at %s", r, rev(3))
			}
			if r.Ran {
				ran++
			}
		}
		if h.git.count("merge") != 0 || ran != 1 || time.Since(began) < 12*time.Second {
			t.Errorf("%d merges, %d ran, took %v; want 0 and 1 after 12 s", h.git.count("merge"), ran, time.Since(began))
		}
	})
	inBubble(t, "for_ever", func(t *testing.T, h *host) {
		h.server.hold(foreign, time.Hour)
		got := h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1"})
		checkResult(t, "busy", got, PullResult{Busy: true, Summary: "busy: legacy-bot has been pulling for 1m31s"})
	})
}

func TestPullIsBusy(t *testing.T) {
	inBubble(t, "restart_holds_the_flock", func(t *testing.T, h *host) {
		l, _ := h.tree.Lock(t.Context(), Checkout{}, Shared)
		defer l.Unlock()
		got := h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1"})
		checkResult(t, "holder", got, PullResult{Busy: true, Summary: "busy: checkout is locked by another process: git (pid 1)"})
		if h.server.outcome != nil || h.server.holderLocked().Instance != "" {
			t.Errorf("outcome %+v, lock %+v; want neither", h.server.outcome, h.server.holderLocked())
		}
	})
	inBubble(t, "foreign_git_stays", func(t *testing.T, h *host) {
		h.tree.foreign = time.Now().Add(time.Hour)
		got := h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1"})
		checkResult(t, "busy", got, PullResult{Busy: true, Summary: "busy: another git is at work in the checkout: git (pid 7)"})
		if len(h.server.writes) > 0 {
			t.Errorf("outcome %+v, want none: nothing was tried", h.server.writes)
		}
	})
	inBubble(t, "foreign_git_ends_soon", func(t *testing.T, h *host) {
		h.tree.foreign = time.Now().Add(5 * time.Second)
		if got := h.pull(t.Context(), "svc0@h1", PullOptions{OpID: "op1"}); !got.OK {
			t.Errorf("got %+v, want ok", got)
		}
	})
}

// A pull that is called off must not be joined: it has not failed.
func TestCancelledPullLeavesItToOthers(t *testing.T) {
	inBubble(t, "holder", func(t *testing.T, h *host) {
		h.git.fetch = 10 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		var other PullResult
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Second + time.Nanosecond)
			other = h.pull(t.Context(), "svc1@h1", PullOptions{OpID: "op1"})
		})
		got := h.pull(ctx, "svc0@h1", PullOptions{OpID: "op1"})
		wg.Wait()
		if got.OK || !strings.Contains(got.Summary, "context canceled") {
			t.Errorf("holder: %+v, want cancelled", got)
		}
		if !other.Ran || !other.OK {
			t.Errorf("other: %+v, want a pull of its own", other)
		}
	})
	inBubble(t, "joiner", func(t *testing.T, h *host) {
		h.server.hold(PullHolder{Instance: "x", Foreign: true}, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if got := h.pull(ctx, "svc1@h1", PullOptions{OpID: "op1"}); got.OK || got.Ran {
			t.Errorf("joiner: %+v, want it to end with its context", got)
		}
	})
}

func TestAfterPullRunsOncePerPull(t *testing.T) {
	inBubble(t, "joined", func(t *testing.T, h *host) {
		h.together(t.Context(), 4, PullOptions{OpID: "op1", AfterPull: []string{"make", "install"}})
		if n := h.git.count("make"); n != 1 {
			t.Errorf("after_pull ran %d times, want 1", n)
		}
	})
	inBubble(t, "even_when_up_to_date", func(t *testing.T, h *host) {
		h.git.upstream = 1
		h.pull(t.Context(), "svc0@h1", PullOptions{AfterPull: []string{"make"}})
		if n := h.git.count("make"); n != 1 {
			t.Errorf("after_pull ran %d times, want 1", n)
		}
	})
	inBubble(t, "not_after_a_failure", func(t *testing.T, h *host) {
		h.git.fails = "merge"
		h.pull(t.Context(), "svc0@h1", PullOptions{AfterPull: []string{"make"}})
		if n := h.git.count("make"); n != 0 {
			t.Errorf("after_pull ran %d times, want 0", n)
		}
	})
}

func TestValidatePullTimes(t *testing.T) {
	tests := []struct {
		timeout, ttl time.Duration
		want         string
	}{
		{0, 0, ""},
		{60 * time.Second, 90 * time.Second, ""},
		{60 * time.Second, 85 * time.Second, ""},
		{60 * time.Second, 84 * time.Second, "set lock_ttl to at least 1m25s"},
		{120 * time.Second, 0, "lock_ttl 1m30s is shorter than a pull may take"},
		{-time.Second, 0, "is negative"},
	}
	for _, tt := range tests {
		err := ValidatePullTimes(tt.timeout, tt.ttl)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ValidatePullTimes(%v, %v) = %v, want %q", tt.timeout, tt.ttl, err, tt.want)
		}
	}
}
