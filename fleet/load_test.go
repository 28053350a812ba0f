package fleet

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"
)

var update = flag.Bool("update", false, "rewrite golden files; commit the change only if you understand it")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// files is a file system of config files.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	text, ok := f[name]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case text == "denied":
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	case text == "broken":
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("input/output error")}
	}
	return []byte(text), nil
}

func load(f files, env ...string) (*Config, Sources, error) {
	return Load(LoadOptions{Env: env, ReadFile: f.read, Hostname: "h1"})
}

func TestLoadDefaults(t *testing.T) {
	got, sources, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Host = "h1"
	for name, s := range want.Services {
		s.ControlledBy = ByHost
		want.Services[name] = s
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("without files (-want +got):\n%s", d)
	}
	if len(sources) != 1 || sources.Of("host") != "hostname" || sources.Of("lock_ttl") != "default" {
		t.Errorf("sources = %v", sources)
	}
	if !sources.DefaultServices() {
		t.Error("the default services are not taken for such")
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	units := []string{"stargazer-gateway", "stargazer-inference", "stargazer-agents", "stargazer-consolidation", "stargazer-web"}
	if d := cmp.Diff(units, Units(got)); d != "" {
		t.Errorf("Units (-want +got):\n%s", d)
	}
}

func TestLoadOrder(t *testing.T) {
	f := files{
		"/etc/sgfleet/config.yaml": "fleet: etc\nmode: observe\nop_life: 10s\nsplay: 1s\nredis: {url: 'redis://etc', username: etc}\n" +
			"services:\n  web: {checkout: /srv/a, unit: w}\n  agents: {}\n",
		"/home/u/.config/sgfleet/config.yaml": "op_life: 20s\nsplay: 3s\nservices:\n  web: {checkout: /srv/b}\n",
		"extra.yaml":                          "splay: 4s\nlock_ttl: 120\ngit: {pass_env: [A, B]}\n",
	}
	cfg, sources, err := Load(LoadOptions{
		Path: "extra.yaml", ReadFile: f.read, Hostname: "h1",
		Env: []string{
			"HOME=/home/u", "SGFLEET_LOCK_TTL=2m30s", "SGFLEET_GIT_PASS_ENV=C, D", "SGFLEET_CONFIG=not-read.yaml",
			"SGFLEET_REDIS_USERNAME=env", "SGFLEET_GIT_ALLOW_FILE=true", "SGFLEET_SOAK=1", "OTHER=x",
		},
		Overrides: []Override{{"redis.url", "redis://flag", "--redis"}, {"redis.username", "flag", "--user"}},
		OtherEnv:  []string{"SGFLEET_SOAK"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ key, value, source string }{
		{"fleet", "etc", "/etc/sgfleet/config.yaml:1"},
		{"mode", "observe", "/etc/sgfleet/config.yaml:2"},
		{"op_life", "20s", "/home/u/.config/sgfleet/config.yaml:1"},
		{"splay", "4s", "extra.yaml:1"},
		{"lock_ttl", "2m30s", "SGFLEET_LOCK_TTL"},
		{"git.pass_env", "[C, D]", "SGFLEET_GIT_PASS_ENV"},
		{"git.allow_file", "true", "SGFLEET_GIT_ALLOW_FILE"},
		{"redis.username", "flag", "--user"},
		{"redis.url", "redis://flag", "--redis"},
		{"services.web.checkout", "/srv/b", "/home/u/.config/sgfleet/config.yaml:4"},
		{"services.web.unit", "w", "/etc/sgfleet/config.yaml:7"},
		{"services.agents.tier", "agents", "default"},
		{"settle", "2s", "default"},
		{"tiers", "[gateway, inference, agents, consolidation, web]", "default"},
	} {
		found := false
		for _, s := range cfg.Settings(sources) {
			if s.Key == tt.key {
				found = true
				if s.Value != tt.value || s.Source != tt.source {
					t.Errorf("%s = %s from %s, want %s from %s", tt.key, s.Value, s.Source, tt.value, tt.source)
				}
			}
		}
		if !found {
			t.Errorf("no setting %s", tt.key)
		}
	}
	if d := cmp.Diff([]string{"agents", "web"}, cfg.ServiceNames()); d != "" {
		t.Errorf("services given replace the five defaults (-want +got):\n%s", d)
	}
}

func TestLoadWhichFiles(t *testing.T) {
	f := files{
		"/xdg/sgfleet/config.yaml": "fleet: xdg", "/c.yaml": "fleet: c", "/home/u/.config/sgfleet/config.yaml": "fleet: home",
	}
	for _, tt := range []struct {
		path, want string
		env        []string
	}{
		{"", "sg", nil},
		{"", "sg", []string{"XDG_CONFIG_HOME=xdg"}}, // relative: ignored
		{"", "home", []string{"HOME=/home/u"}},
		{"", "xdg", []string{"XDG_CONFIG_HOME=/xdg", "HOME=/home/u"}},
		{"", "c", []string{"SGFLEET_CONFIG=/c.yaml", "HOME=/home/u"}},
		{"/c.yaml", "c", []string{"HOME=/home/u"}},
		{"/xdg/sgfleet/config.yaml", "xdg", []string{"XDG_CONFIG_HOME=/xdg"}},
	} {
		cfg, _, err := Load(LoadOptions{Path: tt.path, Env: tt.env, ReadFile: f.read})
		if err != nil || cfg.Fleet != tt.want {
			t.Errorf("Load(%s, %v) = fleet %v, %v; want %s", tt.path, tt.env, cfg, err, tt.want)
		}
	}
}

func TestLoadOnly(t *testing.T) {
	f := files{SystemConfig: "fleet: sys", "/home/u/.config/sgfleet/config.yaml": "cooldown: 7m", "/c.yaml": "settle: 7s"}
	cfg, sources, err := Load(LoadOptions{Path: "/c.yaml", Only: true, Env: []string{"HOME=/home/u"}, ReadFile: f.read, Hostname: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cfg.Settings(sources) {
		if file, _, ok := strings.Cut(s.Source, ":"); ok && file != "/c.yaml" {
			t.Errorf("%s comes from %s", s.Key, s.Source)
		}
	}
	if _, _, err := Load(LoadOptions{Path: "/absent.yaml", Only: true, ReadFile: f.read, Hostname: "h1"}); err == nil {
		t.Error("a file that is absent was loaded")
	}
}

func TestLoadTiersWithoutServices(t *testing.T) {
	cfg, _, err := load(files{SystemConfig: "tiers: [{name: db}, {name: front, gateway: true, settle: 5s}]\n"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"stargazer-db", "stargazer-front"}, Units(cfg)); d != "" {
		t.Errorf("one service for each tier (-want +got):\n%s", d)
	}
	if !cfg.IsGateway("front") || cfg.TierSettle("front") != 5*time.Second {
		t.Errorf("tiers = %+v", cfg.Tiers)
	}
	cfg, sources, err := load(files{SystemConfig: "services: {}\n"})
	if err != nil || len(cfg.Services) != 0 || sources.DefaultServices() {
		t.Errorf("services: {} gives %v, %v; want none", cfg, err)
	}
}

func TestLoadErrorsGolden(t *testing.T) {
	for _, name := range []string{"keys", "values", "both", "tab"} {
		src, err := os.ReadFile("testdata/config/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		cfg, _, err := load(files{SystemConfig: string(src)})
		if err == nil || cfg != nil {
			t.Errorf("%s.yaml loads as %+v", name, cfg)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s.yaml: the error shows the password", name)
		}
		golden(t, "config/"+name+".golden", err.Error()+"\n")
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files files
		env   []string
		want  []string
	}{
		{"missing explicit file", nil, []string{"SGFLEET_CONFIG=/none.yaml"}, []string{"/none.yaml: cannot be read: file does not exist"}},
		{"denied", files{SystemConfig: "denied"}, nil, []string{SystemConfig + ": cannot be read: permission denied (it may hold a password"}},
		{"broken", files{SystemConfig: "broken"}, nil, []string{SystemConfig + ": cannot be read: input/output error"}},
		{
			"all files and variables at once",
			files{SystemConfig: "a: 1\n", "/c.yaml": "b: 2\n"},
			[]string{"SGFLEET_CONFIG=/c.yaml", "SGFLEET_REDIS_ULR=x", "SGFLEET_OP_LIFE=30", "SGFLEET_TIERS=web", "SGFLEET_GIT_ALLOW_FILE=yes"},
			[]string{
				SystemConfig + `:1:1: unknown key "a"`, `/c.yaml:1:1: unknown key "b"`,
				"SGFLEET_REDIS_ULR: sets nothing: no such variable (did you mean SGFLEET_REDIS_URL?)",
				`SGFLEET_OP_LIFE: op_life: "30" has no unit (did you mean 30s?)`,
				"SGFLEET_TIERS: tiers is a list that does not fit into a variable (give it in a file)",
				`SGFLEET_GIT_ALLOW_FILE: git.allow_file: want true or false, not "yes"`,
			},
		},
		{"a variable of another program", nil, []string{"SGFLEET_WHATEVER_THIS_IS=x"}, []string{"SGFLEET_WHATEVER_THIS_IS: sets nothing: no such variable"}},
		{"value from a variable", nil, []string{"SGFLEET_LOCK_TTL=60"}, []string{"SGFLEET_LOCK_TTL: lock_ttl: 1m ends while a pull may still run"}},
		{
			"a value that the environment makes wrong",
			files{SystemConfig: "lock_ttl: 90s\n"},
			[]string{"SGFLEET_PULL_TIMEOUT=80"},
			[]string{SystemConfig + ":1:11: lock_ttl: 1m30s ends while a pull may still run: pull_timeout 1m20s"},
		},
		{"list item from a variable", files{SystemConfig: "git:\n  pass_env: [A, 'B C']\n"}, []string{"SGFLEET_GIT_PASS_ENV=A,X Y"}, []string{`SGFLEET_GIT_PASS_ENV: git.pass_env[1]: "X Y" is not the name`}},
		{"two documents", files{SystemConfig: "fleet: a\n---\nfleet: b\n"}, nil, []string{SystemConfig + ":3:1: a second document"}},
		{"a list", files{SystemConfig: "- a\n"}, nil, []string{":1:1: want keys and values"}},
		{"a text", files{SystemConfig: "hello\n"}, nil, []string{`not "hello"`}},
		{"not utf-8", files{SystemConfig: "fleet: \xff\n"}, nil, []string{SystemConfig + ": not valid UTF-8"}},
		{"too large", files{SystemConfig: strings.Repeat("#", maxFileBytes+1)}, nil, []string{"1048577 bytes, at most 1048576 are read"}},
		{
			"alias bomb",
			files{SystemConfig: bomb()},
			nil,
			[]string{"once aliases are followed"},
		},
		{"endless alias", files{SystemConfig: "services: &s {web: *s}\n"}, nil, []string{`unknown key "web" in services.web`}},
		{"no hostname", nil, []string{"SGFLEET_HOST=a b"}, []string{`SGFLEET_HOST: host: "a b" is not a host name`}},
		{"int", files{SystemConfig: "services: {web: {instances: 1.5}}\n"}, nil, []string{`services.web.instances: want a whole number, not "1.5"`}},
		{"huge int", files{SystemConfig: "services: {web: {instances: 99999999999999999999}}\n"}, nil, []string{`want a whole number, not "99999999999999999999"`}},
		{"secret in a list", files{SystemConfig: "redis:\n  password:\n  - s3cret\n"}, nil, []string{"redis.password: want text, not a list"}},
		{"secret on a line with an error", files{SystemConfig: "redis:\n  passwrod: s3cret\n"}, nil, []string{"passwrod: ******"}},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			cfg, _, err := load(tt.files, tt.env...)
			if err == nil {
				t.Fatalf("loads as %+v", cfg)
			}
			var merr *multierror.Error
			if !errors.As(err, &merr) || len(merr.Errors) != len(tt.want) && tt.name != "alias bomb" && tt.name != "endless alias" {
				t.Errorf("want %d errors, got\n%v", len(tt.want), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got\n%v\nwant one with\n%s", err, want)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows a secret:\n%v", err)
			}
		})
	}
}

// bomb is a file of 50 kB that asks for a million values.
func bomb() string {
	var b strings.Builder
	fmt.Fprintf(&b, "git: {pass_env: &l [%s]}\nservices:\n", strings.Repeat("X,", 1000))
	for i := range 1000 {
		fmt.Fprintf(&b, "  s%d: {tier: web, hosts: *l}\n", i)
	}
	return b.String()
}

func TestLoadMergesAnchors(t *testing.T) {
	cfg, _, err := load(files{SystemConfig: `
git: {pass_env: &names [A, B]}
services:
  web: &web {checkout: /srv/x, hosts: *names}
  agents: *web
`})
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Services["agents"]; got.Checkout != "/srv/x" || len(got.Hosts) != 2 || got.Tier != "agents" {
		t.Errorf("agents = %+v", got)
	}
}

func TestPasswordSources(t *testing.T) {
	f := files{"/run/creds/redis-password": "s3cret\n"}
	cfg, sources, err := load(f, "CREDENTIALS_DIRECTORY=/run/creds")
	if err != nil || cfg.Redis.PasswordFile != "/run/creds/redis-password" || sources.Of("redis.password_file") != "CREDENTIALS_DIRECTORY" {
		t.Errorf("password_file = %q from %s, %v", cfg.Redis.PasswordFile, sources.Of("redis.password_file"), err)
	}
	cfg, _, err = load(f, "CREDENTIALS_DIRECTORY=/run/other")
	if err != nil || cfg.Redis.PasswordFile != "" {
		t.Errorf("password_file = %q, %v; there is no credential", cfg.Redis.PasswordFile, err)
	}
	cfg, sources, err = load(f, "CREDENTIALS_DIRECTORY=/run/creds", "SGFLEET_REDIS_PASSWORD=s3cret", "SGFLEET_REDIS_URL=redis://u:s3cret@h:1/2")
	if err != nil || cfg.Redis.PasswordFile != "" || cfg.Redis.Password != "s3cret" {
		t.Errorf("redis = %+v, %v", cfg.Redis, err)
	}
	for _, s := range cfg.Settings(sources) {
		if strings.Contains(s.Value, "s3cret") {
			t.Errorf("%s shows the password: %s", s.Key, s.Value)
		}
		if want := "redis://u:********@h:1/2"; s.Key == "redis.url" && s.Value != want {
			t.Errorf("redis.url is shown as %s, want %s", s.Value, want)
		}
	}
}

func TestMaskSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"  password: s3cret": "  password: ******", "password_file: /x": "password_file: /x", "url: redis://h:6379/0": "url: redis://h:6379/0",
		"url: redis://:pä@h:1": "url: redis://:**@h:1", "{url: 'redis://u:p@q@h', x: 1}": "{url: 'redis://u:***@h', x: 1}", "": "",
		`{"password": "x"}`: `{"password": ****`, "a: b": "a: b", "pasword: x": "pasword: *", "git: {pass_env: [A], x: 1}": "git: {pass_env: [A], x: 1}",
	} {
		if got := maskSecrets(in); got != want {
			t.Errorf("maskSecrets(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	for _, tt := range []struct {
		in                string
		duration, seconds string // as written back, or the error
	}{
		{"30s", "30s", "30s"},
		{"2m", "2m", "2m"},
		{"90s", "1m30s", "1m30s"},
		{"1h", "1h", "1h"},
		{"500ms", "500ms", "500ms"},
		{"0", "0s", "0s"},
		{"30", `"30" has no unit (did you mean 30s?)`, "30s"},
		{"1.5", `"1.5" has no unit`, "1.5s"},
		{"90 s", "is not a duration such as", "is not a duration such as"},
		{"", "is not a duration", "is not a duration"},
		{"-3s", "cannot be negative", "cannot be negative"},
		{"-3", "has no unit", "cannot be negative"},
		{"1e999", "is not a duration", "is not a duration"},
		{"99999999999", "has no unit", "is not a number of seconds"},
		{"NaN", "has no unit", "is not a number of seconds"},
		{"1d", "is not a duration", "is not a duration"},
	} {
		var d Duration
		var s Seconds
		check := func(v fmt.Stringer, err error, want string) {
			t.Helper()
			if err != nil {
				if got := err.Error(); !strings.Contains(got, want) {
					t.Errorf("%q: %s, want %s", tt.in, got, want)
				}
			} else if got := v.String(); got != want {
				t.Errorf("%q: %s, want %s", tt.in, got, want)
			}
		}
		check(&d, d.UnmarshalText([]byte(tt.in)), tt.duration)
		check(&s, s.UnmarshalText([]byte(tt.in)), tt.seconds)
	}
}

// Every scalar outside the free mappings can be set by one variable of its own.
func TestEnvNames(t *testing.T) {
	seen := map[string]string{"SGFLEET_CONFIG": "reserved"}
	for _, l := range leaves(reflect.ValueOf(Default()).Elem(), "") {
		if l.inMap {
			continue
		}
		if other := seen[envName(l.path)]; other != "" {
			t.Errorf("%s sets %s and %s", envName(l.path), other, l.path)
		}
		seen[envName(l.path)] = l.path
	}
	if seen["SGFLEET_REDIS_URL"] != "redis.url" || seen["SGFLEET_CONTROL_REPLY_TIMEOUT"] != "control_reply_timeout" {
		t.Errorf("variables = %v", seen)
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"keys", "values", "both", "tab"} {
		src, err := os.ReadFile("testdata/config/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	for _, s := range []string{"", "a", "{", "? a\n: b", "&a [*a]", "services: &s {web: *s}", "tiers: [~]", "tiers: [", "!!map {a: b}", "--- |\n", "a: >\n", "services: {web: {hosts: [*x, &x y]}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		cfg, sources, err := load(files{SystemConfig: src})
		if err != nil {
			var merr *multierror.Error
			if !errors.As(err, &merr) || len(merr.Errors) == 0 || err.Error() == "" {
				t.Errorf("error without content: %#v", err)
			}
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("what was loaded is not valid: %v", err)
		}
		cfg.Settings(sources)
		Units(cfg)
		cfg.LocalServices("h1")
	})
}
