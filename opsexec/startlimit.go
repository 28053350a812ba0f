package opsexec

import (
	"slices"
	"sync"
	"time"
)

// StartBudget keeps a caller's restarts below systemd's start limit. The limit
// counts manual starts too, and the start that exceeds it is not merely
// refused: systemd has stopped the unit by then, and it stays down
// (start-limit-hit). So a unit is restarted at most burst − 1 times in any
// interval, which leaves one start to somebody else.
//
// One StartBudget is shared by all restarts that a process makes; the zero
// value is ready. It remembers nothing across a restart of the process: a
// cooldown that outlasts the interval (systemd's default: 5 starts in 10 s)
// covers that.
type StartBudget struct {
	mu    sync.Mutex
	units map[string][]*start
}

// start is one start that may have happened or may yet happen. When exactly
// PID 1 counts it is not known: some time between taking and ending the
// restart. Until it has ended it counts whatever the time, and then from its
// end, so that the starts which PID 1 sees are never denser than these.
type start struct {
	budget *StartBudget
	unit   string
	ended  time.Time // zero while the restart is running
}

// take asks for one more start of u. When there is none left, the start is nil
// and again says how long until there is.
func (b *StartBudget) take(u Unit) (s *start, again time.Duration) {
	if b == nil || u.StartLimitBurst <= 0 || u.StartLimitInterval <= 0 {
		return &start{}, 0
	}
	// A unit with a burst of 1 could otherwise never be restarted at all.
	limit := max(1, u.StartLimitBurst-1)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	starts := slices.DeleteFunc(b.units[u.Name], func(s *start) bool {
		return !s.ended.IsZero() && now.Sub(s.ended) > u.StartLimitInterval
	})
	if b.units == nil {
		b.units = map[string][]*start{}
	}
	b.units[u.Name] = starts
	if len(starts) >= limit {
		return nil, untilFree(starts, len(starts)-limit, now, u.StartLimitInterval)
	}
	s = &start{budget: b, unit: u.Name}
	b.units[u.Name] = append(starts, s)
	return s, 0
}

// untilFree is how long until more than n of the starts are forgotten. One
// that is still running cannot be foretold: it counts as if it ended now.
func untilFree(starts []*start, n int, now time.Time, interval time.Duration) time.Duration {
	ends := make([]time.Time, len(starts))
	for i, s := range starts {
		ends[i] = s.ended
		if s.ended.IsZero() {
			ends[i] = now
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[n].Add(interval).Sub(now)
}

// end says that the restart has ended, or that PID 1 may go on with it for at
// most late.
func (s *start) end(late time.Duration) {
	if s.budget == nil {
		return
	}
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.ended = time.Now().Add(late)
}

// unused gives the start back: systemd never began it.
func (s *start) unused() {
	if s.budget == nil {
		return
	}
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	left := slices.DeleteFunc(s.budget.units[s.unit], func(t *start) bool { return t == s })
	s.budget.units[s.unit] = left
}
