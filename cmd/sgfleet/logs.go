package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

func init() { commands = append(commands, (*app).logsCmd) }

type logsFlags struct {
	follow     bool
	lines      int
	host       string
	cursorFile string
}

func (a *app) logsCmd() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use: "logs [TARGET]", Short: "The journal of this host's services, or of another's over ssh",
		Example: `  sgfleet logs                       the last 50 lines of every service here
  sgfleet logs web -f                follow one tier
  sgfleet logs gateway -n 200 --host gw-1
  sgfleet logs -o jsonl --cursor-file /var/lib/ingest/cursor   only what is new since the last time`,
		Args:              countArgs(0, 1, "at most one TARGET"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.lines < 1 {
				return usagef("-n %d: want a number from 1", f.lines)
			}
			return a.logs(cmd.Context(), strings.Join(args, ""), f)
		},
	}
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on as lines arrive")
	cmd.Flags().IntVarP(&f.lines, "lines", "n", 50, "how many of the last lines; after a cursor, all that are new")
	cmd.Flags().StringVar(&f.host, "host", "", "read the journal of `HOST` over ssh")
	cmd.Flags().StringVar(&f.cursorFile, "cursor-file", "", "start after the line noted in `FILE`, and note the last one printed")
	return cmd
}

// logLine is one line of -o json and jsonl; its keys are stable.
type logLine struct {
	Instance string `json:"instance"`
	opsexec.JournalEntry
}

func (a *app) logs(ctx context.Context, target string, f logsFlags) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	host := cfg.Host
	if f.host != "" {
		if !fleet.ValidName(f.host) {
			return usagef("--host %q: want letters, digits, dots, dashes and underscores", f.host)
		}
		host = f.host
	}
	services, _, err := localServices(cfg, host, target)
	if err != nil {
		return a.elsewhere(ctx, err, cfg, target, host)
	}
	q := opsexec.JournalQuery{Lines: f.lines, Follow: f.follow, Host: f.host}
	instances := map[string]string{}
	for _, s := range services {
		q.Units = append(q.Units, s.Unit)
		instances[s.Unit] = s.Instance.String()
	}
	if q.AfterCursor, err = readCursor(f.cursorFile); err != nil {
		return err
	}
	if q.AfterCursor != "" {
		q.Lines = 0 // all that are new
	}
	last := ""
	err = opsexec.ReadJournal(ctx, q, func(e opsexec.JournalEntry) error {
		last = e.Cursor
		return a.printLog(logLine{instances[e.Unit], e})
	})
	if last != "" && f.cursorFile != "" {
		if err := writeFile(f.cursorFile, last+"\n"); err != nil {
			return fmt.Errorf("noting the cursor: %w", err)
		}
	}
	return a.elsewhere(ctx, logsError(err, services, host), cfg, target, host)
}

// elsewhere adds to the error of a target of which host has nothing where it
// runs. A config without services gives every machine the default ones, so that
// they are looked for here may mean nothing.
func (a *app) elsewhere(ctx context.Context, err error, cfg *fleet.Config, target, host string) error {
	ce := (*cli.Error)(nil)
	if !errors.As(err, &ce) || ce.Code != exitNobody || target == "" {
		return err
	}
	if i, notOne := fleet.ParseInstance(target); notOne == nil && i.Host != host {
		ce.Hint = fmt.Sprintf("Its journal is on its host: sgfleet logs %s --host %s", target, i.Host)
		return err
	}
	hosts := hostsOf(cfg, target, a.cachedMembers(cfg))
	if len(hosts) == 0 {
		hosts = hostsOf(cfg, target, a.liveMembers(ctx, cfg))
	}
	if len(hosts) > 0 && !slices.Contains(hosts, host) {
		ce.Hint = fmt.Sprintf("%s runs on %s: sgfleet logs %s --host %s", target, strings.Join(fleet.Fold(hosts), ", "), shellQuote(target), hosts[0])
	}
	return err
}

// hostsOf returns the hosts of the members that target selects.
func hostsOf(cfg *fleet.Config, target string, members []fleet.Member) []string {
	t, err := fleet.ParseTarget(target, cfg, members...)
	if err != nil {
		return nil
	}
	var hosts []string
	for _, m := range members {
		if t.Match(m) && !slices.Contains(hosts, m.Host) {
			hosts = append(hosts, m.Host)
		}
	}
	return hosts
}

// liveMembers asks the registry, for a hint only: not for long, and not being
// told is no error.
func (a *app) liveMembers(ctx context.Context, cfg *fleet.Config) []fleet.Member {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := a.connect(cfg)
	if err != nil {
		return nil
	}
	defer c.Close()
	reg, err := fleet.ReadRegistry(ctx, c, cfg.Keys())
	if err != nil {
		return nil
	}
	return reg.Members()
}

// logsError says what to do about a journal that told nothing.
func logsError(err error, services []fleet.LocalService, host string) error {
	const access = "Read it as root, or as a user in the group systemd-journal or adm."
	of := fmt.Sprintf("%s: %%w (%s)", host, joinUnits(services))
	switch {
	case errors.Is(err, context.Canceled):
		return &cli.Error{Code: exitInterrupt}
	case errors.Is(err, exec.ErrNotFound):
		return &cli.Error{Code: exitError, Err: err, Hint: "There is no systemd journal on this machine; --host HOST reads another's over ssh."}
	case errors.Is(err, opsexec.ErrNoJournal):
		return &cli.Error{Code: exitError, Err: fmt.Errorf("%s: %w", host, err), Hint: "Is systemd-journald running there? " + access}
	case errors.Is(err, opsexec.ErrPartJournal):
		return &cli.Error{Code: exitError, Err: fmt.Errorf(of, err), Hint: access}
	case errors.Is(err, opsexec.ErrNoEntries):
		return &cli.Error{Code: exitNobody, Err: fmt.Errorf(of, err), Hint: "'systemctl status UNIT' there tells whether it has such a unit; units come from this config ('sgfleet units')."}
	}
	return err
}

func joinUnits(services []fleet.LocalService) string {
	units := make([]string, len(services))
	for i, s := range services {
		units[i] = s.Unit
	}
	return strings.Join(units, ", ")
}

func (a *app) printLog(l logLine) error {
	switch a.flags.output {
	case "json", "jsonl":
		return json.NewEncoder(a.stdout).Encode(l)
	case "name":
		_, err := fmt.Fprintln(a.stdout, l.Instance)
		return err
	}
	sgr := ""
	switch {
	case l.Priority <= 3:
		sgr = red
	case l.Priority == 4:
		sgr = yellow
	}
	layout := time.TimeOnly
	if a.flags.output == "wide" {
		layout = "2006-01-02T15:04:05.000000"
	}
	for line := range strings.SplitSeq(l.Message, "\n") {
		_, err := fmt.Fprintf(a.stdout, "%s %s %s\n", a.paint(a.stdout, dim, l.Time.Local().Format(layout)),
			a.paint(a.stdout, bold, l.Instance), a.paint(a.stdout, sgr, clean(line)))
		if err != nil {
			return err
		}
	}
	return nil
}

func readCursor(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the cursor: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
