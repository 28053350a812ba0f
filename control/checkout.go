package control

import (
	"context"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// heads remembers the revisions that the checkouts are on, so that a heartbeat
// does not start a git for each.
type heads struct {
	mu sync.Mutex
	at map[string]head
}

type head struct {
	revision string
	read     time.Time
}

// headTimeout limits one look at a checkout.
const headTimeout = 5 * time.Second

// read returns the revision of the checkout at dir, read at most HeadEvery ago;
// "" for no checkout.
func (h *heads) read(ctx context.Context, r *run, dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	h.mu.Lock()
	known, ok := h.at[dir]
	h.mu.Unlock()
	if ok && time.Since(known.read) < r.tuning.HeadEvery {
		return known.revision, nil
	}
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	rev, err := opsexec.Head(ctx, r.Exec, r.Tree, dir)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[string]head{}
	}
	h.at[dir] = head{rev, time.Now()}
	return rev, nil
}

// forget makes the next read look again.
func (h *heads) forget(dir string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.at, dir)
}

// repairWait is how long a daemon that starts waits for a pull that is running,
// an orphan's of the daemon before it, say. The next pull repairs as well.
const repairWait = 5 * time.Second

// repair puts right what a pull that was interrupted has left behind, before
// anything is acted on. In observe mode nothing is touched.
func (r *run) repair(ctx context.Context) {
	if r.Config.Mode == fleet.ModeObserve {
		return
	}
	done := map[string]bool{"": true}
	for _, i := range r.instances {
		if done[i.Checkout] {
			continue
		}
		done[i.Checkout] = true
		r.alive() // the session, which feeds the watchdog, has not begun
		ctx, cancel := context.WithTimeout(ctx, repairWait)
		what, err := opsexec.Repair(ctx, i.Checkout, opsexec.RepairOptions{Env: r.gitEnv(), Exec: r.Exec, Tree: r.Tree})
		cancel()
		switch {
		case err != nil:
			r.log.Warn("checkout not looked after at start", "checkout", i.Checkout, "err", err)
		case what != "":
			r.log.Info("checkout repaired", "checkout", i.Checkout, "what", what)
		}
	}
}
