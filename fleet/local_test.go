package fleet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUnitsOfTheOriginal(t *testing.T) {
	want := []string{"stargazer-gateway", "stargazer-inference", "stargazer-agents", "stargazer-consolidation", "stargazer-web"}
	for name, cfg := range map[string]*Config{"nil": nil, "default": Default()} {
		if d := cmp.Diff(want, Units(cfg)); d != "" {
			t.Errorf("Units(%s) (-want +got):\n%s", name, d)
		}
	}
}

func TestUnitName(t *testing.T) {
	cfg := Default()
	cfg.ControlUnitPrefix = "x-"
	cfg.ControlUnitNames = map[string]string{"web": "nginx.service", "agents": ""}
	cfg.Services["inference"] = Service{Tier: "inference", Unit: "llm"}
	cfg.Services["web"] = Service{Tier: "web", Unit: "apache"}
	for _, tt := range []struct {
		cfg           *Config
		service, want string
	}{
		{nil, "web", "stargazer-web"},
		{nil, "unheard-of", "stargazer-unheard-of"},
		{cfg, "web", "nginx.service"}, // the map wins over the service's own
		{cfg, "inference", "llm"},     // its own over prefix + name
		{cfg, "agents", "x-agents"},   // an empty name in the map is none
		{cfg, "elsewhere", "x-elsewhere"},
		{&Config{}, "web", "web"},
	} {
		if got := UnitName(tt.cfg, tt.service); got != tt.want {
			t.Errorf("UnitName(%s) = %q, want %q", tt.service, got, tt.want)
		}
	}
	want := []string{"x-gateway", "llm", "x-agents", "x-consolidation", "nginx.service"}
	if d := cmp.Diff(want, Units(cfg)); d != "" {
		t.Errorf("Units (-want +got):\n%s", d)
	}
}

func TestServiceUnit(t *testing.T) {
	for unit, want := range map[string]string{
		"a": "a.service", "a.service": "a.service", "a.b": "a.b.service", "a.timer": "a.timer", "a@1": "a@1.service",
	} {
		if got := ServiceUnit(unit); got != want {
			t.Errorf("ServiceUnit(%q) = %q, want %q", unit, got, want)
		}
	}
}

func TestLocalServices(t *testing.T) {
	cfg := Default()
	cfg.Services = map[string]Service{
		"web":     {Hosts: []string{"w*"}},
		"llm":     {Tier: "inference", Instances: 2, Unit: "llm@.service", Checkout: "/srv/llm", Hosts: []string{"h1", "h2"}},
		"embed":   {Tier: "inference", Instances: 2, ControlledBy: BySelf, Hosts: []string{"h1"}},
		"gateway": {ControlledBy: ByLegacy, Hosts: []string{"h1"}},
		"rerank":  {Tier: "inference", Instances: 1, Unit: "rr.timer"},
	}
	got := cfg.LocalServices("h1")
	want := []LocalService{
		{Instance{"gateway", "h1", 0}, "gateway", "stargazer-gateway.service", "", ByLegacy},
		{Instance{"embed", "h1", 1}, "inference", "stargazer-embed@1.service", "", BySelf},
		{Instance{"embed", "h1", 2}, "inference", "stargazer-embed@2.service", "", BySelf},
		{Instance{"llm", "h1", 1}, "inference", "llm@1.service", "/srv/llm", ByHost},
		{Instance{"llm", "h1", 2}, "inference", "llm@2.service", "/srv/llm", ByHost},
		{Instance{"rerank", "h1", 0}, "inference", "rr.timer", "", ByHost},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("LocalServices(h1) (-want +got):\n%s", d)
	}
	if got := cfg.LocalServices("w3"); len(got) != 2 || got[1].Instance.String() != "web@w3" {
		t.Errorf("LocalServices(w3) = %v", got)
	}
	if got := got[0].Member(); got != (Member{Instance{"gateway", "h1", 0}, "gateway"}) {
		t.Errorf("Member = %v", got)
	}
}

func TestTierSettings(t *testing.T) {
	cfg := Default()
	cfg.Tiers = append(cfg.Tiers, Tier{Name: "chat", Gateway: true, DoneTimeout: Duration(time.Minute), Settle: Duration(time.Second)})
	cfg.Services["bot"] = Service{Tier: "chat"}
	for tier, want := range map[string]bool{"gateway": true, "chat": true, "web": false, "": false} {
		if got := cfg.IsGateway(tier); got != want {
			t.Errorf("IsGateway(%s) = %v", tier, got)
		}
	}
	if got := cfg.TierDoneTimeout("chat"); got != time.Minute {
		t.Errorf("TierDoneTimeout(chat) = %v", got)
	}
	if got := cfg.TierDoneTimeout("web"); got != 0 {
		t.Errorf("TierDoneTimeout(web) = %v", got)
	}
	if got := [2]time.Duration{cfg.TierSettle("chat"), cfg.TierSettle("web")}; got != [2]time.Duration{time.Second, 2 * time.Second} {
		t.Errorf("TierSettle = %v", got)
	}
	for service, want := range map[string]string{"bot": "chat", "web": "web", "chat": "chat", "nosuch": ""} {
		if got := cfg.TierOf(service); got != want {
			t.Errorf("TierOf(%s) = %q, want %q", service, got, want)
		}
	}
}
