package main

import (
	"testing"
	"time"
)

func TestProgressSaysWhatIsLeft(t *testing.T) {
	began := time.Now()
	for _, c := range []struct {
		total int
		until time.Time
		want  string
	}{
		{200, time.Time{}, "x: 50 of 200 seeds, 1 failed, 5.0 seeds/s, 30s left"},
		{0, began.Add(4 * time.Minute), "x: 50 seeds, 1 failed, 5.0 seeds/s, 3m50s left"},
	} {
		p := &progressLine{what: "x", total: c.total, until: c.until, n: 50, failed: 1, began: began}
		if got := p.text(began.Add(10 * time.Second)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
