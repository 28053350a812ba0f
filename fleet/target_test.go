package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A fleet of two tiers' worth of hosts, two copies of a service, and daemons.
var testMembers = []Member{
	{Instance{"gateway", "gw-1", 0}, "gateway"},
	{Instance{"inference", "h1", 1}, "inference"},
	{Instance{"inference", "h1", 2}, "inference"},
	{Instance{"inference", "h2", 0}, "inference"},
	{Instance{"embed", "h2", 0}, "inference"},
	{Instance{"web", "h10", 0}, "web"},
	{Instance{"sgfleet", "h1", 0}, ""},
	{Instance{"sgfleet", "h2", 0}, ""},
}

func matched(t Target) string {
	var out []string
	for _, m := range testMembers {
		if t.Match(m) {
			out = append(out, m.String())
		}
	}
	return strings.Join(out, " ")
}

func TestTargetMatch(t *testing.T) {
	const everything = "gateway@gw-1 inference@h1#1 inference@h1#2 inference@h2 embed@h2 web@h10"
	for _, tt := range []struct{ target, want, text string }{
		{"all", everything, ""},
		{" all ", everything, "all"},
		{"*", everything, ""},
		{"inference", "inference@h1#1 inference@h1#2 inference@h2 embed@h2", ""},
		{"embed", "embed@h2", ""},
		{"inf*", "inference@h1#1 inference@h1#2 inference@h2 embed@h2", ""},
		{"inference@h1", "inference@h1#1 inference@h1#2", ""},
		{"inference@h1#2", "inference@h1#2", ""},
		{"inference@*", "inference@h1#1 inference@h1#2 inference@h2", ""},
		{"*@h2", "inference@h2 embed@h2", ""},
		{"host:h2", "inference@h2 embed@h2", ""},
		{"host:h*", "inference@h1#1 inference@h1#2 inference@h2 embed@h2 web@h10", ""},
		{"web, gateway", "gateway@gw-1 web@h10", "web,gateway"},
		{"all,!inference", "gateway@gw-1 web@h10", ""},
		{"! host:h1 ,all,! web", "gateway@gw-1 inference@h2 embed@h2", "all,!host:h1,!web"},
		{"all,!inference@h1#1", "gateway@gw-1 inference@h1#2 inference@h2 embed@h2 web@h10", ""},
		{"all,!*e*", "", ""},
		{"sgfleet@h1", "sgfleet@h1", ""},
		{"sgfleet@*", "sgfleet@h1 sgfleet@h2", ""},
		{"*@h1", "inference@h1#1 inference@h1#2", ""},
		{"inference@h[1-2]", "inference@h1#1 inference@h1#2 inference@h2", ""},
		{"inference@h1#[1,2], host:[g-h][1]", "", "error"},
		{"inference@h1#[1,2],web@h[9-12]", "inference@h1#1 inference@h1#2 web@h10", ""},
		{"inference@h[01-02]", "", ""},
	} {
		got, err := ParseTarget(tt.target, nil)
		if tt.text == "error" {
			if err == nil {
				t.Errorf("ParseTarget(%q) = %v, want an error", tt.target, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParseTarget(%q): %v", tt.target, err)
			continue
		}
		if m := matched(got); m != tt.want {
			t.Errorf("%q matches\n %s, want\n %s", tt.target, m, tt.want)
		}
		if want := tt.text; want != "" && got.String() != want {
			t.Errorf("ParseTarget(%q).String() = %q, want %q", tt.target, got, want)
		}
	}
}

func TestTargetErrors(t *testing.T) {
	cfg := Default()
	cfg.Services["embed"] = Service{Tier: "inference"}
	for _, tt := range []struct{ target, want string }{
		{"", `target "": is empty; write all for every instance`},
		{" \t", "is empty; write all"},
		{"!web", "only says what to leave out; write all,!web"},
		{"!web,!embed@h1", "write all,!web,!embed@h1"},
		{"all,!all", "!all excludes everything"},
		{"web,,all", "a part between commas is empty"},
		{"web,", "a part between commas is empty"},
		{"web,!", "a part between commas is empty"},
		{"wbe", `target "wbe": no tier or service is called "wbe" (did you mean web?)`},
		{"inf", "(did you mean inference?)"},
		{"ALL", "(did you mean all?)"},
		{"all,!inferense", "(did you mean inference?)"},
		{"zzzzzz", "(known: agents, all, consolidation, embed, gateway, inference, web)"},
		{"w*x", `no tier or service is called "w*x"`},
		{"embd@h1", `no service is called "embd" (did you mean embed?)`},
		{"host:", `"" is not a host name`},
		{"host:a b", `"a b" is not a host name`},
		{"hosts:a", "the only prefix is host:, as in host:a"},
		{"tier:web", "the only prefix is host:"},
		{"web@", "want SERVICE@HOST or SERVICE@HOST#N"},
		{"@h1", "want SERVICE@HOST"},
		{"web@h1#", `"" after # is not a number from 1`},
		{"web@h1#0", `"0" after # is not a number from 1`},
		{"web@h1#+1", `"+1" after # is not a number from 1`},
		{"web@h1#01", `"01" after # is not a number from 1`},
		{"web@h1@h2", "want SERVICE@HOST"},
		{"sgfleet", "the daemons are addressed as sgfleet@HOST"},
		{"-all", "is not a name of letters"},
		{"--all", "is not a name of letters"},
		{"web;reboot", "is not a name of letters"},
		{"web all", `target "web all" is not a name of letters`},
		{"wéb", "is not a name of letters"},
		{"web@h[1-", `target "web@h[1-": the [ is not closed by a ]`},
		{"all,web@h[1-", `target "all,web@h[1-": "web@h[1-": the [ is not closed`},
		{"web@h1]", `target "web@h1]": the ] has no [ before it`},
		{"web@h[]", "is not a list of numbers and ranges"},
		{"web@h[3-1]", "is not a list of numbers and ranges"},
		{"web@h[01-2]", "is not a list of numbers and ranges"},
		{"web@h[1-02]", "is not a list of numbers and ranges"},
		{"web@h[1-999999999]", "unfolds to more than 10000 names"},
		{"web@[1-999][1-999]", "unfolds to more than 10000 names"},
		{"web@h[1-9999],web@i[1-9999]", "unfolds to more than 10000 names"},
		{strings.Repeat("x", 4000) + "[1-9999]", "is too long for a name"},
		{strings.Repeat("w", 65), "is not a name of letters"},
	} {
		got, err := ParseTarget(tt.target, cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseTarget(%.60q) = %v, %v; want an error with %s", tt.target, got, err, tt.want)
		}
	}
}

// A host that is named like a service would be is what was meant.
func TestTargetHostWord(t *testing.T) {
	_, err := ParseTarget("all,!h9", Default(), Member{Instance{"web", "h9", 0}, "web"})
	if want := `no tier or service is called "h9" (the host is host:h9)`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What only the registry knows is as good a name as what the config knows.
func TestTargetNamesOfMembers(t *testing.T) {
	extra := Member{Instance{"batch", "h9", 0}, "offline"}
	for _, target := range []string{"batch", "offline", "batch@h9", "web", "web@h1"} {
		if _, err := ParseTarget(target, Default(), extra); err != nil {
			t.Errorf("ParseTarget(%q) with a member of that name: %v", target, err)
		}
	}
	if _, err := ParseTarget("batch", Default()); err == nil {
		t.Error("ParseTarget(batch) without it: no error")
	}
	cfg := Default()
	cfg.Legacy.Instances = []string{"old@h1"}
	if _, err := ParseTarget("old@h1", cfg); err != nil {
		t.Errorf("a legacy instance is a known name: %v", err)
	}
}

func TestTargetCheck(t *testing.T) {
	for _, tt := range []struct{ target, want string }{
		{"all", ""},
		{"web,inference@h1#2", ""},
		{"all,!nosuch*", ""},
		{"all,!agents", ""},
		{"sgfleet@h1", ""},
		{"host:h3", "host:h3 matches nothing (did you mean h1?)"},
		{"inference@h3", "inference@h3 matches nothing (did you mean inference@h1?)"},
		{"web,web@h11", "web@h11 matches nothing (did you mean web@h10?)"},
		{"inference@h1#3", "inference@h1#3 matches nothing (did you mean inference@h1#1?)"},
		{"web@h2", "web@h2 matches nothing (known: embed@h2, inference@h2)"},
		{"inference@gw-1", "inference@gw-1 matches nothing"},
		{"agents", "agents matches nothing"},
		{"all,!host:gw1", "!host:gw1 matches nothing (did you mean gw-1?)"},
		{"all,!web@h1", "!web@h1 matches nothing"},
		{"web,!web@h10", "everything it selects is left out again"},
		{"sgfleet@h7", "sgfleet@h7 matches nothing"},
	} {
		target, err := ParseTarget(tt.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = target.Check(testMembers)
		if tt.want == "" {
			if err != nil {
				t.Errorf("Check(%q): %v", tt.target, err)
			}
			continue
		}
		if !errors.Is(err, ErrNoMatch) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Check(%q) = %v\nwant ErrNoMatch with %s", tt.target, err, tt.want)
		}
	}
	all, _ := ParseTarget("all", nil)
	if err := all.Check(nil); !errors.Is(err, ErrNoMatch) || !strings.Contains(err.Error(), "no daemon has sent a heartbeat") {
		t.Errorf("Check of an empty fleet = %v", err)
	}
}

func TestTargetNamesAndBroadcast(t *testing.T) {
	m := testMembers[1] // inference@h1#1
	for _, tt := range []struct {
		target           string
		names, broadcast bool
	}{
		{"all", false, true},
		{"inference", false, true},
		{"embed", false, false}, // a service, not a tier
		{"inference,web", false, false},
		{"all,!web", false, false},
		{"inf*", false, false},
		{"inference@h1", true, false},
		{"inference@h1#1", true, false},
		{"inference@h[1-2]", true, false},
		{"inference@h1#2", false, false},
		{"inference@*", false, false},
		{"host:h1", false, false},
		{"all,inference@h1", true, false},
		{"inference@h1,!inference@h1#1", false, false},
	} {
		target, err := ParseTarget(tt.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Names(m); got != tt.names {
			t.Errorf("%q names %v: %v, want %v", tt.target, m, got, tt.names)
		}
		if got := target.Broadcast(Default()); got != tt.broadcast {
			t.Errorf("%q is a broadcast: %v, want %v", tt.target, got, tt.broadcast)
		}
	}
}

func TestZeroTargetMatchesNothing(t *testing.T) {
	if got := matched(Target{}); got != "" {
		t.Errorf("the zero target matches %s", got)
	}
}

var genName = rapid.StringMatching(`[a-z0-9._][a-z0-9._-]{0,5}`)

func genMember(t *rapid.T) Member {
	return Member{
		Instance{genName.Draw(t, "service"), genName.Draw(t, "host"), rapid.IntRange(0, 3).Draw(t, "n")},
		genName.Draw(t, "tier"),
	}
}

func TestTargetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMember(t)
		must := func(s string) Target {
			target, err := ParseTarget(s, nil)
			if err != nil {
				t.Fatalf("ParseTarget(%q): %v", s, err)
			}
			return target
		}
		if m.Tier == TargetAll || m.Service == TargetAll || m.Tier == DaemonService || m.Service == DaemonService {
			return
		}
		for _, s := range []string{"all", m.Tier, m.Service, m.String(), m.Service + "@" + m.Host, "host:" + m.Host} {
			if !must(s).Match(m) {
				t.Fatalf("%q does not match %v", s, m)
			}
			if must("all,!host:" + m.Host).Match(m) {
				t.Fatalf("an excluded host is matched")
			}
			if s != "all" && must("all,!"+s).Match(m) {
				t.Fatalf("all,!%s matches %v", s, m)
			}
		}
		if !must(m.String()).Names(m) {
			t.Fatalf("%v is not named by itself", m)
		}
		other := genMember(t)
		if must(m.String()).Match(other) && (other.Service != m.Service || other.Host != m.Host) {
			t.Fatalf("%v matches %v", m, other)
		}
	})
}

func TestGlobAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,6}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "s")
		if got, want := glob(pattern, s), slowGlob(pattern, s); got != want {
			t.Fatalf("glob(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}

func slowGlob(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return slowGlob(pattern[1:], s) || s != "" && slowGlob(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && slowGlob(pattern[1:], s[1:])
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"all", "web@h1#2", "host:h*,!web", "a@h[1-3,07]", "[[1-2]]", "!!x", "#", "h[1-2][3-4]", "a,,b", "sgfleet@*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s, nil)
		if err != nil {
			if len(matched(target)) > 0 {
				t.Errorf("ParseTarget(%q) failed and matches %s", s, matched(target))
			}
			return
		}
		again, err := ParseTarget(target.String(), nil)
		if err != nil || again.String() != target.String() || matched(again) != matched(target) {
			t.Errorf("ParseTarget(%q) = %q, which reads back as %q, %v", s, target, again, err)
		}
	})
}

func FuzzParseInstance(f *testing.F) {
	for _, s := range []string{"web@h1", "web@h1#2", "web@h1#02", "@", "a@b#c", "a@b#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInstance(s)
		if err == nil && i.String() != s {
			t.Errorf("ParseInstance(%q).String() = %q", s, i)
		}
	})
}

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"h1"}, "h1"},
		{[]string{"h7", "h1", "h2", "h3", "h4", "h1"}, "h[1-4,7]"},
		{[]string{"h1", "h2"}, "h[1,2]"},
		{[]string{"h8", "h9", "h10", "h11"}, "h[8-11]"},
		{[]string{"h08", "h09", "h10", "h11"}, "h[08-11]"},
		{[]string{"h1", "h01"}, "h01 h1"},
		{[]string{"h1", "h2", "h01", "h02", "h10"}, "h[01,02,10] h[1,2]"},
		{[]string{"h098", "h099", "h100"}, "h[098-100]"},
		{[]string{"rack1-h1", "rack1-h2", "rack2-h1"}, "rack1-h[1,2] rack2-h1"},
		{[]string{"a1.lan", "a2.lan", "a3"}, "a3 a[1,2].lan"},
		{[]string{"db", "web"}, "db web"},
		{[]string{"0", "1", "2"}, "[0-2]"},
		{[]string{"i1234567890", "i1234567891"}, "i1234567890 i1234567891"},
	} {
		if got := strings.Join(Fold(tt.names), " "); got != tt.want {
			t.Errorf("Fold(%v) = %s, want %s", tt.names, got, tt.want)
		}
	}
}

func TestFoldInstances(t *testing.T) {
	var in []Instance
	for _, s := range []string{"web@h1", "web@h2#1", "web@h2#2", "inference@h4", "inference@h1", "web@h3#2", "inference@h2", "inference@h3"} {
		i, err := ParseInstance(s)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, i)
	}
	got := FoldInstances(in)
	want := []string{"inference@h[1-4]", "web@h1", "web@h2#1", "web@h[2,3]#2"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("FoldInstances (-want +got):\n%s", d)
	}
}

// Unfolding gives back exactly what was folded.
func TestFoldProperty(t *testing.T) {
	name := rapid.OneOf(
		rapid.StringMatching(`[ab]{0,2}[0-9]{1,4}[cd]?`),
		rapid.StringMatching(`h[0-9]{1,2}`),
		rapid.StringMatching(`[a-c]{1,3}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(name).Draw(t, "names")
		want := map[string]bool{}
		for _, n := range names {
			want[n] = true
		}
		got := map[string]bool{}
		for _, f := range Fold(names) {
			words, err := expand(f, maxTargetTerms)
			if err != nil {
				t.Fatalf("expand(%q): %v", f, err)
			}
			for _, w := range words {
				if got[w] {
					t.Fatalf("%q twice in %v", w, Fold(names))
				}
				got[w] = true
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("Fold(%v) = %v (-want +got):\n%s", names, Fold(names), d)
		}
	})
}

// The order is a real order: sorting by it never depends on where it started.
func TestInstanceOrderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab]{0,2}[0-9]{0,3}[ab]?[0-9]{0,2}`)
		a, b, c := name.Draw(t, "a"), name.Draw(t, "b"), name.Draw(t, "c")
		if cmpNatural(a, b) != -cmpNatural(b, a) || (cmpNatural(a, b) == 0) != (a == b) {
			t.Fatalf("%q and %q: %d and %d", a, b, cmpNatural(a, b), cmpNatural(b, a))
		}
		if cmpNatural(a, b) < 0 && cmpNatural(b, c) < 0 && cmpNatural(a, c) >= 0 {
			t.Fatalf("%q < %q < %q, but not %[1]q < %[3]q", a, b, c)
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"gateway", "inference", "agents", "consolidation", "web"}
	for _, tt := range []struct{ word, want string }{
		{"wbe", "web"},
		{"Web", "web"},
		{"wed", "web"},
		{"webs", "web"},
		{"inferrence", "inference"},
		{"infernce", "inference"},
		{"con", "consolidation"},
		{"gatway", "gateway"},
		{"xyz", ""},
		{"q", ""},
		{"", ""},
		{"agent", "agents"},
		{strings.Repeat("web", 1000), ""},
	} {
		if got := Nearest(tt.word, known); got != tt.want {
			t.Errorf("Nearest(%.20q) = %q, want %q", tt.word, got, tt.want)
		}
	}
	if got := Nearest("web", nil); got != "" {
		t.Errorf("Nearest of nothing = %q", got)
	}
}

func ExampleParseTarget() {
	target, _ := ParseTarget("inference, !inference@h[1-2]", Default())
	fmt.Println(target, target.Match(Member{Instance{"inference", "h3", 0}, "inference"}))
	_, err := ParseTarget("infrence", Default())
	fmt.Println(err)
	// Output:
	// inference,!inference@h[1-2] true
	// target "infrence": no tier or service is called "infrence" (did you mean inference?)
}
