package control

import (
	"os"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// TestBlackHole is the half-open connection: it stays open and nothing passes.
// go-redis's own reader does not notice for 15 minutes.
func TestBlackHole(t *testing.T) {
	s := redistest.Start(t)
	p := redistest.NewProxy(t, s.Addr)
	r := newRig(t, s.Addr, nil)
	d := r.daemon("h1", newFakeHost())
	d.Config.Redis.URL = "redis://" + p.Addr
	if os.Getenv("SGFLEET_SOAK") == "" {
		// The real numbers are tested in virtual time.
		d.Tuning = Tuning{SilencePing: 500 * time.Millisecond, SilenceClose: 1200 * time.Millisecond}
	}
	r.start(d)
	p.Silence(true)
	began := time.Now()
	r.await("the daemon to notice", func() bool { return d.Metrics.get(metricListening) == 0 })
	noticed := time.Since(began)
	p.Silence(false)
	p.Cut()
	t.Logf("noticed after %v, back %v after the network was", noticed, r.hearsAgain(6*time.Second))
	if limit := d.Tuning.withDefaults().SilenceClose + time.Second; noticed > limit {
		t.Errorf("noticed after %v, want at most %v", noticed, limit)
	}
}
