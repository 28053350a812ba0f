package fleet

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every key can be set in a file, is noted with its line, and is valid with a
// value other than the default.
func TestEveryKey(t *testing.T) {
	src, err := os.ReadFile("testdata/config/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, sources, err := load(files{SystemConfig: string(src)})
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	for _, s := range Default().Settings(nil) {
		defaults[s.Key] = s.Value
	}
	for _, s := range cfg.Settings(sources) {
		inMap := strings.HasPrefix(s.Key, "services.") || strings.HasPrefix(s.Key, "checkouts[")
		if !inMap && (!strings.HasPrefix(s.Source, SystemConfig+":") || defaults[s.Key] == s.Value) {
			t.Errorf("%s = %s from %s", s.Key, s.Value, s.Source)
		}
		if strings.Contains(s.Value, "s3cret") {
			t.Errorf("%s shows the password", s.Key)
		}
	}
	if got, want := sources.Of("services.llm.hosts"), SystemConfig+":32"; got != want {
		t.Errorf("services.llm.hosts comes from %s, want %s", got, want)
	}
	llm := Service{
		Tier: "inference", Unit: "llm@.service", Checkout: "/srv/llm", ControlledBy: BySelf, Hosts: []string{"gpu-*", "h1"}, Instances: 2,
	}
	if d := cmp.Diff(llm, cfg.Services["llm"]); d != "" {
		t.Errorf("services.llm (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"llm@1.service", "llm@2.service", "nginx.service", "app-door", "app-door"}, Units(cfg)); d != "" {
		t.Errorf("Units (-want +got):\n%s", d)
	}
	for _, s := range cfg.Settings(sources) {
		if want := "[inference (done_timeout 5m, settle 10s), web, front (gateway)]"; s.Key == "tiers" && s.Value != want {
			t.Errorf("tiers = %s, want %s", s.Value, want)
		}
	}
}

// Each change makes the defaults invalid in exactly one way.
func TestValidateOne(t *testing.T) {
	for _, tt := range []struct {
		change func(c *Config)
		want   string // "" when it stays valid
	}{
		{func(c *Config) { c.Redis.URL = "unix:///run/redis.sock" }, ""},
		{func(c *Config) { c.Redis.URL = "unix:redis.sock" }, "redis.url: a socket's path is absolute"},
		{func(c *Config) { c.Redis.URL = "http://h" }, `redis.url: "http" is not a scheme`},
		{func(c *Config) { c.Redis.URL = "redis://h/x" }, `redis.url: "x" is not the number of a database`},
		{func(c *Config) { c.Redis.URL = "redis:///0" }, "redis.url: names no host"},
		{func(c *Config) { c.Redis.URL = "redis://:s3cret@a b" }, "redis.url: cannot be read as a URL"},
		{func(c *Config) { c.Redis.URL = "redis://h?addr=b:1" }, "redis.url: Redis Cluster is not supported"},
		{func(c *Config) { c.Redis.MasterName = "m" }, "redis.master_name: is given without sentinels"},
		{func(c *Config) { c.Redis.MasterName, c.Redis.Sentinels = "m", []string{"s:1"} }, ""},
		{func(c *Config) { c.Redis.CAFile = "/ca" }, "redis.ca_file: is given, but redis.url has no TLS"},
		{func(c *Config) { c.ControlUnitPrefix = "" }, ""},
		{func(c *Config) { c.ControlUnitPrefix = "a/b" }, `control_unit_prefix: "a/b" is not the name of a unit`},
		{func(c *Config) { c.ControlUnitNames = map[string]string{"web": "apache@.service"} }, "services.web.unit: apache@.service is a template"},
		{func(c *Config) { c.ControlUnitNames = map[string]string{"web": "stargazer-agents"} }, "services.web: stargazer-agents.service is also the unit of service agents"},
		{func(c *Config) { c.SelfUnit = "" }, `self_unit: "" is not the name of a unit`},
		{func(c *Config) { c.Tiers = nil; c.Services = nil }, "tiers: there is none"},
		{func(c *Config) { c.Services["web"] = Service{Instances: -1} }, "services.web.instances: -1 copies"},
		{func(c *Config) { c.Services["web"] = Service{Instances: 3} }, ""},
		{func(c *Config) { c.Services["web"] = Service{Checkout: "/"} }, "the root directory is no checkout"},
		{func(c *Config) { c.Services["web"] = Service{Checkout: "/a\nb"} }, "has control characters in it"},
		{func(c *Config) { c.Services["a/b"] = Service{Tier: "web"} }, `services["a/b"]: "a/b" is not a name`},
		{func(c *Config) { c.Services["host"] = Service{Tier: "web"} }, `"host" has a meaning of its own`},
		{func(c *Config) { c.Services["all"] = Service{Tier: "web"} }, `"all" has a meaning of its own`},
		{func(c *Config) { c.OpLife = Duration(MaxOpLife) }, ""},
		{func(c *Config) { c.OpLife = Duration(MaxOpLife + 1) }, "op_life: "},
		{func(c *Config) { c.Cooldown, c.Settle, c.Splay, c.GatewayGrace = 0, 0, 0, 0 }, ""},
		{func(c *Config) { c.Cooldown = -1 }, "cooldown: "},
		{func(c *Config) { c.HeartbeatInterval = 0 }, "heartbeat_interval: 0s is not within 100ms and 10m"},
		{func(c *Config) { c.LockTTL = Seconds(85 * time.Second) }, ""},
		{func(c *Config) { c.LockTTL = Seconds(85*time.Second - 1) }, "lock_ttl: "},
		{func(c *Config) { c.LockTTL = Seconds(25 * time.Hour) }, "lock_ttl: 25h is longer than a day"},
		{func(c *Config) { c.Signing.Mode = "permissive" }, "signing.allowed_signers: signing.mode permissive needs"},
		{func(c *Config) { c.Legacy.ReplyField = "Target" }, "legacy.reply_field: \"Target\" is a field of every op"},
		{func(c *Config) { c.Legacy.ReplyField = "" }, "legacy.reply_field: \"\" is not a field name"},
		{func(c *Config) { c.Legacy.AckPattern = `(?P<service>a)` }, "legacy.ack_pattern: has no group (?P<host>…)"},
		{func(c *Config) { c.Git.PassEnv = []string{"LD_PRELOAD"} }, "git.pass_env[0]: LD_PRELOAD would let"},
		{func(c *Config) { c.Metrics.Listen = ":9100" }, ""},
		{func(c *Config) { c.Metrics.Listen = "h:99999" }, `metrics.listen: "h:99999" is not HOST:PORT`},
	} {
		c := Default()
		tt.change(c)
		err := c.Validate()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("want it to be valid: %v", err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("got %v\nwant just %s", err, tt.want)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestHostsMeet(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "h1", true},
		{"h1", "h1", true},
		{"h1", "h2", false},
		{"h*", "h2", true},
		{"h2", "h*", true},
		{"h*", "g2", false},
		{"gpu-*", "web-*", false},
		{"g*", "gpu-*", true},
		{"*", "web-*", true},
		{"a b", "c b", true},
		{"a b", "c d", false},
	} {
		if got := hostsMeet(strings.Fields(tt.a), strings.Fields(tt.b)); got != tt.want {
			t.Errorf("hostsMeet(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestValidBranch(t *testing.T) {
	for name, want := range map[string]bool{
		"main": true, "release/1.x": true, "-f": false, "a..b": false, "a b": false, "a:b": false, "x.lock": false, "a/": false, "a//b": false, "@{u}": false,
	} {
		if got := validBranch(name); got != want {
			t.Errorf("validBranch(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestDiagnostic(t *testing.T) {
	for _, tt := range []struct {
		d    Diagnostic
		want string
	}{
		{Diagnostic{Message: "bad"}, "bad"},
		{Diagnostic{File: "f", Message: "bad", Hint: "mend it"}, "f: bad (mend it)"},
		{Diagnostic{File: "f", Line: 2, Column: 3, Width: 2, Source: "äbcd", Message: "bad"}, "f:2:3: bad\n    2 | äbcd\n      |   ^^"},
		{Diagnostic{File: "f", Line: 2, Column: 2, Width: 99, Source: "\tbc", Message: "bad"}, "f:2:2: bad\n    2 | \tbc\n      | \t^^"},
		{Diagnostic{File: "f", Line: 2, Column: 99, Width: 0, Source: "a\x1bb", Message: "bad"}, "f:2:99: bad\n    2 | a�b\n      |    ^"},
	} {
		if got := tt.d.Error(); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// A Go field without a yaml tag could not be set by its documented name.
func TestConfigTags(t *testing.T) {
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Slice, reflect.Map:
			walk(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				if y, j := fieldName(f), f.Tag.Get("json"); y == "" || y != j && j != "-" {
					t.Errorf("%s.%s: yaml %q, json %q", typ, f.Name, y, j)
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}
