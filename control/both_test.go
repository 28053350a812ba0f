package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// dispatcher returns the operator's end of a rig.
func (r *rig) dispatcher() *Dispatcher {
	return &Dispatcher{
		Config: r.cfg, Client: r.op,
		Identity: Identity{Token: func() string { r.ids++; return fmt.Sprint(r.t.Name(), " dispatch ", r.ids) }},
	}
}

// serial returns the number of the unit's newest start on its host, which a
// fake systemd writes into the invocation id.
func serial(t *testing.T, h *fakeHost, unit string) int {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	if _, err := fmt.Sscanf(h.units[unit].InvocationID, "%x", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Both ends, for real: three hosts of three services each, on a real Redis.
func TestDispatcherAndDaemons(t *testing.T) {
	srv := redistest.Start(t)
	r := newRig(t, srv.Addr, nil)
	r.cfg.ControlReplyTimeout = fleet.Seconds(20 * time.Second)
	hosts := map[string]*fakeHost{}
	for _, h := range []string{"h1", "h2", "h3"} {
		hosts[h] = newFakeHost()
		for _, s := range []string{"web", "agents", "gateway"} {
			hosts[h].unit("stargazer-" + s + ".service")
		}
		r.start(r.daemon(h, hosts[h]))
	}
	d := r.dispatcher()
	all := []string{}
	for _, s := range []string{"gateway", "agents", "web"} {
		for h := range hosts {
			all = append(all, s+"@"+h)
		}
	}
	dispatch := func(req Request) *Report {
		t.Helper()
		rep, err := d.Dispatch(t.Context(), req, nil)
		if err != nil {
			t.Fatalf("%s %s: %v", req.Op, req.Target, err)
		}
		return rep
	}

	t.Run("Ping", func(t *testing.T) {
		rep := dispatch(Request{Op: OpPing, Target: "all"})
		wantClasses(t, rep, map[Class][]string{ClassOK: all})
		if v := resultOf(t, rep, "web@h1").Version; v != "v-test" {
			t.Errorf("version %q; want v-test", v)
		}
	})
	t.Run("UpdateGatewayLast", func(t *testing.T) {
		rep := dispatch(Request{Op: OpUpdate, Target: "all"})
		wantClasses(t, rep, map[Class][]string{ClassOK: all})
		for name, h := range hosts {
			for _, s := range []string{"web", "agents", "gateway"} {
				if n := h.restarts("stargazer-" + s + ".service"); n != 1 {
					t.Errorf("%s@%s restarted %d times; want once", s, name, n)
				}
				if got := resultOf(t, rep, s+"@"+name).Revision; got != rev(2) {
					t.Errorf("%s@%s is at %s; want %s", s, name, got, rev(2))
				}
			}
			last := serial(t, h, "stargazer-gateway.service")
			if w, a := serial(t, h, "stargazer-web.service"), serial(t, h, "stargazer-agents.service"); last < w || last < a {
				t.Errorf("%s: the gateway started as number %d, web as %d, agents as %d; want it last", name, last, w, a)
			}
			if n := h.fetches("/srv/app"); n != 1 {
				t.Errorf("%s fetched %d times; want once for both services", name, n)
			}
		}
	})
	t.Run("Trouble", func(t *testing.T) {
		dying := hosts["h1"].unit("stargazer-web.service")
		hosts["h1"].set(func() { dying.then = "failed" })
		stopped := hosts["h2"].unit("stargazer-web.service")
		hosts["h2"].set(func() { stopped.ActiveState = "inactive" })
		if _, err := fleet.SetHold(t.Context(), r.op, r.cfg.Keys(), fleet.Hold{Target: "web@h3", By: "ann", Reason: "disk swap"}); err != nil {
			t.Fatal(err)
		}
		rep := dispatch(Request{Op: OpRestart, Target: "web"})
		wantClasses(t, rep, map[Class][]string{ClassFailed: {"web@h1"}, ClassOK: {"web@h2"}, ClassRefused: {"web@h3"}})
		if i := resultOf(t, rep, "web@h2"); i.Status != Skipped || i.Reason != ReasonStopped {
			t.Errorf("web@h2: %+v; want it skipped, it was stopped", i)
		}
		if i := resultOf(t, rep, "web@h3"); i.Status != Held || !strings.Contains(i.Detail, "disk swap") {
			t.Errorf("web@h3: %+v; want it held, with the reason", i)
		}
		if rep.ExitCode() != ExitFailed {
			t.Errorf("exit %d; want %d", rep.ExitCode(), ExitFailed)
		}
		// A retry reaches the one that failed, by name, and not the held one again.
		hosts["h1"].set(func() { dying.then, dying.Result = "", "success" })
		if err := fleet.ClearHold(t.Context(), r.op, r.cfg.Keys(), "web@h3"); err != nil {
			t.Fatal(err)
		}
		again := dispatch(Request{Op: OpRestart, Target: "web", Only: rep.Missed()})
		wantClasses(t, again, map[Class][]string{ClassOK: {"web@h1", "web@h3"}})
	})
	t.Run("OneHostGone", func(t *testing.T) {
		r.mu.Lock()
		gone := r.daemons[0]
		r.mu.Unlock()
		host := gone.Identity.Host
		gone.stop()
		r.cfg.ControlReplyTimeout = fleet.Seconds(5 * time.Second) // its silence is waited for
		rep := dispatch(Request{Op: OpRestart, Target: "agents"})
		others := []string{}
		for h := range hosts {
			if h != host {
				others = append(others, "agents@"+h)
			}
		}
		wantClasses(t, rep, map[Class][]string{ClassOK: others, ClassSilent: {"agents@" + host}})
		if rep.ExitCode() != ExitSilent {
			t.Errorf("exit %d; want %d", rep.ExitCode(), ExitSilent)
		}
	})
}
