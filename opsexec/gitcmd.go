package opsexec

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// gitConfig is set on every git command. Hooks, fsmonitor and gc come with the
// repository or run detached; a planted hook and a planted fsmonitor both ran,
// and printed a secret of the environment, without these.
var gitConfig = []string{
	"core.hooksPath=/dev/null",
	"core.fsmonitor=false",
	"gc.auto=0",
	"maintenance.auto=false",
	"submodule.recurse=false",
	"fetch.recurseSubmodules=false",
	"transfer.bundleURI=false",
	"http.lowSpeedLimit=1000", // bytes/s, for
	"http.lowSpeedTime=20",    // seconds: a stalled transfer ends before our timeout
	"advice.detachedHead=false",
}

// git runs git commands in one checkout.
type git struct {
	exec     Exec
	env      []string
	dir      string
	lock     Lock      // inherited by the commands; nil for those that only read
	deadline time.Time // of all commands together; zero: none
}

func newGit(c Checkout, exec Exec, e GitEnv) (git, error) {
	env, err := e.environ()
	return git{exec: exec, env: env, dir: c.Real}, err
}

// secrets are what of its environment must never be shown. Few commands have
// something to show, so they are found only then.
func (g git) secrets() []string { return secretsOf(g.env) }

// under returns g with its commands bound to a lock and a time limit.
func (g git) under(lock Lock, limit time.Duration) git {
	g.lock, g.deadline = lock, time.Now().Add(limit)
	return g
}

// run runs one git command.
func (g git) run(ctx context.Context, args ...string) (Result, error) {
	argv := make([]string, 0, 1+2*len(gitConfig)+len(args))
	argv = append(argv, "git")
	for _, kv := range gitConfig {
		argv = append(argv, "-c", kv)
	}
	return g.command(ctx, append(argv, args...))
}

// command runs any command in git's place, environment and limits.
func (g git) command(ctx context.Context, argv []string) (Result, error) {
	cmd := Cmd{Argv: argv, Dir: g.dir, Env: g.env, Lock: g.lock}
	if !g.deadline.IsZero() {
		if cmd.Timeout = time.Until(g.deadline); cmd.Timeout <= 0 {
			return Result{ExitCode: -1, TimedOut: true}, fmt.Errorf("%s: no time left for it", commandName(argv))
		}
	}
	return g.exec(ctx, cmd)
}

var objectName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// revision returns the commit that name stands for.
func (g git) revision(ctx context.Context, name string) (string, error) {
	res, err := g.run(ctx, "rev-parse", "--verify", "--end-of-options", name+"^{commit}")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(res.Output) {
		if line = strings.TrimSpace(line); objectName.MatchString(line) {
			return line, nil
		}
	}
	return "", fmt.Errorf("git rev-parse %s: no revision in its answer: %s", name, excerpt(res.Output))
}

// distance counts the commits that only from has (ahead) and only to has (behind).
func (g git) distance(ctx context.Context, from, to string) (ahead, behind int, err error) {
	res, err := g.run(ctx, "rev-list", "--left-right", "--count", from+"..."+to, "--")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(res.Output) {
		if n, _ := fmt.Sscanf(line, "%d\t%d", &ahead, &behind); n == 2 {
			return ahead, behind, nil
		}
	}
	return 0, 0, fmt.Errorf("git rev-list: no counts in its answer: %s", excerpt(res.Output))
}

// environ is the whole environment of git: an allowlist, so that no secret of
// the daemon's own reaches a helper that the repository names.
func (e GitEnv) environ() ([]string, error) {
	home := e.Home
	if home == "" {
		home = "/nonexistent" // Debian's own name for no home
	}
	protocols := "https:ssh"
	if e.AllowFile {
		protocols += ":file"
	}
	ssh, err := e.sshCommand()
	if err != nil {
		return nil, err
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home,
		"LC_ALL=C",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_ASKPASS=/bin/false",
		"SSH_ASKPASS=/bin/false",
		"SSH_ASKPASS_REQUIRE=never",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ALLOW_PROTOCOL=" + protocols, // overrides protocol.*.allow of the repository
		"GIT_SSH_COMMAND=" + ssh,
		"GIT_LFS_SKIP_SMUDGE=1",
	}
	for _, kv := range e.Pass {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.ContainsRune(kv, 0) {
			return nil, fmt.Errorf("git environment: %q is not NAME=value", ChatLine(name))
		}
		env = append(env, kv)
	}
	return env, nil
}

// sshCommand never prompts, notices a dead peer after 15 s and leaves no master
// connection behind, which would hold our output and the flock.
func (e GitEnv) sshCommand() (string, error) {
	cmd := "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=10" +
		" -oServerAliveInterval=5 -oServerAliveCountMax=3 -oControlMaster=no -oControlPath=none"
	for _, file := range []string{e.SSHKey, e.KnownHosts} {
		if strings.ContainsAny(file, "\x00\r\n\"") {
			return "", fmt.Errorf("git environment: file name %q has a control character or quote", file)
		}
	}
	if e.SSHKey != "" {
		cmd += " -oIdentitiesOnly=yes -i " + shellQuote(e.SSHKey)
	}
	if e.KnownHosts != "" {
		cmd += " -oUserKnownHostsFile=" + shellQuote(`"`+e.KnownHosts+`"`)
	}
	return cmd, nil
}

// shellQuote quotes for the shell that git gives GIT_SSH_COMMAND to.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// checkName refuses names of remotes and branches that git could take for an
// option, a refspec or an address.
func checkName(what, name string) error {
	bad := strings.HasPrefix(name, "-") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") ||
		strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".lock") ||
		strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.Contains(name, "//") ||
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
	if bad {
		return fmt.Errorf("%s %q is not a valid name", what, ChatLine(name))
	}
	return nil
}

var revisionArg = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

func checkRevision(rev string) error {
	if rev != "" && !revisionArg.MatchString(rev) {
		return fmt.Errorf("revision %q is not a commit id (7 to 64 hex digits, lower case)", ChatLine(rev))
	}
	return nil
}
