package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// SystemConfig is the first config file that is read.
const SystemConfig = "/etc/sgfleet/config.yaml"

// LoadOptions says where a config comes from. Later ones win over earlier ones:
// SystemConfig, the user's own file ($XDG_CONFIG_HOME/sgfleet/config.yaml, by
// default below $HOME/.config), Path, Env, Overrides. The first two may be
// absent.
//
// Across files a scalar is replaced, a mapping is merged key by key, a list is
// replaced as a whole. The default services and tiers are not merged with: the
// first file that gives services at all replaces the five defaults, and without
// services there is one for each tier.
type LoadOptions struct {
	Path      string     // of --config; "" means $SGFLEET_CONFIG. Must exist.
	Only      bool       // no file is read but Path
	Env       []string   // KEY=VALUE, as os.Environ gives it
	Overrides []Override // of flags
	Hostname  string     // the default of host

	// OtherEnv lists SGFLEET_ variables that set no value of the config and are
	// no mistake.
	OtherEnv []string

	// ReadFile reads a file; nil means os.ReadFile.
	ReadFile func(name string) ([]byte, error)
}

// Override is a value given by a flag.
type Override struct {
	Key   string // dotted: redis.url
	Value string
	Flag  string // as shown in a source or an error: --redis
}

// Load reads, merges and validates a config. Its error lists everything that is
// wrong, each with its place as a [Diagnostic]; the config is nil then, and
// Sources are what could be read.
func Load(o LoadOptions) (*Config, Sources, error) {
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	l := &loader{
		o: o, cfg: Default(), env: map[string]string{},
		places: map[string]place{}, sources: Sources{},
	}
	for _, kv := range o.Env {
		k, v, _ := strings.Cut(kv, "=")
		l.env[k] = v
	}
	for _, lf := range leaves(reflect.ValueOf(l.cfg).Elem(), "") {
		if !lf.inMap {
			l.leaves = append(l.leaves, lf.path)
		}
	}
	for _, f := range l.candidates() {
		l.readFile(f.name, f.must)
	}
	l.readEnv()
	for _, ov := range o.Overrides {
		l.setText(ov.Key, ov.Value, ov.Flag)
	}
	l.defaults()
	l.validate()
	if err := joinDiagnostics(l.problems, l.files); err != nil {
		return nil, l.sources, err
	}
	return l.cfg, l.sources, nil
}

type loader struct {
	o        LoadOptions
	cfg      *Config
	env      map[string]string
	leaves   []string
	places   map[string]place // dotted key → where its value in force is given
	sources  Sources
	files    []string // in the order read, then variables and flags
	problems []*Diagnostic
	bad      []string // dotted keys whose value in force is not the one that was meant

	servicesGiven bool
}

type candidate struct {
	name string
	must bool
}

func (l *loader) candidates() []candidate {
	if l.o.Only {
		return []candidate{{l.o.Path, true}}
	}
	files := []candidate{{SystemConfig, false}}
	dir := l.env["XDG_CONFIG_HOME"]
	if dir == "" && l.env["HOME"] != "" {
		dir = filepath.Join(l.env["HOME"], ".config")
	}
	if filepath.IsAbs(dir) { // the XDG specification: a relative one is ignored
		files = append(files, candidate{filepath.Join(dir, "sgfleet", "config.yaml"), false})
	}
	explicit := l.o.Path
	if explicit == "" {
		explicit = l.env["SGFLEET_CONFIG"]
	}
	if explicit != "" {
		files = slices.DeleteFunc(files, func(c candidate) bool { return c.name == filepath.Clean(explicit) })
		files = append(files, candidate{explicit, true})
	}
	return files
}

func (l *loader) problem(file, hint, format string, args ...any) {
	if !slices.Contains(l.files, file) {
		l.files = append(l.files, file)
	}
	l.problems = append(l.problems, &Diagnostic{File: file, Hint: hint, Message: fmt.Sprintf(format, args...)})
}

// spoil is [decoder.spoil] for what stands in no file.
func (l *loader) spoil(path string) { l.bad = append(l.bad, path) }

func (l *loader) readFile(name string, must bool) {
	src, err := l.o.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		return
	case errors.Is(err, fs.ErrPermission):
		l.problem(name, "it may hold a password and so be closed to others; run as a user who may read it", "cannot be read: permission denied")
		l.spoil("")
		return
	case err != nil:
		l.spoil("")
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // the name stands before it already
		}
		l.problem(name, "", "cannot be read: %v", err)
		return
	}
	l.files = append(l.files, name)
	d := decodeYAML(name, src, l.cfg, l.leaves, func(keys []string) {
		if slices.Contains(keys, "services") && !l.servicesGiven {
			l.servicesGiven = true
			l.cfg.Services = map[string]Service{}
		}
	})
	l.problems = append(l.problems, d.problems...)
	l.bad = append(l.bad, d.bad...)
	for path, p := range d.set {
		l.places[path] = p
		l.sources[path] = fmt.Sprintf("%s:%d", name, p.line)
	}
}

func (l *loader) readEnv() {
	keys := map[string]string{}
	var names []string
	for _, path := range l.leaves {
		keys[envName(path)] = path
		names = append(names, envName(path))
	}
	known := append([]string{"SGFLEET_CONFIG"}, l.o.OtherEnv...)
	for name, value := range sorted(l.env) {
		if !strings.HasPrefix(name, EnvPrefix) || slices.Contains(known, name) {
			continue
		}
		if path, ok := keys[name]; ok {
			l.setText(path, value, name)
			continue
		}
		hint := ""
		if n := Nearest(name, append(names, known...)); n != "" {
			hint = "did you mean " + n + "?"
			l.spoil(keys[n]) // SGFLEET_CONFIG sets no key but all of them: ""
		}
		l.problem(name, hint, "sets nothing: no such variable")
	}
}

// setText sets one value from a variable or a flag.
func (l *loader) setText(path, value, from string) {
	for _, lf := range leaves(reflect.ValueOf(l.cfg).Elem(), "") {
		if lf.path != path || lf.inMap {
			continue
		}
		if !lf.scalar {
			l.problem(from, "give it in a file", "%s is a list that does not fit into a variable", path)
			l.spoil(path)
			return
		}
		if err := setText(lf.value, value); err != nil {
			l.problem(from, "", "%s: %v", path, err)
			l.spoil(path)
			return
		}
		if !slices.Contains(l.files, from) {
			l.files = append(l.files, from)
		}
		for old := range l.places {
			if strings.HasPrefix(old, path+"[") {
				delete(l.places, old) // items of a list that is replaced
			}
		}
		l.places[path] = place{file: from}
		l.sources[path] = from
		return
	}
	panic("fleet: no setting is called " + path)
}

// defaults fills in what depends on other values or on the machine.
func (l *loader) defaults() {
	c := l.cfg
	if !l.servicesGiven {
		c.Services = map[string]Service{}
		for _, t := range c.Tiers {
			c.Services[t.Name] = Service{}
		}
	}
	for name, s := range c.Services {
		if s.Tier == "" {
			s.Tier = c.TierOf(name)
		}
		if s.ControlledBy == "" {
			s.ControlledBy = ByHost
		}
		c.Services[name] = s
	}
	if c.Host == "" {
		c.Host = l.o.Hostname
		l.sources["host"] = "hostname"
	}
	r := &c.Redis
	if dir := l.env["CREDENTIALS_DIRECTORY"]; dir != "" && r.Password == "" && r.PasswordFile == "" {
		file := filepath.Join(dir, "redis-password")
		if _, err := l.o.ReadFile(file); err == nil {
			r.PasswordFile = file
			l.sources["redis.password_file"] = "CREDENTIALS_DIRECTORY"
		}
	}
}

// validate adds what Validate finds, each with the place of its key. What
// follows from a value that could not be taken is left out: mending that value
// may mend it, too.
func (l *loader) validate() {
	err := l.cfg.Validate()
	var merr *multierror.Error
	if !errors.As(err, &merr) {
		return
	}
	for _, err := range merr.Errors {
		var fe *FieldError
		if !errors.As(err, &fe) {
			l.problem("config", "", "%v", err)
			continue
		}
		if l.spoiled(fe.Key) || slices.ContainsFunc(fe.from, l.spoiled) {
			continue
		}
		p, ok := l.find(fe.Key)
		if !ok {
			p = place{file: "config"}
		}
		l.problems = append(l.problems, p.diagnostic(fe.Hint, fe.Key+": "+fe.Message))
	}
}

// spoiled reports whether a dotted key, or what it lies in, could not be taken
// as it was meant.
func (l *loader) spoiled(key string) bool {
	return slices.ContainsFunc(l.bad, func(bad string) bool {
		return under(key, bad) || !l.servicesGiven && under(key, "services") && under(bad, "tiers")
	})
}

// under reports whether a dotted key is outer or lies below it.
func under(key, outer string) bool {
	rest, ok := strings.CutPrefix(key, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

// find returns the place of a dotted key, or of the nearest key around it.
func (l *loader) find(key string) (place, bool) {
	for key != "" {
		if p, ok := l.places[key]; ok {
			return p, true
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return place{}, false
}
