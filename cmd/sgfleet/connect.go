package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// connect opens the fleet's Redis. The caller closes the client.
func (a *app) connect(cfg *fleet.Config) (*control.Client, error) {
	return control.Connect(cfg, control.ConnectOptions{ReadFile: os.ReadFile})
}

// loadAndConnect is how every command begins that speaks to the fleet. The
// caller closes the client.
func (a *app) loadAndConnect() (*fleet.Config, *control.Client, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	c, err := a.connect(cfg)
	return cfg, c, err
}

// registry is readRegistry for a command that says at once what is unreadable.
func (a *app) registry(ctx context.Context, cfg *fleet.Config, c *control.Client) (fleet.Registry, error) {
	r, err := a.readRegistry(ctx, cfg, c)
	a.warn(malformed(r)...)
	return r, err
}

// readRegistry reads the live fleet in cfg's order and notes its instances for
// completion.
func (a *app) readRegistry(ctx context.Context, cfg *fleet.Config, c *control.Client) (fleet.Registry, error) {
	r, err := fleet.ReadRegistry(ctx, c, cfg.Keys())
	if err != nil {
		return r, a.redisError(cfg, err)
	}
	r.Arrange(cfg)
	a.noteInstances(cfg, r)
	return r, nil
}

func malformed(r fleet.Registry) []string {
	var out []string
	for _, err := range r.Malformed {
		out = append(out, "unreadable: "+clean(err.Error()))
	}
	return out
}

// warn says on stderr what is no error.
func (a *app) warn(notes ...string) {
	for _, n := range notes {
		fmt.Fprintf(a.stderr, "%s %s\n", a.paint(a.stderr, yellow, "note:"), n)
	}
}

// redisError adds to an error from Redis what to look at.
func (a *app) redisError(cfg *fleet.Config, err error) error {
	hint := fmt.Sprintf("Redis is %s (sgfleet config view --sources tells where that comes from); --redis URL overrides it.", redactURL(cfg.Redis.URL))
	switch text := err.Error(); {
	case strings.Contains(text, "WRONGPASS "), strings.Contains(text, "NOAUTH "):
		hint = a.passwordHint(cfg)
	case strings.Contains(text, "NOPERM "):
		hint = fmt.Sprintf("That is for an operator's Redis user; this is %s. Set redis.username and redis.password_file to one that may.", a.redisUser(cfg))
	}
	return &cli.Error{Code: exitError, Err: err, Hint: hint}
}

// passwordHint says as whom Redis was asked, where the password came from, and
// what to set.
func (a *app) passwordHint(cfg *fleet.Config) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	units, done := a.openUnits(ctx)
	defer done()
	if self, err := readDaemonUnit(ctx, units, cfg); err == nil {
		if cred, ok := self.hidden(cfg); ok {
			secret := self.secret(cred)
			return fmt.Sprintf("On this host %s.\nAsk on the operator's machine, or here with it:\n  %s", secret, withCredential(cred, a.again()...))
		}
	}
	const set = "Set redis.username and redis.password_file (in ~/.config/sgfleet/config.yaml, for example)."
	sources := a.sources()
	password := "no password"
	inURL := false
	if u, err := url.Parse(cfg.Redis.URL); err == nil {
		_, inURL = u.User.Password()
	}
	switch {
	case cfg.Redis.Password != "":
		password = "the password of redis.password (" + sources.Of("redis.password") + ")"
	case cfg.Redis.PasswordFile != "":
		password = fmt.Sprintf("the password in %s (redis.password_file, %s)", cfg.Redis.PasswordFile, sources.Of("redis.password_file"))
	case inURL:
		password = "the password in redis.url (" + sources.Of("redis.url") + ")"
	}
	return fmt.Sprintf("%s was asked as %s with %s.\n%s", redactURL(cfg.Redis.URL), a.redisUser(cfg), password, set)
}

// redisUser names the Redis user and where its name comes from.
func (a *app) redisUser(cfg *fleet.Config) string {
	if cfg.Redis.Username != "" {
		return fmt.Sprintf("user %s (redis.username, %s)", cfg.Redis.Username, a.sources().Of("redis.username"))
	}
	if u, err := url.Parse(cfg.Redis.URL); err == nil && u.User.Username() != "" {
		return fmt.Sprintf("user %s (redis.url, %s)", u.User.Username(), a.sources().Of("redis.url"))
	}
	return "user default (redis.username is not set)"
}

// sources says where the config's values come from.
func (a *app) sources() fleet.Sources {
	_, sources, _ := a.loadSources()
	return sources
}

// redactURL hides the password of a Redis URL.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	return u.Redacted()
}

// whoami names the operator: user@host, with the account behind a sudo.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, _ := os.Hostname()
	return name + "@" + host
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if a.flags.output == "json" {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// parseUntil reads --until: a duration from now, a clock time today or
// tomorrow, or a date.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d <= 0 {
			return time.Time{}, usagef("--until %s: want a time that is still to come", s)
		}
		return now.Add(d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			if !t.After(now) {
				return time.Time{}, usagef("--until %s: that is past", s)
			}
			return t, nil
		}
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if !t.After(now) {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	return time.Time{}, usagef(`--until %q: want a duration (2h), a time (18:30) or a date ("2026-01-31 18:30")`, s)
}
