// Package ansible checks what Ansible itself does not: that the roles' defaults,
// argument specs and READMEs say the same, and that the ACL users can do what
// they must and nothing else.
package ansible

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

var update = flag.Bool("update", false, "write the variable tables of the roles' READMEs anew")

type option struct {
	Type        string   `yaml:"type"`
	Default     any      `yaml:"default"`
	Choices     []string `yaml:"choices"`
	Elements    string   `yaml:"elements"`
	Required    bool     `yaml:"required"`
	Description string   `yaml:"description"`
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func options(t *testing.T, role string) map[string]option {
	t.Helper()
	var specs struct {
		ArgumentSpecs struct {
			Main struct {
				Options map[string]option `yaml:"options"`
			} `yaml:"main"`
		} `yaml:"argument_specs"`
	}
	decode(t, filepath.Join("roles", role, "meta/argument_specs.yml"), &specs)
	return specs.ArgumentSpecs.Main.Options
}

func TestArgumentSpecsAreTheDefaults(t *testing.T) {
	for _, role := range []string{"sgfleet", "sgfleet_redis"} {
		var defaults map[string]any
		decode(t, filepath.Join("roles", role, "defaults/main.yml"), &defaults)
		specs := options(t, role)
		for name, o := range specs {
			if got, ok := defaults[name]; !ok || !reflect.DeepEqual(fmt.Sprint(got), fmt.Sprint(o.Default)) {
				t.Errorf("%s: default of %s is %v, its spec says %v", role, name, got, o.Default)
			}
		}
		for name := range defaults {
			if _, ok := specs[name]; !ok {
				t.Errorf("%s: %s has a default and no spec", role, name)
			}
		}
	}
}

// A role that runs twice in a play must not take what it registered itself for
// a mistyped variable.
func TestRegisteredVariablesAreKnown(t *testing.T) {
	var vars struct {
		Registered []string `yaml:"sgfleet_registered"`
	}
	decode(t, "roles/sgfleet/vars/main.yml", &vars)
	var found []string
	for _, role := range []string{"sgfleet", "sgfleet_redis"} {
		files, err := filepath.Glob(filepath.Join("roles", role, "tasks/*.yml"))
		if err != nil || len(files) == 0 {
			t.Fatal(role, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`register: (\S+)|set_fact:\n +(\S+):`).FindAllStringSubmatch(string(text), -1) {
				found = append(found, m[1]+m[2])
			}
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, vars.Registered) {
		t.Errorf("the tasks register %v, sgfleet_registered in vars/main.yml has %v", found, vars.Registered)
	}
}

// Credentials get their mode before their content, are written where they
// differ, and in check mode not at all.
func TestStage(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	stage := func(how, content string) string {
		t.Helper()
		cmd := exec.Command(python, "roles/sgfleet/files/stage.py", how)
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`[{"staged": %q, "mode": "0640", "content": %q}]`, key, content))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, step := range []struct{ how, content, says, left string }{
		{"check", "one", key, ""},
		{"write", "one", key, "one"},
		{"write", "one", "", "one"},
		{"check", "two", key, "one"},
		{"write", "two\n", key, "two\n"},
		{"write", "two\r\n", key, "two\r\n"},
		{"write", "two\r\n", "", "two\r\n"},
	} {
		if got := stage(step.how, step.content); got != step.says {
			t.Errorf("%s %q says %q, want %q", step.how, step.content, got, step.says)
		}
		if got, _ := os.ReadFile(key); string(got) != step.left {
			t.Errorf("%s %q left %q, want %q", step.how, step.content, got, step.left)
		}
	}
	if info, err := os.Stat(key); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(key + ".*"); left != nil {
		t.Errorf("left %v", left)
	}
}

// The inventories that engineers begin with: the README's and the example. Each
// names only what exists, and all that a first install with its own Redis needs.
func TestInventoriesAreComplete(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n# ansible/inventory.yml\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the README has no inventory")
	}
	var inventory struct {
		All struct {
			Vars map[string]any `yaml:"vars"`
		} `yaml:"all"`
	}
	if err := yaml.Unmarshal([]byte(block), &inventory); err != nil {
		t.Fatal(err)
	}
	var example map[string]any
	decode(t, "inventory/example/group_vars/all.yml", &example)
	for where, vars := range map[string]map[string]any{"README": inventory.All.Vars, "example": example} {
		for name := range vars {
			if _, ok := options(t, "sgfleet")[name]; !ok && options(t, "sgfleet_redis")[name].Type == "" {
				t.Errorf("%s: no role has a variable %s", where, name)
			}
		}
		for _, name := range []string{
			"binary", "mode", "user", "deploy_key", "known_hosts", "operator_host", "redis_url", "redis_username", "redis_password",
			"redis_bind", "redis_agent_password", "redis_operator_password",
		} {
			if _, ok := vars["sgfleet_"+name]; !ok {
				t.Errorf("%s: sgfleet_%s is missing", where, name)
			}
		}
	}
	if _, err := os.Stat("inventory/example/known_hosts.txt"); err != nil {
		t.Error(err)
	}
}

// The table of variables in each README is made from the argument specs; run
// with -update after a change.
func TestReadmeTables(t *testing.T) {
	const begin, end = "<!-- variables: go test ./ansible -update -->\n", "<!-- end -->"
	for _, role := range []string{"sgfleet", "sgfleet_redis"} {
		path := filepath.Join("roles", role, "README.md")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(text), begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the variables", path)
		}
		var table strings.Builder
		table.WriteString("| variable | default | meaning |\n| --- | --- | --- |\n")
		specs := options(t, role)
		for _, name := range slices.Sorted(maps.Keys(specs)) {
			o := specs[name]
			meaning := o.Description
			if len(o.Choices) > 0 {
				meaning += " One of " + strings.Join(o.Choices, ", ") + "."
			}
			def := cmp.Or(strings.TrimSpace(fmt.Sprint(o.Default)), `""`)
			if o.Type == "dict" {
				def = "{}"
			}
			fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", name, strings.ReplaceAll(def, "|", `\|`), meaning)
		}
		want := head + begin + table.String() + end + tail
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(text, []byte(want)) {
			t.Errorf("%s is not what the argument specs say; run go test ./ansible -update", path)
		}
	}
}
