package control

import "time"

// silenceClose is how long a subscription may be silent until its watchdog
// gives it up.
const silenceClose = 12 * time.Second

// Tuning holds a daemon's intervals that nobody needs to configure. Tests
// shorten them; a zero field means its default.
type Tuning struct {
	SilencePing  time.Duration // a silent subscription is pinged after it. Default 5 s.
	SilenceClose time.Duration // and given up after it. Default 12 s.
	BackoffFirst time.Duration // before the first new attempt to subscribe. Default 100 ms.
	BackoffMost  time.Duration // before any attempt. Default 5 s.

	AckTimeout  time.Duration // for an "accepted" to be confirmed by Redis. Default 5 s.
	DoneTimeout time.Duration // for a final ack to be confirmed: the op is done, so it may take longer. Default 60 s.
	QueueLength int           // ops waiting per service, beyond which it is busy. Default 8.
	IntakeSize  int           // messages waiting to be decided on, beyond which they are dropped. Default 4096, and never more than 4 MiB.

	RestartWait time.Duration // a restart waits for a running pull of its checkout. Default 80 s, which publishers reckon with.
	StopGrace   time.Duration // a running op may take after SIGTERM. Default 50 s: with what follows, below the unit's TimeoutStopSec of 90 s.
	SelfWait    time.Duration // a queued restart of the daemon itself may take to end it. Default 100 s.
	HeadEvery   time.Duration // a checkout's HEAD is read again, unless an op changed it. Default 60 s.
}

func (t Tuning) withDefaults() Tuning {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.SilencePing, 5*time.Second)
	def(&t.SilenceClose, silenceClose)
	def(&t.BackoffFirst, 100*time.Millisecond)
	def(&t.BackoffMost, 5*time.Second)
	def(&t.AckTimeout, 5*time.Second)
	def(&t.DoneTimeout, 60*time.Second)
	def(&t.RestartWait, restartWait)
	def(&t.StopGrace, 50*time.Second)
	def(&t.SelfWait, 100*time.Second)
	def(&t.HeadEvery, 60*time.Second)
	if t.QueueLength <= 0 {
		t.QueueLength = 8
	}
	if t.IntakeSize <= 0 {
		t.IntakeSize = 4096
	}
	return t
}
