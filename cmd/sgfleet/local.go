package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"text/tabwriter"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

var discard = slog.New(slog.DiscardHandler)

// localResult is what became of one service; its keys are stable, those of a
// report.
type localResult struct {
	Instance     string        `json:"instance"`
	Service      string        `json:"service"`
	Tier         string        `json:"tier"`
	Host         string        `json:"host"`
	Class        control.Class `json:"class"`
	Status       string        `json:"status"`
	Detail       string        `json:"detail"`
	Revision     string        `json:"revision"`
	InvocationID string        `json:"invocation_id"`
	Journal      []string      `json:"journal"`
}

// localOp does the op on this host without Redis: the same checks of target,
// controller, mode, checkout and outcome as the daemon makes, one service after
// the other, gateways last. What Redis alone knows (holds, other publishers) is
// not asked, and that is said.
func (a *app) localOp(ctx context.Context, o opCmd, target string, f opFlags) error {
	if f.retry != "" || f.noWait || f.expectVersion != "" {
		return usagef("--local does not go with --retry, --no-wait or --expect-version")
	}
	cfg, err := a.load()
	if err != nil {
		return err
	}
	services, sel, err := localServices(cfg, cfg.Host, target)
	if err != nil {
		return err
	}
	for _, s := range services {
		if s.ControlledBy != fleet.ByHost {
			return &cli.Error{
				Code: exitRefused, Err: fmt.Errorf("%s is controlled by %s, not by this host: nothing was done", s.Instance, s.ControlledBy),
				Hint: fmt.Sprintf("Leave it out: sgfleet %s '%s,!%s' --local", o.name, target, s.Instance.Service),
			}
		}
	}
	if o.name != control.OpPull { // gateways go last; otherwise the config's order
		slices.SortStableFunc(services, func(x, y fleet.LocalService) int {
			return cmp.Compare(btoi(cfg.IsGateway(x.Tier)), btoi(cfg.IsGateway(y.Tier)))
		})
	}
	head := fmt.Sprintf("%s %s on this host (%s), without Redis: %s", o.name, target, cfg.Host, count(len(services), "service"))
	fmt.Fprintln(a.stderr, a.paint(a.stderr, bold, head))
	if f.dryRun {
		for _, s := range services {
			fmt.Fprintf(a.stdout, "%s  %s\n", s.Instance, s.Unit)
		}
		return nil
	}
	if o.dangerous && !f.yes && cfg.Mode != fleet.ModeObserve {
		if err := a.confirm(ctx, "Go on? Holds in Redis are not looked at.", a.again("--yes")); err != nil {
			return err
		}
	}
	units, done := a.openUnits(ctx)
	defer done()
	l := &localRun{app: a, cfg: cfg, units: units, op: o.name, target: sel, flags: f, pulled: map[string]opsexec.PullResult{}}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	results := make([]localResult, 0, len(services))
	for _, s := range services {
		r := l.one(ctx, s)
		journalise(o.name, r)
		if a.flags.output == "jsonl" {
			_ = json.NewEncoder(a.stdout).Encode(r)
		}
		results = append(results, r)
	}
	return a.printLocal(o.name, target, results)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

type localRun struct {
	*app
	cfg    *fleet.Config
	units  opsexec.Units
	op     string
	target fleet.Target
	flags  opFlags
	pulled map[string]opsexec.PullResult // by checkout: once each
}

// one does the op on one service.
func (l *localRun) one(ctx context.Context, s fleet.LocalService) localResult {
	r := localResult{Instance: s.Instance.String(), Service: s.Instance.Service, Tier: s.Tier, Host: s.Instance.Host, Journal: []string{}}
	say := func(class control.Class, status, detail string) localResult {
		r.Class, r.Status, r.Detail = class, status, detail
		return r
	}
	if ctx.Err() != nil {
		return say(control.ClassUnfinished, "interrupted", "not begun")
	}
	if l.op == control.OpPing {
		u, err := l.units.Show(ctx, s.Unit)
		if err != nil {
			return say(control.ClassFailed, "failed", err.Error())
		}
		r.InvocationID = u.InvocationID
		return say(control.ClassOK, "ok", fmt.Sprintf("%s is %s (%s)", s.Unit, u.ActiveState, u.SubState))
	}
	if l.cfg.Mode == fleet.ModeObserve {
		return say(control.ClassOK, "skipped", "would "+l.op+" (mode: observe)")
	}
	did := ""
	if l.op != control.OpRestart {
		p, status := l.pull(ctx, s)
		r.Revision = p.New
		switch {
		case status == "skipped" && l.op == control.OpPull:
			return say(control.ClassOK, status, "has no checkout")
		case p.Busy:
			return say(control.ClassRefused, "busy", p.Summary)
		case status == "failed":
			return say(control.ClassFailed, status, p.Summary)
		case l.op == control.OpPull:
			return say(control.ClassOK, status, p.Summary)
		}
		if p.Summary != "" {
			did = p.Summary + "; "
		}
	}
	res, err := l.restart(ctx, s)
	if err != nil {
		return say(control.ClassRefused, "busy", err.Error())
	}
	r.InvocationID, r.Journal = res.After.InvocationID, append(r.Journal, res.Journal...)
	if res.Status == opsexec.RestartSkipped && res.After.ActiveState == "failed" {
		res.Summary += fmt.Sprintf("; name it (%s) or --include-failed", r.Instance)
	}
	return say(restartClass(res.Status), string(res.Status), did+res.Summary)
}

// pull pulls the service's checkout, each once.
func (l *localRun) pull(ctx context.Context, s fleet.LocalService) (opsexec.PullResult, string) {
	if s.Checkout == "" {
		return opsexec.PullResult{OK: true}, "skipped"
	}
	p, ok := l.pulled[s.Checkout]
	status := "joined"
	if !ok {
		c := l.cfg.Checkouts[s.Checkout]
		status = "ok"
		p = opsexec.RunGitPull(ctx, s.Checkout, opsexec.PullOptions{
			NoDedupe: true, Timeout: l.cfg.PullTimeout.D(), LockTTL: l.cfg.LockTTL.D(), InstanceID: s.Instance.String(),
			Revision: l.flags.ref, Remote: c.Remote, Branch: c.Branch, AfterPull: c.AfterPull, Env: gitEnv(l.cfg),
		})
		l.pulled[s.Checkout] = p
	}
	if !p.OK {
		status = "failed"
	}
	return p, status
}

// restart restarts the unit while it holds its checkout, so that no pull moves
// the files under it. As with the daemon, a checkout that cannot be looked at
// does not keep its service from being restarted; the error is a pull's that is
// running.
func (l *localRun) restart(ctx context.Context, s fleet.LocalService) (opsexec.RestartResult, error) {
	tree := opsexec.OSTree{}
	if c, err := tree.Resolve(s.Checkout); s.Checkout != "" && err == nil {
		wait, cancel := context.WithTimeout(ctx, l.cfg.PullTimeout.D())
		defer cancel()
		lock, err := tree.Lock(wait, c, opsexec.Shared)
		if errors.Is(err, opsexec.ErrLocked) {
			return opsexec.RestartResult{}, fmt.Errorf("a pull of %s is running: %w", s.Checkout, err)
		}
		if err == nil {
			defer lock.Unlock()
		}
	}
	return opsexec.RestartUnit(ctx, l.units, s.Unit, opsexec.RestartOptions{
		Settle: l.cfg.TierSettle(s.Tier), Timeout: l.cfg.TierDoneTimeout(s.Tier),
		IncludeFailed: l.flags.includeFailed || l.target.Names(s.Member()),
		Journal:       opsexec.JournalLines(opsexec.OSExec, journalLines),
	}), nil
}

func restartClass(s opsexec.RestartStatus) control.Class {
	switch s {
	case opsexec.RestartOK, opsexec.RestartSkipped:
		return control.ClassOK
	case opsexec.RestartBusy:
		return control.ClassRefused
	case opsexec.RestartPending:
		return control.ClassUnfinished
	}
	return control.ClassFailed
}

func restartCode(s opsexec.RestartStatus) error {
	switch restartClass(s) {
	case control.ClassOK:
		return nil
	case control.ClassUnfinished:
		return &cli.Error{Code: control.ExitSilent}
	}
	return &cli.Error{Code: control.ExitFailed}
}

// journalise leaves a record of what was done past Redis and its history.
// Without a journal there is none to leave.
func journalise(op string, r localResult) {
	if !journal.Enabled() {
		return
	}
	priority := journal.PriNotice
	if r.Class != control.ClassOK {
		priority = journal.PriWarning
	}
	_ = journal.Send(fmt.Sprintf("sgfleet %s --local by %s: %s %s: %s", op, whoami(), r.Instance, r.Status, r.Detail), priority, map[string]string{
		"SYSLOG_IDENTIFIER": "sgfleet", "SGFLEET_OP": op, "SGFLEET_INSTANCE": r.Instance, "SGFLEET_STATUS": r.Status,
	})
}

func (a *app) printLocal(op, target string, results []localResult) error {
	counts := map[control.Class]int{}
	for _, r := range results {
		counts[r.Class]++
	}
	code := exitOK
	switch {
	case counts[control.ClassFailed]+counts[control.ClassRefused] > 0:
		code = control.ExitFailed
	case counts[control.ClassUnfinished] > 0:
		code = control.ExitSilent
	}
	switch a.flags.output {
	case "json":
		if err := a.printJSON(map[string]any{"schema": 1, "local": true, "op": op, "target": target, "instances": results, "exit_code": code}); err != nil {
			return err
		}
	case "jsonl": // streamed
	case "name":
		for _, r := range results {
			if r.Class == control.ClassOK && r.Status != string(control.Skipped) {
				fmt.Fprintln(a.stdout, r.Instance)
			}
		}
	default:
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		for _, r := range results {
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Instance, r.Status, r.Detail)
			for _, line := range r.Journal {
				fmt.Fprintf(w, "    | %s\n", line)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if code != exitOK {
		return &cli.Error{Code: code}
	}
	return nil
}
