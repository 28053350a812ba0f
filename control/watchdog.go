package control

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// watch is the watchdog of one connection.
type watch struct {
	s         *session
	ps        *redis.PubSub
	sub       *subConn
	started   time.Time
	last      atomic.Int64 // ns since started at which something was heard
	confirmed atomic.Bool
	reason    error // why it closed the connection; read after run has returned
}

func (w *watch) heard() { w.last.Store(int64(time.Since(w.started))) }

// run sleeps until something is due: a ping after SilencePing without a word,
// the end after SilenceClose. It ends the connection when ctx ends, too.
func (w *watch) run(ctx context.Context) {
	defer w.sub.close()
	t := w.s.tuning
	pinged := time.Duration(-1) // the silence since this moment was pinged into
	for {
		last := time.Duration(w.last.Load())
		silence := time.Since(w.started) - last
		if silence >= t.SilenceClose {
			w.reason = fmt.Errorf("%w for %v", errWatchdog, t.SilenceClose)
			return
		}
		next := t.SilenceClose - silence
		switch {
		case pinged == last:
		case silence < t.SilencePing:
			next = t.SilencePing - silence
		case w.confirmed.Load():
			pinged = last
			w.s.checkMaster()
			if err := w.ping(ctx); err != nil {
				w.reason = fmt.Errorf("pinging redis: %w", err)
				return
			}
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

func (w *watch) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, subKey{}, w.sub), w.s.tuning.SilenceClose-w.s.tuning.SilencePing)
	defer cancel()
	return w.ps.Ping(ctx)
}
