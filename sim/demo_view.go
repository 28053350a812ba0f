package sim

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// demoView shows how a restart spreads through the fleet: on a terminal a grid
// of hosts and services that fills in place, in a pipe a line for every word of
// an instance.
type demoView struct {
	w     io.Writer
	tty   bool
	width func() int // columns of the terminal
	hosts []string
	cols  []string // service or service#n, in tier order

	mu      sync.Mutex
	cells   map[string]control.Phase
	status  map[string]control.Status
	known   map[string]bool // instances that exist
	down    map[string]bool // missed their heartbeats before the op was sent
	began   time.Time
	note    string
	settled int
	total   int
	drawn   int // lines of the grid on screen
	ended   bool
}

func newDemoView(o DemoOptions, p *Plan) *demoView {
	v := &demoView{
		w: o.Out, tty: o.TTY, width: o.Width, hosts: p.HostNames(),
		cells: map[string]control.Phase{}, status: map[string]control.Status{}, known: map[string]bool{}, down: map[string]bool{},
	}
	byTier := map[string][]string{}
	for _, m := range p.Members() {
		v.known[m.Instance.String()] = true
		col, _, _ := strings.Cut(m.Instance.String(), "@")
		if _, n, ok := strings.Cut(m.Instance.String(), "#"); ok {
			col += "#" + n
		}
		if !slices.Contains(byTier[m.Tier], col) {
			byTier[m.Tier] = append(byTier[m.Tier], col)
		}
	}
	for _, t := range p.Config.TierNames() { // the gateway is named first and restarted last
		v.cols = append(v.cols, byTier[t]...)
	}
	return v
}

// start begins to show; the returned function ends it and may be called again.
func (v *demoView) start() (stop func()) {
	v.began = time.Now()
	if !v.tty {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(80 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				v.draw()
			case <-quit:
				v.draw()
				return
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() {
			close(quit)
			<-done
			v.mu.Lock()
			v.ended = true
			v.mu.Unlock()
		})
	}
}

// text prints a message of the dispatcher.
func (v *demoView) text(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		fmt.Fprintln(v.w)
	}
	fmt.Fprintln(v.w, s)
	v.drawn = 0
}

// update takes what the dispatcher has just heard.
func (v *demoView) update(u control.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if u.Total > 0 {
		v.settled, v.total = u.Settled, u.Total
	}
	switch u.Kind {
	case control.UpdatePublished:
		v.began, v.total = time.Now(), len(u.Instances)
		for _, e := range u.Instances {
			v.down[e.Instance.String()] = e.Down
		}
		v.line("published once to %d instances; each waits its own splay, then restarts", len(u.Instances))
	case control.UpdateReleased:
		v.note = "the gateways were told to " + u.Release
		v.line("everybody else is done or out of time: %s", v.note)
	case control.UpdateAck:
		if u.Ack == nil {
			return
		}
		v.cells[u.Ack.Instance], v.status[u.Ack.Instance] = u.Ack.Phase, u.Ack.Status
		if u.Ack.Phase == control.Accepted {
			return // a line each would hide what comes of it
		}
		detail := ""
		if u.Ack.Detail != "" {
			detail = ": " + u.Ack.Detail
		}
		v.line("%-20s %s%s", u.Ack.Instance, u.Ack.Status, detail)
	}
}

// line prints a line in a pipe.
func (v *demoView) line(format string, args ...any) {
	if !v.tty {
		fmt.Fprintf(v.w, "%+6.2fs  %s\n", time.Since(v.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

const hostWidth = 6

// cellWidth is how wide a cell may be for a row to fit the terminal: a row that
// wraps takes two lines, and the next drawing would miss the first.
func cellWidth(width func() int, cols int) int {
	const roomy = 15 // "▸ accepted" and the longest service
	return min(roomy, max(1, (rowWidth(width)-hostWidth)/max(cols, 1)-1))
}

// rowWidth leaves one column free: some terminals wrap as soon as the last is
// full.
func rowWidth(width func() int) int {
	if width == nil {
		return math.MaxInt
	}
	return max(1, width()-1)
}

// draw redraws the grid where it stands.
func (v *demoView) draw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.total == 0 {
		return
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	lines := 0
	row := func(s string) {
		b.WriteString("\x1b[2K" + s + "\n")
		lines++
	}
	wide := cellWidth(v.width, len(v.cols))
	head := fmt.Sprintf("%-*s", hostWidth, "")
	for _, c := range v.cols {
		head += fmt.Sprintf(" %-*.*s", wide, wide, c)
	}
	row(dim + head + plain)
	for _, h := range v.hosts {
		s := fmt.Sprintf("%-*.*s", hostWidth, hostWidth, h)
		for _, c := range v.cols {
			s += " " + v.cell(instanceAt(c, h), wide)
		}
		row(s)
	}
	note := v.note
	if note != "" {
		note = "  " + note
	}
	foot := []rune(fmt.Sprintf("%d of %d have said their last word, %.1f s%s", v.settled, v.total, time.Since(v.began).Seconds(), note))
	row(dim + string(foot[:min(len(foot), rowWidth(v.width))]) + plain)
	v.drawn = lines
	fmt.Fprint(v.w, b.String())
}

// instanceAt is the instance in a column of the grid.
func instanceAt(col, host string) string {
	service, n, numbered := strings.Cut(col, "#")
	name := service + "@" + host
	if numbered {
		name += "#" + n
	}
	if _, err := fleet.ParseInstance(name); err != nil {
		return ""
	}
	return name
}

func (v *demoView) cell(instance string, wide int) string {
	text, colour := "·", dim
	switch {
	case !v.known[instance]:
		text = ""
	case v.down[instance]:
		text, colour = "? silent", yellow
	}
	switch v.cells[instance] {
	case control.Accepted:
		text, colour = "▸ accepted", cyan
	case control.Done:
		text, colour = "✓ "+string(v.status[instance]), green
		switch v.status[instance] {
		case control.Failed:
			text, colour = "✗ failed", red
		case control.Pending:
			text, colour = "… pending", yellow
		}
	case control.Refused:
		text, colour = "✗ "+string(v.status[instance]), red
	}
	r := []rune(text)
	r = r[:min(len(r), wide)]
	return colour + string(r) + plain + strings.Repeat(" ", wide-len(r))
}
