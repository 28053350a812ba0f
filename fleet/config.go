package fleet

import (
	"time"
)

// Config is everything a host or an operator may set. One struct serves the
// daemon, the command and the simulator (a scenario's config: block decodes
// into it, just as strictly). [Default] gives every value that has one.
//
// Durations need a unit ("30s"); the original system's own keys, marked
// (seed), also take bare seconds.
type Config struct {
	Fleet     string      `yaml:"fleet" json:"fleet"`           // name of the fleet; part of a signed op. Default "sg".
	KeyPrefix string      `yaml:"key_prefix" json:"key_prefix"` // default "sg:"
	Host      string      `yaml:"host" json:"host"`             // default: the operating system's hostname
	Mode      string      `yaml:"mode" json:"mode"`             // act or observe; default act
	Redis     RedisConfig `yaml:"redis" json:"redis"`

	ControlUnitPrefix   string            `yaml:"control_unit_prefix" json:"control_unit_prefix"`     // (seed) default "stargazer-"
	ControlUnitNames    map[string]string `yaml:"control_unit_names" json:"control_unit_names"`       // (seed) service → unit
	ControlReplyTimeout Seconds           `yaml:"control_reply_timeout" json:"control_reply_timeout"` // (seed) wait for "accepted". Default 15 s.
	ControlProxyUnit    string            `yaml:"control_proxy_unit" json:"control_proxy_unit"`       // local unit of !proxy_restart; unset is an error there
	ControlBotUnit      string            `yaml:"control_bot_unit" json:"control_bot_unit"`           // local unit of !bot_restart; unset is an error there

	Tiers     []Tier              `yaml:"tiers" json:"tiers"`         // in order; default the original's five
	Services  map[string]Service  `yaml:"services" json:"services"`   // default one service per tier, of the tier's name
	Checkouts map[string]Checkout `yaml:"checkouts" json:"checkouts"` // by absolute path
	SelfUnit  string              `yaml:"self_unit" json:"self_unit"` // the daemon's own unit. Default "sgfleet.service".

	HeartbeatInterval Duration `yaml:"heartbeat_interval" json:"heartbeat_interval"` // default 10 s
	OpLife            Duration `yaml:"op_life" json:"op_life"`                       // default 30 s, at most 120 s
	GatewayGrace      Duration `yaml:"gateway_grace" json:"gateway_grace"`           // added to the gateway's deadline. Default 30 s.
	Cooldown          Duration `yaml:"cooldown" json:"cooldown"`                     // per op and unit; 0 turns it off. Default 30 s.
	Settle            Duration `yaml:"settle" json:"settle"`                         // how long a restarted unit must stay up. Default 2 s.
	Splay             Duration `yaml:"splay" json:"splay"`                           // instances spread their start over this. Default 2 s.
	PullTimeout       Seconds  `yaml:"pull_timeout" json:"pull_timeout"`             // (seed) default 60 s
	LockTTL           Seconds  `yaml:"lock_ttl" json:"lock_ttl"`                     // (seed) default 90 s

	Signing SigningConfig `yaml:"signing" json:"signing"`
	Legacy  LegacyConfig  `yaml:"legacy" json:"legacy"`
	Git     GitConfig     `yaml:"git" json:"git"`
	Metrics MetricsConfig `yaml:"metrics" json:"metrics"`
}

// RedisConfig says which Redis the fleet talks over.
type RedisConfig struct {
	URL          string   `yaml:"url" json:"url"`                     // redis://, rediss:// or unix://. Default redis://127.0.0.1:6379/0.
	Username     string   `yaml:"username" json:"username"`           // ACL user
	Password     string   `yaml:"password" json:"-"`                  // better: password_file
	PasswordFile string   `yaml:"password_file" json:"password_file"` // default $CREDENTIALS_DIRECTORY/redis-password when that exists
	Sentinels    []string `yaml:"sentinels" json:"sentinels"`         // host:port; then master_name is needed and url gives db and TLS
	MasterName   string   `yaml:"master_name" json:"master_name"`
	CAFile       string   `yaml:"ca_file" json:"ca_file"` // for rediss://
}

// Tier is one rung of the restart order.
type Tier struct {
	Name string `yaml:"name" json:"name"`
	// Gateway marks a tier that restarts after all others and waits for the
	// publisher's release. The tier named "gateway" always is one.
	Gateway bool `yaml:"gateway" json:"gateway"`
	// DoneTimeout overrides how long a restart in this tier may take; zero
	// means the unit's own stop + start timeout + 5 s.
	DoneTimeout Duration `yaml:"done_timeout" json:"done_timeout"`
	// Settle overrides Config.Settle; zero means that.
	Settle Duration `yaml:"settle" json:"settle"`
}

// Service is one service as the hosts run it.
type Service struct {
	Tier         string   `yaml:"tier" json:"tier"`                   // default: the service's own name, when that is a tier
	Unit         string   `yaml:"unit" json:"unit"`                   // default control_unit_prefix + name; with instances > 1 a template, "name@.service"
	Checkout     string   `yaml:"checkout" json:"checkout"`           // absolute path of the git checkout it runs from; empty: nothing to pull
	ControlledBy string   `yaml:"controlled_by" json:"controlled_by"` // host (default), self or legacy
	Hosts        []string `yaml:"hosts" json:"hosts"`                 // globs of the hosts that run it; empty: every host that has this config
	Instances    int      `yaml:"instances" json:"instances"`         // copies on one host; 0 and 1: one, without #n
}

// Checkout is a git checkout that services share.
type Checkout struct {
	Remote    string   `yaml:"remote" json:"remote"`         // default "origin"
	Branch    string   `yaml:"branch" json:"branch"`         // default: the checked-out branch
	AfterPull []string `yaml:"after_pull" json:"after_pull"` // argument vector run once per host and pull, never a shell
}

// SigningConfig says which ops a daemon trusts.
type SigningConfig struct {
	Mode           string `yaml:"mode" json:"mode"` // off (default), permissive or enforce
	AllowedSigners string `yaml:"allowed_signers" json:"allowed_signers"`
}

// LegacyConfig describes services of the original system on the same channel.
type LegacyConfig struct {
	Instances  []string `yaml:"instances" json:"instances"`     // service@host, expected to answer in text
	ReplyField string   `yaml:"reply_field" json:"reply_field"` // name of the op's reply key field. Default "reply_key".
	AckPattern string   `yaml:"ack_pattern" json:"ack_pattern"` // regexp with groups service and host; attributes a text ack
}

// GitConfig adds to the environment allowlist that git runs in.
type GitConfig struct {
	PassEnv    []string `yaml:"pass_env" json:"pass_env"`       // names such as HTTPS_PROXY, SSH_AUTH_SOCK, SSL_CERT_FILE
	SSHKey     string   `yaml:"ssh_key" json:"ssh_key"`         // deploy key file
	KnownHosts string   `yaml:"known_hosts" json:"known_hosts"` // file
	AllowFile  bool     `yaml:"allow_file" json:"allow_file"`   // permit file:// remotes (tests, local mirrors)
}

// MetricsConfig says where the daemon serves Prometheus metrics.
type MetricsConfig struct {
	Listen string `yaml:"listen" json:"listen"` // host:port; empty: off
}

// Default returns a Config with every default filled in and no file read.
func Default() *Config {
	c := &Config{
		Fleet: "sg", KeyPrefix: "sg:", Mode: ModeAct,
		Redis:             RedisConfig{URL: "redis://127.0.0.1:6379/0"},
		ControlUnitPrefix: DefaultUnitPrefix, ControlReplyTimeout: Seconds(15 * time.Second),
		SelfUnit:          "sgfleet.service",
		HeartbeatInterval: Duration(10 * time.Second), OpLife: Duration(30 * time.Second),
		GatewayGrace: Duration(30 * time.Second), Cooldown: Duration(30 * time.Second),
		Settle: Duration(2 * time.Second), Splay: Duration(2 * time.Second),
		PullTimeout: Seconds(60 * time.Second), LockTTL: Seconds(90 * time.Second),
		Signing: SigningConfig{Mode: "off"},
		Legacy:  LegacyConfig{ReplyField: "reply_key"},
	}
	for _, t := range ServiceTiers {
		c.Tiers = append(c.Tiers, Tier{Name: t})
	}
	c.Services = map[string]Service{}
	for _, t := range ServiceTiers {
		c.Services[t] = Service{Tier: t}
	}
	return c
}

// The modes of a daemon.
const (
	ModeAct     = "act"     // do what an op says
	ModeObserve = "observe" // ack "would restart" and touch nothing
)

// Keys returns the names of what this fleet keeps in Redis.
func (c *Config) Keys() Keys { return Keys{Prefix: c.KeyPrefix} }

// TierNames returns the tiers in order.
func (c *Config) TierNames() []string {
	names := make([]string, len(c.Tiers))
	for i, t := range c.Tiers {
		names[i] = t.Name
	}
	return names
}
