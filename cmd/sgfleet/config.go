package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).configCmd) }

// load reads the config with this command's flags on top. Every error in it is
// told at once.
func (a *app) load() (*fleet.Config, error) {
	cfg, _, err := a.loadSources()
	return cfg, err
}

func (a *app) loadSources() (*fleet.Config, fleet.Sources, error) {
	o := fleet.LoadOptions{Path: a.flags.config, Env: os.Environ()}
	o.Hostname, _ = os.Hostname()
	if a.flags.redis != "" {
		o.Overrides = append(o.Overrides, fleet.Override{Key: "redis.url", Value: a.flags.redis, Flag: "--redis"})
	}
	return loadConfig(o)
}

// loadCandidate reads a file as the daemon would that had it for its config:
// nothing else that is set here counts.
func loadCandidate(file string) (*fleet.Config, fleet.Sources, error) {
	o := fleet.LoadOptions{Path: file, Only: true}
	o.Hostname, _ = os.Hostname()
	return loadConfig(o)
}

func loadConfig(o fleet.LoadOptions) (*fleet.Config, fleet.Sources, error) {
	cfg, sources, err := fleet.Load(o)
	if err != nil {
		return nil, nil, &cli.Error{Code: exitUsage, Err: fmt.Errorf("the config cannot be used:\n%w", err)}
	}
	return cfg, sources, nil
}

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Write, check and explain the config",
		Long: `A value comes from, later ones winning: /etc/sgfleet/config.yaml, the user's own
~/.config/sgfleet/config.yaml, --config, the environment (SGFLEET_REDIS_URL sets
redis.url), flags.`,
		Args: cobra.ArbitraryArgs, RunE: cli.Group(exitUsage, nil),
	}
	cmd.AddCommand(a.configInitCmd(), a.configCheckCmd(), a.configViewCmd(), a.configSchemaCmd())
	return cmd
}

func (a *app) configCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Check the config; every error at once, with its place",
		Long: `Check the config that is in force, or FILE as it would be in the place of
/etc/sgfleet/config.yaml: by itself, without the present config, the user's own
or variables. (--config adds a file to those instead.)`,
		Example: "  sgfleet config check new.yaml && sudo mv new.yaml " + fleet.SystemConfig,
		Args:    countArgs(0, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			load := a.loadSources
			if len(args) == 1 {
				if a.flags.config != "" || a.flags.redis != "" {
					return usagef("%s is checked by itself: leave out --config and --redis", args[0])
				}
				load = func() (*fleet.Config, fleet.Sources, error) { return loadCandidate(args[0]) }
			}
			cfg, sources, err := load()
			if err != nil {
				return err
			}
			local := cfg.LocalServices(cfg.Host)
			if a.flags.output == "json" || a.flags.output == "jsonl" {
				return a.printJSON(map[string]any{"schema": 1, "ok": true, "host": cfg.Host, "services": len(local)})
			}
			fmt.Fprintf(a.stdout, "ok (%s): %s on this host (%s)\n", configFiles(cfg, sources), count(len(local), "service"), cfg.Host)
			if sources.DefaultServices() {
				a.warn(defaultServices(cfg))
			}
			return nil
		},
	}
}

// configFiles names the files that values in force come from.
func configFiles(cfg *fleet.Config, sources fleet.Sources) string {
	var names []string
	for _, s := range cfg.Settings(sources) {
		if file, _, ok := strings.Cut(s.Source, ":"); ok && !slices.Contains(names, file) {
			names = append(names, file)
		}
	}
	if len(names) == 0 {
		return "defaults only, no file was found"
	}
	return strings.Join(names, ", ")
}

// initCommand writes a config of what this host really runs.
const initCommand = "sgfleet config init --write " + fleet.SystemConfig

// defaultServices is what there is to say of a config that names no services.
func defaultServices(cfg *fleet.Config) string {
	return fmt.Sprintf("the config names no services, so %s is taken to run the default ones: %s", cfg.Host, strings.Join(cfg.ServiceNames(), ", "))
}

func (a *app) configViewCmd() *cobra.Command {
	var withSources bool
	cmd := &cobra.Command{
		Use: "view [KEY…]", Short: "Print the values in force; --sources says where each comes from",
		Example: `  sgfleet config view --sources
  sgfleet config view redis services.web`,
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, sources, err := a.loadSources()
			if err != nil {
				return err
			}
			all := cfg.Settings(sources)
			var shown []fleet.Setting
			for _, s := range all {
				if len(args) == 0 || anyPrefix(s.Key, args) {
					shown = append(shown, s)
				}
			}
			if len(shown) == 0 {
				var keys []string
				for _, s := range all {
					keys = append(keys, s.Key)
				}
				return usagef("no value is called %s%s", strings.Join(args, ", "), cli.DidYouMean(args[0], keys))
			}
			return a.printSettings(shown, withSources)
		},
	}
	cmd.Flags().BoolVar(&withSources, "sources", false, "say where each value comes from")
	return cmd
}

// anyPrefix reports whether a dotted key lies at or below one of prefixes.
func anyPrefix(key string, prefixes []string) bool {
	for _, p := range prefixes {
		if key == p || strings.HasPrefix(key, p+".") {
			return true
		}
	}
	return false
}

func (a *app) printSettings(settings []fleet.Setting, withSources bool) error {
	switch a.flags.output {
	case "json":
		return a.printJSON(map[string]any{"schema": 1, "settings": settings})
	case "jsonl":
		enc := json.NewEncoder(a.stdout)
		for _, s := range settings {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, s := range settings {
			fmt.Fprintln(a.stdout, s.Key)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, s := range settings {
		if withSources || a.flags.output == "wide" {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, s.Value, s.Source)
		} else {
			fmt.Fprintf(w, "%s\t%s\n", s.Key, s.Value)
		}
	}
	return w.Flush()
}

func (a *app) configSchemaCmd() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the config's JSON Schema, for editors",
		Example: `  sgfleet config schema > sgfleet.schema.json
  # and as the first line of the config:
  # yaml-language-server: $schema=sgfleet.schema.json`,
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			b, err := fleet.ConfigSchema()
			if err != nil {
				return fmt.Errorf("making the schema: %w", err)
			}
			_, err = fmt.Fprintf(a.stdout, "%s\n", b)
			return err
		},
	}
}
