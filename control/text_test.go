package control

import (
	"errors"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/fleet"
)

func TestOpFor(t *testing.T) {
	type result struct {
		op, target string
		ok         bool
	}
	none := result{}
	for _, tt := range []struct {
		text    string
		want    result
		command bool
	}{
		{"!restart_all", result{"restart", "all", true}, true},
		{"!restart_inference", result{"restart", "inference", true}, true},
		{"  !restart_gateway\n", result{"restart", "gateway", true}, true},
		{"!bot_pull", result{"pull", "all", true}, true},
		{"!pull_all", result{"pull", "all", true}, true},
		{"!pull_agents", result{"pull", "agents", true}, true},
		{"!update_web", result{"update", "web", true}, true},
		{"!update_all", result{"update", "all", true}, true},
		{"!services", none, true},
		{"!bot_restart", none, false},
		{"!proxy_restart", none, false},
		{"!restart_infernce", none, false},
		{"!restart_", none, false},
		{"!restart", none, false},
		{"!Restart_all", none, false},
		{"!restart_ALL", none, false},
		{"!restart_all now", none, false},
		{"!restart_all,web", none, false},
		{"!restart_*", none, false},
		{"restart_all", none, false},
		{"please !restart_all", none, false},
		{"!ping_all", none, false},
		{"!", none, false},
		{"", none, false},
		{"hello there", none, false},
	} {
		op, target, ok := OpFor(tt.text)
		if got := (result{op, target, ok}); got != tt.want {
			t.Errorf("OpFor(%q) = %+v; want %+v", tt.text, got, tt.want)
		}
		if got := IsControlCommand(tt.text); got != tt.command {
			t.Errorf("IsControlCommand(%q) = %v; want %v", tt.text, got, tt.command)
		}
	}
	if op, target, ok := OpFor("!restart_frontend", "backend", "frontend"); !ok || op != "restart" || target != "frontend" {
		t.Errorf("with tiers of its own: got %q, %q, %v", op, target, ok)
	}
}

func TestParseText(t *testing.T) {
	cfg := fleet.Default()
	cfg.ControlProxyUnit = "stargazer-proxy"
	for _, tt := range []struct {
		text string
		want TextCommand
		err  string // part of it; "-" is ErrNotCommand
	}{
		{"!restart_all", TextCommand{Op: "restart", Target: "all"}, ""},
		{"!services", TextCommand{Services: true}, ""},
		{"!proxy_restart", TextCommand{LocalUnit: "stargazer-proxy.service"}, ""},
		{"!bot_restart", TextCommand{}, "control_bot_unit is not set"},
		{"!restart_infernce", TextCommand{}, "did you mean !restart_inference?"},
		{"!restart_database", TextCommand{}, "known: all, gateway, inference"},
		{"!restart_ALL", TextCommand{}, "did you mean !restart_all?"},
		{"!Restart_all", TextCommand{}, "did you mean !restart_all?"},
		{"!restar_all", TextCommand{}, "did you mean !restart_all?"},
		{"!serivces", TextCommand{}, "did you mean !services?"},
		{"!restart_all please", TextCommand{}, "takes nothing after it"},
		{"!weather berlin", TextCommand{}, "-"},
		{"!weather", TextCommand{}, "-"},
		{"let us !restart_all", TextCommand{}, "-"},
		{"restart all", TextCommand{}, "-"},
		{"", TextCommand{}, "-"},
	} {
		got, err := ParseText(tt.text, cfg)
		switch {
		case got != tt.want:
			t.Errorf("ParseText(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		case tt.err == "" && err != nil, tt.err == "-" && !errors.Is(err, ErrNotCommand):
			t.Errorf("ParseText(%q): error %v", tt.text, err)
		case tt.err != "" && tt.err != "-" && (err == nil || errors.Is(err, ErrNotCommand) || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("ParseText(%q): error %v; want it to say %q", tt.text, err, tt.err)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"!restart_all", "!bot_pull", "!services", "!update_web x", "!Restart_infernce", "hi", "!\x00_\xff"} {
		f.Add(s)
	}
	cfg := fleet.Default()
	f.Fuzz(func(t *testing.T, text string) {
		op, target, ok := OpFor(text)
		cmd, err := ParseText(text, cfg)
		if ok != (err == nil && cmd.Op != "") {
			t.Fatalf("OpFor(%q) is %v, ParseText says %+v, %v", text, ok, cmd, err)
		}
		if ok && strings.TrimSpace(text) != "!"+op+"_"+target && strings.TrimSpace(text) != textBotPull {
			t.Fatalf("OpFor(%q) = %q, %q", text, op, target)
		}
		if err != nil && !printable(err.Error()) {
			t.Fatalf("ParseText(%q): error %q is not fit for chat", text, err)
		}
	})
}
