package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// liveView is the roster that fills while acks stream in: on a terminal one
// mark per instance, redrawn in place; elsewhere one plain line per final
// answer.
//
//	restart all  4.2s  31 done · 1 failed · 6 accepted · 2 no answer yet
//	  inference  ●●●●●●○·
//	  web        ●●✗●
type liveView struct {
	a       *app
	w       io.Writer
	title   string
	tty     bool
	started time.Time

	mu       sync.Mutex
	rows     []*liveRow // by service
	index    map[string]*cell
	notes    []note // troubles, newest last
	released string // what the gateways were told
	drawn    int    // lines on screen
}

type note struct {
	mark mark
	text string
}

type liveRow struct {
	name  string
	cells []*cell
}

type cell struct {
	mark mark
}

// mark is how one instance stands.
type mark int

const (
	waiting mark = iota
	accepted
	done
	skipped
	refused
	failed
)

var marks = map[mark]struct{ glyph, sgr string }{
	waiting: {"·", dim}, accepted: {"○", yellow}, done: {"●", green}, skipped: {"–", dim}, refused: {"!", yellow}, failed: {"✗", red},
}

// progress modes.
const (
	progressAuto  = "auto"
	progressTTY   = "tty"
	progressPlain = "plain"
	progressNone  = "none"
)

// newLiveView returns nil for --progress none; a nil view takes every call.
func (a *app) newLiveView(mode, title string, instances []control.Expected) *liveView {
	if mode == progressNone {
		return nil
	}
	v := &liveView{
		a: a, w: a.stderr, title: title, tty: mode == progressTTY || mode == progressAuto && cli.IsTerminal(a.stderr),
		started: time.Now(), index: map[string]*cell{},
	}
	byService := map[string]*liveRow{}
	for _, e := range instances {
		row := byService[e.Service]
		if row == nil {
			row = &liveRow{name: e.Service}
			byService[e.Service] = row
			v.rows = append(v.rows, row)
		}
		c := &cell{}
		row.cells = append(row.cells, c)
		v.index[e.Instance.String()] = c
	}
	return v
}

// update takes what the Dispatcher's watch says.
func (v *liveView) update(u control.Update) {
	if v == nil {
		return
	}
	switch u.Kind {
	case control.UpdateAck:
		v.ack(u)
	case control.UpdateText:
		v.say(waiting, "legacy answer: "+u.Ack.Detail)
	case control.UpdateReleased:
		v.mu.Lock()
		v.released = u.Release
		v.mu.Unlock()
		if !v.tty {
			v.say(waiting, "gateways: "+u.Release)
		}
	}
}

// say prints a line in a pipe, and keeps it under the view on a terminal.
func (v *liveView) say(m mark, text string) {
	text = clean(text)
	if !v.tty {
		fmt.Fprintf(v.w, "%6s  %s\n", v.elapsed(), text)
		return
	}
	v.mu.Lock()
	v.notes = append(v.notes, note{m, text})
	v.mu.Unlock()
}

func markOf(r control.Result) mark {
	switch r.Class {
	case control.ClassOK:
		if r.Status == control.Skipped {
			return skipped
		}
		return done
	case control.ClassFailed:
		return failed
	case control.ClassRefused:
		return refused
	case control.ClassUnfinished:
		return accepted
	}
	return waiting
}

// ack records how one instance stands; troubles are said.
func (v *liveView) ack(u control.Update) {
	m := markOf(u.Result)
	line := u.Result.Instance + " " + string(u.Result.Status)
	if d := strings.TrimPrefix(u.Result.Detail, string(u.Result.Status)+": "); d != "" {
		line += ": " + d
	}
	if v.set(u.Result.Instance, m) && (m >= refused || !v.tty && m >= done) {
		v.say(m, line)
	}
}

// set reports whether this is news.
func (v *liveView) set(instance string, m mark) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.index[instance]
	if c == nil { // an answer from one that nobody expected
		c = &cell{}
		v.index[instance] = c
		service, _, _ := strings.Cut(instance, "@")
		i := 0
		for i < len(v.rows) && v.rows[i].name != service {
			i++
		}
		if i == len(v.rows) {
			v.rows = append(v.rows, &liveRow{name: service})
		}
		v.rows[i].cells = append(v.rows[i].cells, c)
	}
	news := c.mark != m && c.mark < done // the first final answer wins
	if news {
		c.mark = m
	}
	return news
}

func (v *liveView) elapsed() string { return fleet.Humane(time.Since(v.started)) }

// run redraws ten times a second until stop is closed, then wipes what it drew:
// the result takes its place.
func (v *liveView) run(stop <-chan struct{}) {
	if v == nil || !v.tty {
		<-stop
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		v.draw()
		select {
		case <-stop:
			v.wipe()
			return
		case <-tick.C:
		}
	}
}

// maxNotes is how many of the newest troubles the terminal shows meanwhile;
// the result names them all.
const maxNotes = 5

func (v *liveView) draw() {
	v.mu.Lock()
	lines := v.lines(cli.Size(v.w))
	back := v.drawn
	v.drawn = len(lines)
	v.mu.Unlock()
	var b strings.Builder
	if back > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", back)
	}
	b.WriteString("\r\x1b[J")
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	io.WriteString(v.w, b.String())
}

func (v *liveView) wipe() {
	if v.drawn > 0 {
		fmt.Fprintf(v.w, "\x1b[%dA\r\x1b[J", v.drawn)
	}
	v.drawn = 0
}

// lines renders the view for a terminal of that size. No line may be wider and
// the whole not higher: drawing over it again would miss.
func (v *liveView) lines(cols, rows int) []string {
	counts := map[mark]int{}
	longest := 0
	for _, r := range v.rows {
		longest = max(longest, len(r.name))
		for _, c := range r.cells {
			counts[c.mark]++
		}
	}
	paint := func(m mark, s string) string { return v.a.paint(v.w, marks[m].sgr, s) }
	var plain, painted []string
	if v.released != "" {
		plain, painted = append(plain, "gateways "+v.released), append(painted, "gateways "+v.released)
	}
	for _, p := range []struct {
		m    mark
		what string
	}{
		{done, "done"}, {skipped, "skipped"}, {failed, "failed"}, {refused, "refused"}, {accepted, "accepted"}, {waiting, "no answer yet"},
	} {
		if n := counts[p.m]; n > 0 {
			text := fmt.Sprintf("%d %s", n, p.what)
			plain, painted = append(plain, text), append(painted, paint(p.m, text))
		}
	}
	head := v.title + "  " + v.elapsed()
	var out []string
	if all := strings.Join(plain, " · "); len([]rune(head+all))+2 <= cols {
		out = append(out, v.a.paint(v.w, bold, v.title)+"  "+v.elapsed()+"  "+strings.Join(painted, " · "))
	} else {
		out = append(out, clip(head, cols), clip(all, cols))
	}
	notes := v.notes[max(0, len(v.notes)-maxNotes):]
	room := max(cols-longest-5, 10)
	for _, r := range v.rows {
		name := r.name
		for start := 0; start < len(r.cells); start += room {
			var b strings.Builder
			for _, c := range r.cells[start:min(start+room, len(r.cells))] {
				b.WriteString(paint(c.mark, marks[c.mark].glyph))
			}
			out = append(out, fmt.Sprintf("  %-*s  %s", longest, name, b.String()))
			name = ""
		}
	}
	if high := max(rows-len(notes)-2, 2); len(out) > high {
		out = append(out[:high], "  …")
	}
	for _, n := range notes {
		out = append(out, "  "+paint(n.mark, clip(n.text, cols-2)))
	}
	return out
}

// clip cuts s to n columns.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:max(n-1, 0)]) + "…"
}
