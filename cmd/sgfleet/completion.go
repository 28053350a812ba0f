package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).completionCmd) }

func (a *app) completionCmd() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion " + strings.Join(shells, "|"), Short: "Print the shell's completion script",
		Example: `  source <(sgfleet completion bash)
  sgfleet completion zsh > "${fpath[1]}/_sgfleet"
  sgfleet completion fish > ~/.config/fish/completions/sgfleet.fish`,
		Args: exactArgs("SHELL (" + strings.Join(shells, ", ") + ")"), ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usagef("no completion for %q: want %s%s", args[0], strings.Join(shells, ", "), cli.DidYouMean(args[0], shells))
		},
	}
}

// Completion must be instant and work while Redis is away, so it reads a cache
// that every command which saw the registry leaves behind.

func cacheFile(cfg *fleet.Config) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "sgfleet", "instances-"+cfg.Fleet), nil
}

// noteInstances writes the cache: a line "service@host tier" for each
// instance. It is a convenience; failing to write it is no error.
func (a *app) noteInstances(cfg *fleet.Config, r fleet.Registry) {
	file, err := cacheFile(cfg)
	if err != nil {
		return
	}
	var b strings.Builder
	for _, m := range r.Members() {
		b.WriteString(m.String() + " " + m.Tier + "\n")
	}
	if old, err := os.ReadFile(file); err == nil && string(old) == b.String() {
		return
	}
	_ = writeFile(file, b.String())
}

func (a *app) cachedMembers(cfg *fleet.Config) []fleet.Member {
	file, err := cacheFile(cfg)
	if err != nil {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []fleet.Member
	for s := bufio.NewScanner(f); s.Scan(); {
		name, tier, _ := strings.Cut(s.Text(), " ")
		if i, err := fleet.ParseInstance(name); err == nil {
			out = append(out, fleet.Member{Instance: i, Tier: tier})
		}
	}
	return out
}

// completeTargets completes a TARGET: the last part of a comma list, maybe an
// exclusion.
func (a *app) completeTargets(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	cfg, err := a.load()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	before, part := "", typed
	if i := strings.LastIndexByte(typed, ','); i >= 0 {
		before, part = typed[:i+1], typed[i+1:]
	}
	if strings.HasPrefix(part, "!") {
		before, part = before+"!", part[1:]
	}
	words := []string{fleet.TargetAll}
	words = append(words, cfg.TierNames()...)
	words = append(words, cfg.ServiceNames()...)
	for _, m := range a.cachedMembers(cfg) {
		words = append(words, "host:"+m.Host)
		if strings.Contains(part, "@") || m.Service == part {
			words = append(words, m.String())
		}
	}
	slices.Sort(words)
	var out []string
	for _, w := range slices.Compact(words) {
		if strings.HasPrefix(w, part) {
			out = append(out, before+w)
		}
	}
	return out, directive
}
