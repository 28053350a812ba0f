package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// BenchmarkBroadcast measures the time from PUBLISH to the last ack, collected,
// and compares it with the floor: raw RESP clients in this process that do the
// least possible work for the same outcome, over as many connections. Both are
// measured in turns on one redis-server, because a machine's speed drifts: only
// the ratio says something.
//
// The bar is a ratio of 1.4; above 5 something is wrong. A ping has one ack an
// instance, as the floor has. The accepted ratio is that of a restart, which
// asks Redis about holds and replays before it accepts and begins to act
// afterwards, all in this one process.
func BenchmarkBroadcast(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, perHost := range []int{1, 10} {
			name := fmt.Sprintf("N=%d", n)
			if perHost > 1 {
				name += fmt.Sprintf("/%d-a-host", perHost)
			}
			b.Run(name, func(b *testing.B) { benchmarkBroadcast(b, n, perHost) })
		}
	}
}

func benchmarkBroadcast(b *testing.B, n, perHost int) {
	srv := redistest.Start(b)
	cfg := fleet.Default()
	cfg.Redis.URL = "redis://" + srv.Addr
	cfg.HeartbeatInterval = fleet.Duration(5 * time.Minute)
	cfg.Mode, cfg.Cooldown = fleet.ModeObserve, 0
	cfg.ControlReplyTimeout = fleet.Seconds(time.Minute)
	cfg.Services = map[string]fleet.Service{}
	for i := range perHost {
		cfg.Services[fmt.Sprintf("web%d", i+1)] = fleet.Service{Tier: "web"}
	}
	startDaemons(b, cfg, n/perHost)
	client, err := Connect(cfg, ConnectOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	tokens := 0
	d := &Dispatcher{Config: cfg, Client: client, Identity: Identity{Token: func() string { tokens++; return strconv.Itoa(tokens) }}}
	f := newFloor(b, srv.Addr, n/perHost, perHost)
	defer f.close()

	var floor, ping, restart []time.Duration
	for b.Loop() {
		floor = append(floor, f.round(b))
		ping = append(ping, benchmarkOp(b, d, OpPing, n))
	}
	for range min(5, len(ping)) { // the floor, too, must not meet what an op leaves to be done
		restart = append(restart, benchmarkOp(b, d, OpRestart, n))
		awaitQuiet(b, d)
		floor = append(floor, f.round(b))
	}
	base := median(floor)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(base.Seconds()*1e3, "floor-ms")
	b.ReportMetric(median(ping).Seconds()*1e3, "ping-ms")
	b.ReportMetric(float64(median(ping))/float64(base), "ping-ratio")
	b.ReportMetric(float64(median(restart))/float64(base), "accepted-ratio")
	// On a busy machine the quickest rounds say more than the middle ones.
	b.ReportMetric(float64(ping[0])/float64(floor[0]), "best-ping-ratio")
	b.ReportMetric(float64(restart[0])/float64(floor[0]), "best-accepted-ratio")
	if best := float64(ping[0]) / float64(floor[0]); best > 5 {
		b.Errorf("the quickest ping took %.1f times the quickest floor; above 5 something is wrong", best)
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// benchmarkOp dispatches one op and returns the time from PUBLISH to the last
// final or accepted ack.
func benchmarkOp(b *testing.B, d *Dispatcher, op string, n int) time.Duration {
	b.Helper()
	ctx := context.Background()
	req := Request{Op: op, Target: "all", NoWait: true}
	plan, err := d.Plan(ctx, req)
	if err != nil {
		b.Fatal(err)
	}
	legacy, _ := newLegacyPeers(d.Config)
	o := d.newOp(plan, req)
	c := newCollector(d, plan, req, legacy, o.ID)
	if err := d.publish(ctx, c, o); err != nil {
		b.Fatal(err)
	}
	if err := c.run(ctx); err != nil {
		b.Fatal(err)
	}
	if r := c.report(ctx, o); r.Counts.OK != n {
		b.Fatalf("%d of %d ok: %s", r.Counts.OK, n, r.Summary)
	}
	return c.ended.Sub(c.start)
}

// awaitQuiet waits until Redis has nothing to do: the last op's "done" acks and
// heartbeats are written.
func awaitQuiet(b *testing.B, d *Dispatcher) {
	b.Helper()
	commands := func() (n int) {
		info, err := d.Client.Info(context.Background(), "stats").Result()
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "total_commands_processed:")
		line, _, _ := strings.Cut(rest, "\r\n")
		n, err = strconv.Atoi(line)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	for before := commands(); ; {
		time.Sleep(30 * time.Millisecond)
		now := commands()
		if now-before <= 5 {
			return
		}
		before = now
	}
}

// startDaemons starts a daemon for each of the hosts h1, h2, …; they end with
// the benchmark.
func startDaemons(b *testing.B, cfg *fleet.Config, hosts int) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	services := sortedKeys(cfg.Services)
	var all []*Daemon
	for i := range hosts {
		own := *cfg
		own.Host = fmt.Sprintf("h%d", i+1)
		client, err := Connect(&own, ConnectOptions{})
		if err != nil {
			b.Fatal(err)
		}
		fake := newFakeHost()
		d := &Daemon{
			Config: &own, Client: client, Exec: fake.exec, Tree: fake, Units: fake, Services: services,
			Identity: Identity{Host: own.Host, MachineID: own.Host, Token: func() string { return own.Host }, Wall: time.Now},
			Log:      slog.New(slog.DiscardHandler),
		}
		all = append(all, d)
		wg.Go(func() {
			defer client.Close()
			if err := d.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	for _, d := range all {
		select {
		case <-d.Ready():
		case <-time.After(time.Minute):
			b.Fatal("a daemon is not ready after a minute")
		}
	}
}

// floor is the least that can be done: agents that wait for a message and push
// a list entry for each of their instances, with a life for the list in the
// same MULTI, without looking at anything, and a publisher that reads the list
// until it is complete.
type floor struct {
	conns     []net.Conn
	wg        sync.WaitGroup
	pub       *resp
	n, rounds int
}

// resp is a RESP2 connection that knows the few shapes of reply it gets.
type resp struct {
	net.Conn
	r   *bufio.Reader
	out []byte
}

func newFloor(b *testing.B, addr string, agents, perAgent int) *floor {
	b.Helper()
	f := &floor{n: agents * perAgent}
	dial := func() *resp {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		f.conns = append(f.conns, c)
		return &resp{Conn: c, r: bufio.NewReaderSize(c, 4096)}
	}
	ack := mustJSON(b, Ack{ID: testID, Instance: "web1@h100", Host: "h100", Phase: Accepted, Status: Pending, At: 1_700_000_000_000_000})
	for range agents {
		sub, cmd := dial(), dial()
		sub.send([]string{"SUBSCRIBE", "floor"})
		if _, err := sub.array(); err != nil {
			b.Fatal(err)
		}
		args := []string{"RPUSH", ""}
		for range perAgent {
			args = append(args, ack)
		}
		f.wg.Go(func() {
			for {
				m, err := sub.array()
				if err != nil {
					return
				}
				args[1] = m[2] // the message is the key to push to
				cmd.send([]string{"MULTI"}, args, []string{"PEXPIRE", m[2], "3600000"}, []string{"EXEC"})
				for range 6 { // OK, QUEUED, QUEUED, *2, :n, :1
					if _, err := cmd.r.ReadString('\n'); err != nil {
						return
					}
				}
			}
		})
	}
	f.pub = dial()
	return f
}

func (f *floor) close() {
	for _, c := range f.conns {
		c.Close()
	}
	f.wg.Wait()
}

// round publishes and collects once.
func (f *floor) round(b *testing.B) time.Duration {
	b.Helper()
	f.rounds++
	key := fmt.Sprintf("floor:%d", f.rounds)
	start := time.Now()
	f.pub.send([]string{"PUBLISH", "floor", key})
	if _, err := f.pub.r.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	for got := 0; got < f.n; {
		f.pub.send([]string{"LRANGE", key, strconv.Itoa(got), "-1"})
		entries, err := f.pub.array()
		if err != nil {
			b.Fatal(err)
		}
		if got += len(entries); got < f.n {
			time.Sleep(time.Millisecond)
		}
	}
	took := time.Since(start)
	f.pub.send([]string{"DEL", key})
	if _, err := f.pub.r.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	return took
}

// send writes commands in one go.
func (c *resp) send(commands ...[]string) {
	c.out = c.out[:0]
	for _, args := range commands {
		c.out = append(strconv.AppendInt(append(c.out, '*'), int64(len(args)), 10), "\r\n"...)
		for _, a := range args {
			c.out = append(strconv.AppendInt(append(c.out, '$'), int64(len(a)), 10), "\r\n"...)
			c.out = append(append(c.out, a...), "\r\n"...)
		}
	}
	c.Write(c.out) // an error shows in the reply
}

// array reads an array of strings and integers.
func (c *resp) array() ([]string, error) {
	n, err := c.header()
	if err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i := range out {
		size, err := c.header()
		if err != nil {
			return nil, err
		}
		if size < 0 { // an integer, read whole
			continue
		}
		buf := make([]byte, size+2)
		if _, err := io.ReadFull(c.r, buf); err != nil {
			return nil, err
		}
		out[i] = string(buf[:size])
	}
	return out, nil
}

// header reads "*3" or "$5" as a number and ":1" as −1.
func (c *resp) header() (int, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] == ':' {
		return -1, nil
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}
