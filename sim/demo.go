package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// DemoOptions are the arguments of [Demo].
type DemoOptions struct {
	Seed int64
	Out  io.Writer
	TTY  bool // redraw the roster in place instead of printing lines
	// Width is how many columns the terminal has now; nil means enough.
	Width func() int
	Stay  bool          // keep the fleet up, after the restart, until ctx ends
	Wait  time.Duration // for the whole demo without Stay; 0 means 60 s
}

// demoCheckout is what every service of the demo runs from.
const demoCheckout = "/srv/stargazer"

// Demo runs a fleet of fake services on fake hosts in real time: the production
// daemon and dispatcher over real TCP against a Redis of its own on a loopback
// port. It restarts all of them live on screen, with one that hangs, one that
// fails and one that is deaf (chosen by the seed), and checks the dispatcher's
// report against what really happened to each fake unit. The error is nil when
// they agree, whatever the report says.
func Demo(ctx context.Context, o DemoOptions) error {
	deadline, cancel := context.WithTimeout(ctx, cmp.Or(o.Wait, time.Minute))
	defer cancel()
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr("127.0.0.1:0"); err != nil {
		return fmt.Errorf("starting the demo's Redis: %w", err)
	}
	defer server.Close()
	d := &demo{DemoOptions: o, url: "redis://" + server.Addr() + "/0", plan: demoPlan(), began: time.Now()}
	d.choose()
	w, err := NewWorld(ctx, d.plan, o.Seed, Options{RedisURL: d.url, OwnServer: true})
	if err != nil {
		return fmt.Errorf("building the demo fleet: %w", err)
	}
	d.world = w
	runErr := d.run(deadline)
	if runErr == nil && o.Stay {
		d.stay()
		<-ctx.Done()
		fmt.Fprintln(o.Out, "\nthe demo fleet is gone")
	}
	res, err := w.Close()
	if runErr != nil {
		return runErr
	}
	if err != nil {
		return fmt.Errorf("ending the demo fleet: %w", err)
	}
	if o.Stay {
		return nil // it was checked before others could touch it
	}
	return d.verdict(res.Events)
}

// demo is one run of it.
type demo struct {
	DemoOptions
	url   string
	plan  *Plan
	world *World
	began time.Time

	hang, fail, deaf string // instances
	view             *demoView
	report           *control.Report
}

// demoPlan is the demo's fleet: 8 hosts, 42 instances in the original system's
// five tiers. The last host shows the other shape: a daemon in each service.
func demoPlan() *Plan {
	cfg := fleet.Default()
	// Everything is faster than in a real fleet, so that the demo is short.
	cfg.HeartbeatInterval = fleet.Duration(time.Second)
	cfg.ControlReplyTimeout = fleet.Seconds(3 * time.Second)
	cfg.Splay = fleet.Duration(1500 * time.Millisecond)
	cfg.Settle = fleet.Duration(300 * time.Millisecond)
	cfg.Cooldown = fleet.Duration(2 * time.Second)
	cfg.GatewayGrace = fleet.Duration(10 * time.Second)
	for i := range cfg.Tiers {
		cfg.Tiers[i].DoneTimeout = fleet.Duration(6 * time.Second)
	}
	ms := func(n int) fleet.Duration { return fleet.Duration(time.Duration(n) * time.Millisecond) }
	p := &Plan{
		Name: "demo", Config: cfg, Until: time.Hour, Settle: time.Minute,
		Models: Models{
			GitPull: Dist{P50: ms(700), P99: ms(1500)},
			Restart: Dist{P50: ms(900), P99: ms(2200)},
			Boot:    Dist{P50: ms(150), P99: ms(400)},
		},
	}
	for n := 1; n <= 8; n++ {
		h := HostPlan{
			Name: "h" + strconv.Itoa(n), Shape: DaemonHost, Services: map[string]fleet.Service{},
			Checkouts: map[string]fleet.Checkout{demoCheckout: {}},
		}
		for _, s := range []string{"inference", "agents", "consolidation", "web"} {
			h.Services[s] = fleet.Service{Tier: s, Checkout: demoCheckout}
		}
		h.Services["inference"] = fleet.Service{Tier: "inference", Checkout: demoCheckout, Instances: 2}
		if n <= 2 {
			h.Services["gateway"] = fleet.Service{Tier: "gateway", Checkout: demoCheckout}
		}
		if n == 8 {
			h.Shape = DaemonEmbedded
		}
		p.Hosts = append(p.Hosts, h)
	}
	return p
}

// choose picks the three unlucky ones by the seed.
func (d *demo) choose() {
	rnd := rand.New(rand.NewPCG(uint64(d.Seed), 0x5367666c656574))
	hosts := rnd.Perm(7) // of the host daemons
	pick := func(host string) string {
		var names []string
		for _, m := range d.plan.Members() {
			if m.Host == host && m.Tier != fleet.GatewayTier {
				names = append(names, m.Instance.String())
			}
		}
		return names[rnd.IntN(len(names))]
	}
	d.hang = pick("h" + strconv.Itoa(hosts[0]+1))
	d.fail = pick("h" + strconv.Itoa(hosts[1]+1))
	d.deaf = pick("h8")
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// run tells the story up to the final roster.
func (d *demo) run(ctx context.Context) error {
	members := len(d.plan.Members())
	d.printf("sgfleet demo: %d fake services on %d fake hosts; the daemons, the dispatcher and Redis's protocol are real.", members, len(d.plan.Hosts))
	d.printf("Redis on %s (embedded, gone with the demo), seed %d.", strings.TrimSuffix(strings.TrimPrefix(d.url, "redis://"), "/0"), d.Seed)
	d.printf("Trouble ahead: %s will hang, %s will fail, %s goes deaf.\n", d.hang, d.fail, d.deaf)

	cfg := d.world.reach(d.plan.OperatorConfig())
	client, err := control.Connect(cfg, control.ConnectOptions{Name: "sgsim-demo"})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := d.awaitFleet(ctx, client, members); err != nil {
		return err
	}
	d.printf("%s: all %d instances are in the registry", d.since(), members)
	if err := d.trouble(ctx, client); err != nil {
		return err
	}
	d.printf("%s: %s has missed its heartbeats\n", d.since(), d.deaf)
	return d.restart(ctx, cfg)
}

func (d *demo) since() string { return fmt.Sprintf("%4.1fs", time.Since(d.began).Seconds()) }

// awaitFleet waits until every instance has sent a heartbeat.
func (d *demo) awaitFleet(ctx context.Context, client *control.Client, want int) error {
	return d.await(ctx, client, "every instance to send a heartbeat", func(r fleet.Registry) bool {
		listening := 0
		for _, b := range r.Beats {
			if b.Service != fleet.DaemonService && b.SubscribedSince != 0 && b.ActiveState == "active" {
				listening++
			}
		}
		return listening >= want
	})
}

// trouble arranges for the three unlucky ones, and waits until the fleet has
// noticed that one is deaf.
func (d *demo) trouble(ctx context.Context, client *control.Client) error {
	for _, t := range []struct {
		name   string
		action Action
	}{
		{"slow_restart", &slowRestart{Where: Where{Service: d.hang}, Factor: 1000}},
		{"fail_restart", &failRestart{Where: Where{Service: d.fail}, Then: failDead}},
		{"freeze", &freeze{Where: Where{Service: d.deaf}}},
	} {
		if err := d.world.Do(t.name, t.action); err != nil {
			return fmt.Errorf("arranging %s: %w", t.name, err)
		}
	}
	return d.await(ctx, client, d.deaf+" to miss its heartbeats", func(r fleet.Registry) bool {
		return slices.ContainsFunc(r.Beats, func(b fleet.Heartbeat) bool {
			return b.Instance == d.deaf && b.Down(r.Now, d.plan.Config.HeartbeatInterval.D())
		})
	})
}

// await polls the registry, as sgfleet services --watch does.
func (d *demo) await(ctx context.Context, client *control.Client, what string, ok func(fleet.Registry) bool) error {
	for {
		reg, err := fleet.ReadRegistry(ctx, client, d.plan.Config.Keys())
		if err == nil && ok(reg) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, cmp.Or(err, context.Cause(ctx)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// demoOp is the restart's name in the event log.
const demoOp = "demo"

// restart is the op itself. The dispatcher runs as a process of the world, so
// that the event log sees what it sends.
func (d *demo) restart(ctx context.Context, cfg *fleet.Config) error {
	d.printf("$ sgfleet restart all\n")
	d.view = newDemoView(d.DemoOptions, d.plan)
	d.world.trace.Add(Event{Actor: "operator", Kind: EvDispatch, Op: demoOp, Attrs: map[string]string{"op": "restart", "target": "all", "by": "demo"}}, 0)
	ended := make(chan error, 1)
	d.world.operate("operator", demoOp, func(_ context.Context, inc *incarnation) error {
		ended <- d.dispatch(ctx, cfg, inc)
		return nil
	})
	if err := <-ended; err != nil {
		return err
	}
	d.printf("\nsgfleet would exit with code %d: %s", d.report.ExitCode(), exitMeaning(d.report.ExitCode()))
	return nil
}

func (d *demo) dispatch(ctx context.Context, cfg *fleet.Config, inc *incarnation) error {
	client, err := control.Connect(cfg, control.ConnectOptions{Name: "sgsim-demo", Dialer: inc.dialer})
	if err != nil {
		return err
	}
	defer client.Close()
	disp := &control.Dispatcher{Config: cfg, Client: client, Identity: d.identity()}
	began := time.Now()
	stop := d.view.start()
	defer stop()
	first := true
	report, err := disp.Dispatch(ctx, control.Request{Op: "restart", Target: "all", RequestedBy: "demo", Watch: d.view.update},
		func(_ context.Context, text string) error {
			if !first {
				stop()
			}
			first = false
			d.view.text(text)
			return nil
		})
	if report == nil {
		return fmt.Errorf("dispatching the restart: %w", err)
	}
	d.report = report
	d.world.reported("operator", demoOp, report, err, time.Since(began))
	return nil
}

func exitMeaning(code int) string {
	return map[int]string{
		control.ExitOK: "all did it", control.ExitFailed: "some failed or refused", control.ExitSilent: "some are silent or unfinished",
		control.ExitNobody: "nobody answered",
	}[code]
}

func (d *demo) identity() control.Identity {
	rnd := rand.New(rand.NewPCG(uint64(d.Seed), uint64(time.Now().UnixNano())))
	return control.Identity{
		Host: "demo", Token: func() string { return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()) }, Wall: time.Now,
	}
}

// verdict holds the report against what happened to each fake unit.
func (d *demo) verdict(events []Event) error {
	sc := &Scenario{Name: "demo", Config: d.plan.Config, plan: d.plan}
	r := newRecord(sc, d.Seed, events)
	o := r.byName[demoOp]
	if o == nil || o.report < 0 || len(o.publishes) == 0 {
		return errors.New("the demo's event log does not hold its op")
	}
	var wrong []string
	for _, name := range []string{"report_matches_truth", "gateway_last", "at_most_once", "no_replay"} {
		for _, v := range invariants[name].Judge(r, o).Violations {
			wrong = append(wrong, name+": "+v.Detail)
		}
	}
	if err := d.unlucky(); err != nil {
		wrong = append(wrong, err.Error())
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the roster does not match what really happened:\n  %s", strings.Join(wrong, "\n  "))
	}
	d.printf("Checked: the roster agrees with what really happened to each of the %d fake units, and the gateways were last.", len(r.names))
	d.printf("It took %.1f s; everything is gone again.", time.Since(d.began).Seconds())
	return nil
}

// unlucky reports whether the roster names each of the three as what it was.
func (d *demo) unlucky() error {
	want := map[string]control.Class{d.hang: control.ClassUnfinished, d.fail: control.ClassFailed, d.deaf: control.ClassSilent}
	for _, i := range d.report.Instances {
		w, ok := want[i.Instance]
		if !ok {
			w = control.ClassOK
		}
		if i.Class != w {
			return fmt.Errorf("the roster calls %s %s (%s), but it was made to be %s", i.Instance, i.Class, i.Detail, w)
		}
		delete(want, i.Instance)
	}
	for name := range want {
		return fmt.Errorf("the roster does not name %s", name)
	}
	return nil
}

// stay says what a second terminal can do: look, rehearse, and do it.
func (d *demo) stay() {
	d.printf("\nThe fleet stays up until Ctrl-C. In a second terminal:\n")
	for _, cmd := range []string{
		"export SGFLEET_REDIS_URL=" + d.url,
		"sgfleet services",
		"sgfleet services -o json > fleet.json",
		"sgsim rehearse --from fleet.json restart web",
		"sgfleet restart web --yes",
	} {
		d.printf("  %s", cmd)
	}
}
