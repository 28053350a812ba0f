package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

func (r *run) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.stopping = ctx
	ops, endOps := context.WithCancel(context.WithoutCancel(ctx))
	defer endOps()
	last, endAcks := context.WithCancel(context.WithoutCancel(ctx))
	defer endAcks()
	r.ops, r.last = ops, last

	r.status("starting")
	r.repair(ctx)

	var listening, working, reporting sync.WaitGroup
	listening.Go(func() { r.session.run(ctx) })
	r.status("waiting for redis")
	if err := r.join(ctx); err != nil {
		fail(err)
	} else if ctx.Err() == nil {
		listening.Go(func() { r.decideAll(ctx) })
		listening.Go(func() { r.heartbeats(ctx) })
		listening.Go(func() { r.reportReturn(ctx) })
		for _, i := range r.instances {
			working.Go(func() { r.work(i) })
		}
		reporting.Go(r.reportAll)
		close(r.readyChan())
		r.notify("READY=1")
		r.showState()
		<-ctx.Done()
	}

	r.notify("STOPPING=1")
	listening.Wait()
	if worked := ended(&working); !r.waitFor(worked, r.tuning.StopGrace) {
		r.log.Warn("running ops take too long, ending them", "grace", r.tuning.StopGrace)
		endOps()
		if !r.waitFor(worked, stopKill) {
			<-worked // fed no longer: the watchdog may see to what cannot be ended
		}
	}
	close(r.finals)
	if reported := ended(&reporting); !r.waitFor(reported, stopAcks) {
		endAcks()
		<-reported
	}
	r.reportLeft()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// services is how many services are served; the host daemon itself is none.
func (r *run) services() (n int) {
	for _, i := range r.instances {
		if i.Instance.Service != fleet.DaemonService {
			n++
		}
	}
	return n
}

// stopAcks is what the last acks may take. A few seconds for the reader to end,
// the stop grace (50 s), 15 s for a killed git to die and this are less than a
// TimeoutStopSec of 90 s.
const stopAcks = 10 * time.Second

// stopKill is what ended ops may take: a killed git 15 s, and what is left of it.
const stopKill = 25 * time.Second

// ended returns a channel that is closed when wg is done.
func ended(wg *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	return done
}

// join waits for the first subscription and enters the registry. It fails only
// for what no patience mends.
func (r *run) join(ctx context.Context) error {
	select {
	case <-r.subscribed:
	case <-ctx.Done():
		return nil
	}
	lastErr := ""
	for n := 0; ; n++ {
		err := r.enter(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errTwoHosts) {
			return err
		}
		if err.Error() != lastErr {
			lastErr = err.Error()
			r.log.Warn("cannot enter the registry, trying again", "err", err)
		}
		if !sleep(ctx, backoff(r.tuning.BackoffFirst, r.tuning.BackoffMost, n, r.name, n)) {
			return nil
		}
	}
}

func (r *run) readyChan() chan struct{} {
	r.Ready()
	return r.ready
}

// receive takes a message from the session's reader, which must not wait.
func (r *run) receive(m message) {
	r.metrics.add(metricReceived, 1)
	if len(m.payload) > MaxOpBytes {
		// Counted here, so that not even one waits in the intake.
		r.metrics.refused(RejectTooLarge)
		r.log.Warn("message is too large, ignored", "bytes", len(m.payload), "limit", MaxOpBytes)
		return
	}
	size := int64(len(m.payload))
	if r.waiting.Add(size) <= intakeBytes {
		select {
		case r.intake <- m:
			return
		default:
		}
	}
	r.waiting.Add(-size)
	r.metrics.add(metricOverflow, 1)
}

// intakeBytes bounds what waits to be decided on, whatever the size of each.
const intakeBytes = 4 << 20

// confirmed is called by the session's reader at each confirmed subscription.
func (r *run) confirmed(first bool) {
	r.metrics.add(metricSubscribed, 1)
	r.metrics.set(metricListening, 1)
	if first {
		close(r.subscribed)
		return
	}
	r.showState()
	r.beat.soon()
}

// lost is called by the session when it does not hear anything; newly at the
// first of several failures, for the registry to show it before long.
func (r *run) lost(newly bool) {
	r.metrics.set(metricListening, 0)
	if newly {
		r.showState()
		r.beat.soon()
	}
}

// showState tells systemd whether the daemon hears, once it is ready. Two
// goroutines do; the later one has the newer state.
func (r *run) showState() {
	r.showing.Lock()
	defer r.showing.Unlock()
	select {
	case <-r.Ready():
	default:
		return // it waits for Redis, and says so
	}
	switch _, deaf := r.session.listening(); {
	case r.stopping.Err() != nil:
	case deaf != 0:
		r.status("not subscribed, trying again")
	default:
		r.status("subscribed, serving %s", count(r.services(), "service"))
	}
}

// alive feeds systemd's watchdog: the reader's loop is getting on, whether
// Redis is there or not.
func (r *run) alive() {
	if now := time.Now(); now.Sub(r.lastFed) >= watchdogEvery {
		r.lastFed = now
		r.notify("WATCHDOG=1")
		select {
		case <-r.subscribed:
		default:
			// READY is only said when subscribed, and Redis may be long in
			// coming after a power failure: that is no failed start.
			r.notify("EXTEND_TIMEOUT_USEC=60000000")
		}
	}
}

// watchdogEvery suits a WatchdogSec of 30 s: the reader gets on at least every
// SilenceClose (12 s) and a failing attempt takes less.
const watchdogEvery = 4 * time.Second

func (r *run) notify(state string) {
	if r.Notify != nil {
		r.Notify(state)
	}
}

func (r *run) status(format string, args ...any) {
	// One line: a newline in an error's text would begin another assignment.
	r.notify("STATUS=" + opsexec.ChatLine(fmt.Sprintf(format, args...)))
}

// waitFor waits until done is closed, for at most d. It feeds the watchdog: the
// reader, which does so otherwise, has ended. (systemd has no watchdog on a
// service that it stops, but on one that ends its ops to read its config again.)
func (r *run) waitFor(done <-chan struct{}, d time.Duration) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	feed := time.NewTicker(watchdogEvery)
	defer feed.Stop()
	for {
		r.notify("WATCHDOG=1")
		select {
		case <-done:
			return true
		case <-end.C:
			return false
		case <-feed.C:
		}
	}
}
