package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"

	"github.com/sgfleet/sgfleet/fleet"
)

func sampleReport() *Report {
	r := &Report{ID: testID, Op: OpRestart, Target: "all", RequestedBy: "oncall", Published: publishedYes, Receivers: 9, TookMS: 12_340}
	add := func(instance string, class Class, phase Phase, status Status, detail string) *Result {
		service, host, _ := strings.Cut(instance, "@")
		r.Instances = append(r.Instances, Result{
			Instance: instance, Service: service, Host: host, Tier: service, Class: class, Phase: phase, Status: status, Detail: detail,
			AcceptedMS: 3, DoneMS: 900,
		})
		return &r.Instances[len(r.Instances)-1]
	}
	for n := range 38 {
		add(fmt.Sprintf("inference@h%d", n+1), ClassOK, Done, OK, fmt.Sprintf("restarted in %dms", n)).Revision = "0123456789abcdef"
	}
	add("web@h2", ClassFailed, Done, Failed, "exited 50 ms after the start").Journal = []string{"panic: no config", "exit status 2"}
	add("web@h3", ClassSilent, "", "", "DOWN, last heartbeat 5m ago")
	add("web@h4", ClassRefused, Refused, Held, "held by ann: disk swap")
	add("web@h5", ClassUnfinished, Accepted, Pending, "accepted, not done after 30s")
	add("web@h6", ClassOK, Done, Skipped, "left alone: it is stopped").Reason = ReasonStopped
	add("web@h7", ClassOK, Done, Skipped, "left alone: it has failed (exit-code)").Reason = ReasonFailed
	r.Notes = []string{"the reply to PUBLISH was lost"}
	r.finish()
	return r
}

func TestReportText(t *testing.T) {
	got := strings.Join(sampleReport().Text(), "\n=====\n")
	want := `web@h2 failed: exited 50 ms after the start
    | panic: no config
    | exit status 2
web@h7 skipped: left alone: it has failed (exit-code); name it (web@h7) or --include-failed
web@h3 silent: DOWN, last heartbeat 5m ago
web@h5 unfinished: accepted, not done after 30s
web@h4 refused (held): held by ann: disk swap
inference@h[1-38] (38) ok (at 0123456789), after 900ms
web@h6 skipped: left alone: it is stopped
note: the reply to PUBLISH was lost
restart all: 38 ok, 2 skipped (web@h7: failed, left alone; web@h6: stopped), 1 failed (web@h2), 1 refused (web@h4), 1 silent (web@h3), 1 unfinished (web@h5) in 12s [op 01JDG0000000000000000000AB]`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What was not done is not called ok.
func TestReportOfSkipped(t *testing.T) {
	for _, tt := range []struct {
		reasons []Reason // "ok": it was done
		summary string
		first   string
	}{
		{[]Reason{ReasonFailed}, "0 ok, 1 skipped (web@h1: failed, left alone)", "web@h1 skipped: as it is; name it (web@h1) or --include-failed"},
		{
			[]Reason{"ok", ReasonStopped, ReasonFailed, ReasonFailed},
			"1 ok, 3 skipped (web@h[3,4]: failed, left alone; web@h2: stopped)",
			"web@h[3,4] (2) skipped: as it is; name them (web@h[3,4]) or --include-failed",
		},
		{[]Reason{ReasonObserve, ReasonObserve}, "2 would restart (observe)", "web@h[1,2] (2) skipped: as it is"},
		{[]Reason{"ok", ReasonObserve, ""}, "1 ok, 1 skipped (web@h3), 1 would restart (observe)", "web@h1 ok"},
		{[]Reason{"on_strike"}, "0 ok, 1 skipped (web@h1)", "web@h1 skipped: as it is"},
		{[]Reason{ReasonAborted, ReasonNoCheckout}, "0 ok, 2 skipped (web@h2: no checkout; web@h1: told not to restart)", "web@h[1,2] (2) skipped: as it is"},
	} {
		r := &Report{ID: testID, Op: OpRestart, Target: "web"}
		skipped := 0
		for n, reason := range tt.reasons {
			i := Result{Instance: fmt.Sprintf("web@h%d", n+1), Class: ClassOK, Phase: Done, Status: Skipped, Reason: reason, Detail: "as it is"}
			if reason == "ok" {
				i.Status, i.Reason, i.Detail = OK, "", ""
			} else {
				skipped++
			}
			r.Instances = append(r.Instances, i)
		}
		r.finish()
		if want := "restart web: " + tt.summary + " in 0s [op " + testID + "]"; r.Summary != want {
			t.Errorf("%q: got\n%s\nwant\n%s", tt.reasons, r.Summary, want)
		}
		if first, _, _ := strings.Cut(r.Text()[0], "\n"); first != tt.first {
			t.Errorf("%q: first line %q; want %q", tt.reasons, first, tt.first)
		}
		if r.Counts.Skipped != skipped || r.Counts.OK != len(tt.reasons) || r.Exit != ExitOK {
			t.Errorf("%q: counts %+v, exit %d; want all ok, %d of them skipped, exit 0", tt.reasons, r.Counts, r.Exit, skipped)
		}
	}
}

// A report of any size comes in messages that a chat takes, and loses nothing.
func TestReportTextIsChunked(t *testing.T) {
	r := &Report{ID: testID, Op: OpPull, Target: strings.Repeat("web@h1,", 400)}
	for n := range 400 {
		detail := strings.Repeat("ü", n)
		if n%7 == 0 {
			detail = strings.Repeat("long ", 1000)
		}
		r.Instances = append(r.Instances, Result{Instance: fmt.Sprintf("web@host-%c%d", 'a'+n%26, n), Class: ClassFailed, Status: Failed, Phase: Done, Detail: fmt.Sprint(n, " ", detail)})
	}
	r.finish()
	all := strings.Join(r.Text(), "\n")
	for i, m := range r.Text() {
		if len(m) > fleet.MaxChat || m == "" || !utf8.ValidString(m) {
			t.Errorf("message %d has %d bytes, valid %v", i, len(m), utf8.ValidString(m))
		}
	}
	for _, i := range r.Instances {
		if !strings.Contains(all, i.Instance+" ") {
			t.Errorf("%s is missing", i.Instance)
		}
	}
	last := r.Text()[len(r.Text())-1]
	if lines := strings.Split(last, "\n"); lines[len(lines)-1] != r.Summary || len(r.Summary) > 800 {
		t.Errorf("last line %q; want the summary, fit to paste", lines[len(lines)-1])
	}
}

func TestReportErr(t *testing.T) {
	err := sampleReport().Err()
	var many *multierror.Error
	if !errors.As(err, &many) || len(many.Errors) != 4 {
		t.Fatalf("got %v; want a multierror of 4", err)
	}
	if got := many.Errors[0].Error(); got != "web@h2: failed: exited 50 ms after the start" {
		t.Errorf("first error %q; want the failed one", got)
	}
}

// The JSON form is an interface: keys stay, lists are lists.
func TestReportJSON(t *testing.T) {
	var empty Report
	empty.finish()
	for _, r := range []*Report{sampleReport(), &empty} {
		var got map[string]any
		if err := json.Unmarshal([]byte(mustJSON(t, r)), &got); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"accepted_ms", "counts", "exit_code", "id", "instances", "issued_at", "no_wait", "notes", "op", "published",
			"receivers", "release", "requested_by", "schema", "summary", "target", "took_ms", "trace_id", "unattributed",
		}
		if keys := sortedKeys(got); !slices.Equal(keys, want) {
			t.Errorf("keys %q; want %q", keys, want)
		}
		for _, list := range []string{"instances", "notes", "unattributed"} {
			if _, ok := got[list].([]any); !ok {
				t.Errorf("%s is %v; want a list", list, got[list])
			}
		}
		if instances := got["instances"].([]any); len(instances) > 0 {
			keys := sortedKeys(instances[0].(map[string]any))
			want := []string{
				"accepted_ms", "class", "detail", "done_ms", "gateway", "host", "instance", "invocation_id", "journal", "last_seen",
				"late", "legacy", "phase", "reason", "revision", "service", "status", "tier", "unknown", "version",
			}
			if !slices.Equal(keys, want) {
				t.Errorf("instance keys %q; want %q", keys, want)
			}
		}
	}
	if got := sampleReport(); got.Exit != ExitFailed || got.Schema != 1 {
		t.Errorf("exit %d, schema %d", got.Exit, got.Schema)
	}
}

func TestReportExitCode(t *testing.T) {
	result := func(c Class) Result {
		r := Result{Instance: "web@h1", Class: c, Phase: Done}
		if c == ClassSilent {
			r.Phase = ""
		}
		return r
	}
	for _, tt := range []struct {
		classes []Class
		texts   int
		want    int
	}{
		{[]Class{ClassOK}, 0, ExitOK},
		{[]Class{ClassOK, ClassFailed, ClassSilent}, 0, ExitFailed},
		{[]Class{ClassOK, ClassRefused}, 0, ExitFailed},
		{[]Class{ClassOK, ClassSilent}, 0, ExitSilent},
		{[]Class{ClassUnfinished}, 0, ExitSilent},
		{[]Class{ClassSilent, ClassSilent}, 0, ExitNobody},
		{[]Class{ClassSilent}, 1, ExitSilent},
		{nil, 0, ExitNobody},
	} {
		r := &Report{Unattributed: make([]string, tt.texts)}
		for _, c := range tt.classes {
			r.Instances = append(r.Instances, result(c))
		}
		r.finish()
		if r.ExitCode() != tt.want {
			t.Errorf("%v and %d texts: exit %d; want %d", tt.classes, tt.texts, r.ExitCode(), tt.want)
		}
	}
}

func TestStatusClass(t *testing.T) {
	for status, want := range map[Status]Class{
		OK: ClassOK, Joined: ClassOK, Skipped: ClassOK, Failed: ClassFailed, Pending: ClassUnfinished,
		Busy: ClassRefused, Expired: ClassRefused, TooOld: ClassRefused, Skew: ClassRefused, InCooldown: ClassRefused,
		Denied: ClassRefused, Held: ClassRefused, WrongVersion: ClassRefused, Duplicate: ClassRefused,
		"": ClassFailed, "melted": ClassFailed,
	} {
		if got := status.Class(); got != want {
			t.Errorf("%q is %s; want %s", status, got, want)
		}
	}
}

func TestDecodeAck(t *testing.T) {
	good := `{"id":"x","instance":"web@h1#2","host":"elsewhere","phase":"done","status":"ok","detail":"a\n\u001b[31mb","journal":["x\ty"],"new_field":1}`
	a, err := DecodeAck([]byte(good))
	if err != nil || a.Host != "h1" || a.Detail != "a [31mb" || a.Journal[0] != "x y" {
		t.Errorf("got %+v, %v", a, err)
	}
	for name, raw := range map[string]string{
		"Huge":         `{"detail":"` + strings.Repeat("x", maxAckBytes) + `"}`,
		"NoInstance":   `{"phase":"done","status":"ok"}`,
		"BadInstance":  strings.Replace(good, "web@h1#2", "../x", 1),
		"OtherForm":    strings.Replace(good, "#2", "#02", 1),
		"UnknownPhase": strings.Replace(good, `"done"`, `"over"`, 1),
		"NoStatus":     strings.Replace(good, `"ok"`, `""`, 1),
		"StatusText":   strings.Replace(good, `"ok"`, `"o\nk"`, 1),
	} {
		if a, err := DecodeAck([]byte(raw)); err == nil {
			t.Errorf("%s: got %+v; want an error", name, a)
		}
	}
}
