package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

// foundUnit is a unit of this host that looks like one of the fleet's.
type foundUnit struct {
	Name       string // with suffix
	WorkingDir string
	Checkout   string // the git work tree that WorkingDir lies in, "" when it is none
}

func (a *app) configInitCmd() *cobra.Command {
	var prefix, write string
	var force bool
	cmd := &cobra.Command{
		Use: "init", Short: "Write a config for this host: its units and the checkouts they run from are discovered",
		Example: `  sgfleet config init                                    print it
  sgfleet config init --prefix app- --redis redis://10.0.0.5:6379/0
  sgfleet config init --write /etc/sgfleet/config.yaml`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			units, err := discover(cmd.Context(), prefix)
			if err != nil {
				fmt.Fprintf(a.stderr, "%s %v; the config below assumes the default units\n", a.paint(a.stderr, yellow, "note:"), err)
			}
			text := initialConfig(units, prefix, cmp.Or(a.flags.redis, os.Getenv("SGFLEET_REDIS_URL")), os.Getenv("SGFLEET_KEY_PREFIX"))
			if write == "" {
				_, err := fmt.Fprint(a.stdout, text)
				return err
			}
			if _, err := os.Stat(write); err == nil && !force {
				return &cli.Error{
					Code: exitRefused, Err: fmt.Errorf("%s exists: nothing was written", write),
					Hint: "Compare with 'sgfleet config init', or replace it with --force.",
				}
			}
			if err := writeFile(write, text); err != nil {
				return fmt.Errorf("writing %s: %w", write, err)
			}
			fmt.Fprintf(a.stderr, "wrote %s; check it with 'sgfleet config check %s'\n", write, write)
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", fleet.DefaultUnitPrefix, "the fleet's units are those whose names start with `PREFIX`")
	cmd.Flags().StringVar(&write, "write", "", "write to `FILE` instead of printing")
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing file")
	return cmd
}

// discover asks systemd for the units below prefix and their working
// directories.
func discover(ctx context.Context, prefix string) ([]foundUnit, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-units", "--all", "--output=json", "--", prefix+"*.service").Output()
	if err != nil {
		return nil, fmt.Errorf("asking systemctl for units called %s*: %w", prefix, err)
	}
	var list []struct {
		Unit string `json:"unit"`
		Load string `json:"load"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("reading systemctl's list of units: %w", err)
	}
	var found []foundUnit
	for _, u := range list {
		if u.Load != "loaded" {
			continue
		}
		dir, err := exec.CommandContext(ctx, "systemctl", "show", "-p", "WorkingDirectory", "--value", "--", u.Unit).Output()
		if err != nil {
			return nil, fmt.Errorf("asking systemctl about %s: %w", u.Unit, err)
		}
		f := foundUnit{Name: u.Unit, WorkingDir: strings.TrimSpace(string(dir))}
		f.Checkout = workTree(strings.TrimPrefix(f.WorkingDir, "!"))
		found = append(found, f)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("this host has no loaded unit called %s*", prefix)
	}
	return found, nil
}

// workTree returns the git work tree that dir lies in, "" when it lies in none.
func workTree(dir string) string {
	if !filepath.IsAbs(dir) {
		return ""
	}
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, ".git")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return ""
		}
	}
}

// initialConfig renders a config file for units (none: the defaults).
func initialConfig(units []foundUnit, prefix, redis, keyPrefix string) string {
	type service struct {
		tier, unit, checkout string
		instances            int
	}
	services := map[string]service{}
	checkouts := map[string]bool{}
	var strange []string // units of no known tier
	for _, u := range units {
		name := strings.TrimSuffix(strings.TrimPrefix(u.Name, prefix), ".service")
		if name == fleet.DaemonService {
			continue // the daemon itself is no service of the fleet
		}
		s := service{checkout: u.Checkout}
		if base, index, ok := strings.Cut(name, "@"); ok { // copies of a template
			n, err := strconv.Atoi(index)
			if err != nil || n < 1 {
				strange = append(strange, u.Name+" (the index of a template unit must be a number)")
				continue
			}
			name = base
			s.instances = max(services[name].instances, n)
			s.unit = prefix + base + "@.service"
			if s.instances == 1 { // the only copy is no #1
				s.unit = u.Name
			}
		}
		if !slices.Contains(fleet.ServiceTiers, name) {
			s.tier = fleet.Nearest(name, fleet.ServiceTiers)
			if s.tier == "" {
				s.tier = fleet.ServiceTiers[len(fleet.ServiceTiers)-1]
			}
			strange = append(strange, fmt.Sprintf("%s (put in tier %s: is that right?)", u.Name, s.tier))
		}
		services[name] = s
		if s.checkout != "" {
			checkouts[s.checkout] = true
		}
	}

	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# sgfleet: this host's config. Every key and its default: sgfleet config view\n\n")
	p("redis:\n  url: %s\n  # password_file: /etc/sgfleet/redis-password\n\n", yamlString(cmp.Or(redis, fleet.Default().Redis.URL)))
	if keyPrefix != "" {
		p("key_prefix: %s\n\n", yamlString(keyPrefix))
	}
	p("# observe: answer \"would restart\" and touch nothing. act: do it.\nmode: observe\n\n")
	if prefix != fleet.DefaultUnitPrefix {
		p("control_unit_prefix: %s\n\n", yamlString(prefix))
	}
	for _, s := range strange {
		p("# check: %s\n", s)
	}
	if len(services) == 0 {
		p("# No units were found; these are the defaults.\n# services:\n#   web: {tier: web, checkout: /srv/app}\n")
		return b.String()
	}
	p("services:\n")
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		p("  %s:\n    tier: %s\n", name, cmp.Or(s.tier, name))
		if s.unit != "" {
			p("    unit: %s\n    instances: %d\n", yamlString(s.unit), s.instances)
		}
		if s.checkout != "" {
			p("    checkout: %s\n", yamlString(s.checkout))
		}
	}
	if len(checkouts) > 0 {
		p("\n# after_pull runs once per host and pull, before anything is restarted:\n# checkouts:\n")
		for _, c := range slices.Sorted(maps.Keys(checkouts)) {
			p("#   %s:\n#     after_pull: [bin/install-requirements]\n", yamlString(c))
		}
	}
	return b.String()
}

// yamlString quotes s when YAML would read it as anything but this string.
func yamlString(s string) string {
	if s == "" || strings.ContainsAny(s, "#'\"{}[],&*!|>%@`\n\t\\") || strings.Contains(s, ": ") || strings.HasSuffix(s, ":") {
		return strconv.Quote(s)
	}
	return s
}
