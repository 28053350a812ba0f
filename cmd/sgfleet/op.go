package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// opCmd is what the commands that broadcast an op differ in.
type opCmd struct {
	name, short, long, example string

	dangerous     bool // ask before sending
	includeFailed bool
	ref           bool // --ref
	expectVersion bool // --expect-version
}

type opFlags struct {
	yes, dryRun, noWait, local bool
	includeFailed              bool
	timeout                    time.Duration
	ref, retry, expectVersion  string
	progress                   string
}

var progressModes = []string{progressAuto, progressTTY, progressPlain, progressNone}

func (a *app) opCmd(o opCmd) *cobra.Command {
	var f opFlags
	cmd := &cobra.Command{
		Use: o.name + " TARGET", Short: o.short, Long: o.long, Example: o.example,
		Args: countArgs(0, 1, "one TARGET (a list is joined by commas)"), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			target := strings.Join(args, "")
			switch {
			case len(args) == 0 && f.retry == "":
				return &cli.Error{
					Code: exitUsage, Err: fmt.Errorf("%s %s wants a TARGET: all, a tier, a service, service@host, host:NAME", cmd.Root().Name(), o.name),
					Hint: fmt.Sprintf("Run 'sgfleet %s --help' for examples.", o.name),
				}
			case len(args) > 0 && f.retry != "":
				return usagef("--retry takes its target from the earlier op: leave out %q", target)
			case !slices.Contains(progressModes, f.progress):
				return usagef("unknown --progress %q: want %s%s", f.progress, strings.Join(progressModes, ", "), cli.DidYouMean(f.progress, progressModes))
			}
			if f.local {
				return a.localOp(cmd.Context(), o, target, f)
			}
			return a.fleetOp(cmd.Context(), o, target, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.dryRun, "dry-run", false, "show whom it would reach, send nothing")
	fl.BoolVar(&f.local, "local", false, "act on this host without Redis")
	fl.BoolVar(&f.noWait, "no-wait", false, "end when everybody has accepted, without waiting for the outcome")
	fl.Var(durationFlag{&f.timeout}, "timeout", "end after this long in any case (default: each instance's own deadline)")
	fl.StringVar(&f.retry, "retry", "", "send it again to those on which op `ID` did not succeed")
	fl.StringVar(&f.progress, "progress", progressAuto, strings.Join(progressModes, ", ")+": how acks are shown meanwhile, on stderr")
	complete(cmd, "progress", progressModes...)
	if o.dangerous {
		fl.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	}
	if o.includeFailed {
		fl.BoolVar(&f.includeFailed, "include-failed", false, "restart failed units too")
	}
	if o.ref {
		fl.StringVar(&f.ref, "ref", "", "move to the commit `REV` (7 or more hex digits) instead of the upstream's tip; forward only")
	}
	if o.expectVersion {
		fl.StringVar(&f.expectVersion, "expect-version", "", "a daemon of another sgfleet `VERSION` counts as failed")
	}
	return cmd
}

// fleetOp broadcasts the op and reports what became of it.
func (a *app) fleetOp(ctx context.Context, o opCmd, target string, f opFlags) error {
	cfg, c, err := a.loadAndConnect()
	if err != nil {
		return err
	}
	defer c.Close()
	d := &control.Dispatcher{Config: cfg, Client: c, Identity: identity()}
	req := control.Request{
		Op: o.name, Target: target, RequestedBy: whoami(), NoWait: f.noWait, Timeout: f.timeout,
		ExpectVersion: f.expectVersion,
		Args:          control.Args{Revision: f.ref, IncludeFailed: f.includeFailed},
	}
	title := target
	if f.retry != "" {
		if err := a.retry(ctx, d, &req, f.retry); err != nil {
			return err
		}
		title = "--retry " + f.retry
	}
	plan, err := d.Plan(ctx, req)
	if err != nil {
		return a.notSent(cfg, err)
	}
	a.noteInstances(cfg, plan.Registry)
	b := blast{Plan: plan, target: title, includeFailed: f.includeFailed}
	if f.dryRun {
		return b.printDryRun(a)
	}
	if o.dangerous {
		b.print(a, a.stderr)
		if !f.yes {
			question := fmt.Sprintf("%s %s?", strings.ToUpper(o.name[:1])+o.name[1:], count(len(plan.Instances), "instance"))
			if err := a.confirm(ctx, question, a.again("--yes")); err != nil {
				return err
			}
		}
	}
	report, err := a.dispatch(ctx, d, plan, req, o.name+" "+title, f.progress)
	if report == nil {
		return a.notSent(cfg, err)
	}
	if printErr := a.printReport(report); printErr != nil && !hungUp(printErr) && err == nil {
		err = fmt.Errorf("printing the report: %w", printErr)
	}
	return a.outcome(report, err)
}

// notSent adds the hint that goes with an error from before anything was sent.
func (a *app) notSent(cfg *fleet.Config, err error) error {
	unsent := (*control.NotSentError)(nil)
	if !errors.As(err, &unsent) {
		return err
	}
	switch unsent.Code {
	case exitError:
		return a.redisError(cfg, err)
	case exitNobody:
		return &cli.Error{Code: exitNobody, Err: err, Hint: "'sgfleet services' lists who is there."}
	}
	return err
}

// dispatch sends the op and shows acks as they come.
func (a *app) dispatch(ctx context.Context, d *control.Dispatcher, plan *control.Plan, req control.Request, title, progress string) (*control.Report, error) {
	view := a.newLiveView(progress, title, plan.Instances)
	req.Watch = func(u control.Update) {
		view.update(u)
		if a.flags.output == "jsonl" {
			a.streamAck(u)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		view.run(stop)
	}()
	report, err := d.Dispatch(ctx, req, nil)
	close(stop)
	<-stopped
	return report, err
}

// streamAck writes one line of -o jsonl: an ack as it came.
func (a *app) streamAck(u control.Update) {
	if u.Kind == control.UpdateAck {
		_ = json.NewEncoder(a.stdout).Encode(map[string]any{"event": "ack", "op": u.Op, "ack": u.Ack})
	}
}

// outcome turns a report into the exit code and, when it was cut short, says
// what is still in flight.
func (a *app) outcome(r *control.Report, err error) error {
	if err != nil && errors.Is(err, context.Canceled) {
		open := r.Counts.Silent + r.Counts.Unfinished
		fmt.Fprintf(a.stderr, "%s the op was sent and cannot be called back; %s without a final answer and may still act.\n",
			a.paint(a.stderr, yellow, "interrupted:"), pluralIs(open))
		if r.Release != "" {
			fmt.Fprintf(a.stderr, "The gateways were told: %s.\n", r.Release)
		}
		fmt.Fprintf(a.stderr, "Look again:    sgfleet services\nSend it again to those that did not succeed:\n  sgfleet %s --retry %s\n", r.Op, r.ID)
		return &cli.Error{Code: exitInterrupt}
	}
	if err != nil {
		return err
	}
	if missed := r.Missed(); len(missed) > 0 && r.ExitCode() != exitOK && a.flags.output == "text" {
		those := "that one"
		if len(missed) > 1 {
			those = fmt.Sprintf("those %d", len(missed))
		}
		fmt.Fprintf(a.stderr, "Again, to %s: sgfleet %s --retry %s\n", those, r.Op, r.ID)
	}
	if code := r.ExitCode(); code != exitOK {
		return &cli.Error{Code: code}
	}
	return nil
}

func pluralIs(n int) string {
	if n == 1 {
		return "1 instance is"
	}
	return fmt.Sprintf("%d instances are", n)
}

// printReport writes the report in the format asked for.
func (a *app) printReport(r *control.Report) error {
	switch a.flags.output {
	case "json":
		return a.printJSON(r)
	case "jsonl":
		return json.NewEncoder(a.stdout).Encode(map[string]any{"event": "report", "op": r.ID, "report": r})
	case "name":
		for _, i := range r.Instances {
			if i.Class == control.ClassOK && !i.Skipped() {
				fmt.Fprintln(a.stdout, i.Instance)
			}
		}
		return nil
	case "wide":
		return a.printWide(r)
	}
	for _, text := range r.Text() {
		for line := range strings.SplitSeq(text, "\n") {
			if _, err := fmt.Fprintln(a.stdout, a.paintReport(line)); err != nil {
				return err
			}
		}
	}
	return nil
}

// paintReport colours one line of a report's text by its class.
func (a *app) paintReport(line string) string {
	if strings.HasPrefix(line, "    | ") {
		return a.paint(a.stdout, dim, line)
	}
	for _, w := range []struct{ word, sgr string }{
		{" failed", red}, {" silent", yellow}, {" unfinished", yellow}, {" refused", yellow}, {" skipped", yellow}, {" ok", green},
	} {
		if name, rest, ok := strings.Cut(line, w.word); ok && !strings.Contains(name, ": ") {
			return name + a.paint(a.stdout, w.sgr, w.word) + rest
		}
	}
	return line
}

// printWide is one row per instance, trouble first, and the sentence.
func (a *app) printWide(r *control.Report) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "INSTANCE\tCLASS\tSTATUS\tACCEPTED\tDONE\tREVISION\tDETAIL")
	ms := func(n int64) string {
		if n < 0 {
			return "-"
		}
		return fleet.Humane(time.Duration(n) * time.Millisecond)
	}
	for _, i := range r.Ordered() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.10s\t%s\n", i.Instance, i.Class, i.Status, ms(i.AcceptedMS), ms(i.DoneMS), i.Revision, i.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stdout, r.Summary)
	return err
}
