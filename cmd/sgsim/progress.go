package main

import (
	"fmt"
	"io"
	"time"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
)

// progressLine is one line on stderr that says how far a long run has come: redrawn
// on a terminal, and in a pipe printed every ten seconds.
type progressLine struct {
	w      io.Writer
	tty    bool
	what   string
	total  int       // seeds; 0 when they are as many as time allows,
	until  time.Time // which ends then
	n      int
	failed int
	began  time.Time
	shown  time.Time
}

func (a *app) newProgress(mode, what string, total int) *progressLine {
	p := &progressLine{w: a.stderr, tty: cli.IsTerminal(a.stderr) && mode == "auto", what: what, total: total, began: time.Now(), shown: time.Now()}
	if mode == "none" {
		p.w = io.Discard
	}
	return p
}

func (p *progressLine) step(failed bool) {
	p.n++
	if failed {
		p.failed++
	}
	every := 10 * time.Second
	if p.tty {
		every = 100 * time.Millisecond
	}
	if time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	if line := p.text(p.shown); p.tty {
		fmt.Fprintf(p.w, "\r\x1b[2K%s", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

func (p *progressLine) text(now time.Time) string {
	rate := float64(p.n) / now.Sub(p.began).Seconds()
	seeds, left := count(p.n, "seed"), p.until.Sub(now)
	if p.total > 0 {
		seeds = fmt.Sprintf("%d of %s", p.n, count(p.total, "seed"))
		left = time.Duration(float64(p.total-p.n) / rate * float64(time.Second))
	}
	return fmt.Sprintf("%s: %s, %d failed, %.1f seeds/s, %v left", p.what, seeds, p.failed, rate, left.Round(time.Second))
}

func (p *progressLine) end() {
	if p.tty && !p.shown.Equal(p.began) {
		fmt.Fprint(p.w, "\r\x1b[2K")
	}
}
