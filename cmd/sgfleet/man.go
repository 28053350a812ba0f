//go:build man

package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func init() { commands = append(commands, (*app).manCmd) }

// manCmd writes a manual page for each command. Only packages need it, so only
// a build for them has it: go run -tags man ./cmd/sgfleet man DIR. The pages'
// date is SOURCE_DATE_EPOCH.
func (a *app) manCmd() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Hidden: true, Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return writeMan(cmd.Root(), args[0]) },
	}
}

func writeMan(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	root.Long += "\n\n" + manTable("TARGETS", targetsTable) + manTable("EXIT STATUS", exitCodesTable) +
		manTable("ENVIRONMENT", manEnvironment) + manTable("FILES", manFiles)
	synopsis(root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "sgfleet", Manual: "sgfleet"}, dir); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "sgfleet*.1"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		// A default that says nothing: --dry-run[=false], --retry="", --timeout=.
		said := strings.NewReplacer(`\fP[=false]`, `\fP`, `\fP=""`, `\fP`, "\\fP=\n", "\\fP\n").Replace(string(text))
		if err := os.WriteFile(page, []byte(said), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// synopsis says of commands that have others that they do.
func synopsis(cmd *cobra.Command) {
	if cmd.HasAvailableSubCommands() {
		cmd.Use += " [command]"
	}
	for _, sub := range cmd.Commands() {
		synopsis(sub)
	}
}

const (
	manEnvironment = `
  SGFLEET_CONFIG         a config file, as --config gives it
  SGFLEET_KEY            any value of the config that is no list or map: SGFLEET_REDIS_URL sets redis.url. Files come first, flags last
  CREDENTIALS_DIRECTORY  where systemd puts the daemon's credentials; redis-password in it is the Redis password when the config names none
  NO_COLOR               no colours
`
	manFiles = `
  /etc/sgfleet/config.yaml           config of the machine; sgfleet-config(1) checks and explains it, 'sgfleet config schema' lists every key
  ~/.config/sgfleet/config.yaml      config of the user, read after it: an operator's redis.username and redis.password_file
  /etc/sgfleet/credentials           secrets that systemd hands to the daemon; nothing else sees them
  /etc/polkit-1/rules.d/50-sgfleet.rules  what lets a daemon that is not root restart units; sgfleet-doctor(1) prints it where it is missing
  ~/.cache/sgfleet                   names of instances, for completion
`
)

// manTable is a table, whose first line is a heading for help, as a section in
// Markdown, which is what pages are made from.
func manTable(section, table string) string {
	_, rows, _ := strings.Cut(table, "\n")
	out := "# " + section + "\n"
	for line := range strings.Lines(rows) {
		term, means, _ := strings.Cut(strings.TrimSpace(line), "  ")
		for _, c := range []string{`*`, `_`, `[`, `]`} {
			term = strings.ReplaceAll(term, c, `\`+c)
			means = strings.ReplaceAll(means, c, `\`+c)
		}
		out += "\n**" + term + "**  " + strings.TrimSpace(means) + "\n"
	}
	return out + "\n"
}
