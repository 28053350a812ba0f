package control

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/sgfleet/sgfleet/fleet"
)

// ReportSchema is the version of a report's JSON form.
const ReportSchema = 1

// Report is what became of an op: every expected instance, and every other
// one that answered, in exactly one class.
type Report struct {
	Schema      int        `json:"schema"` // ReportSchema
	ID          string     `json:"id"`
	Op          string     `json:"op"`
	Target      string     `json:"target"` // as published
	RequestedBy string     `json:"requested_by"`
	TraceID     string     `json:"trace_id"`
	IssuedAt    fleet.Time `json:"issued_at"`

	// Published is "yes", or "unknown" when the reply to PUBLISH was lost: the
	// op was then sent once or not at all, and never twice.
	Published string `json:"published"`
	// Receivers is what PUBLISH returned: a hint, never the expectation.
	Receivers int64 `json:"receivers"`
	// Release says what the gateways were told: "go", "abort", or "" when there
	// was nothing to tell; then they restart at their own deadline, if at all.
	Release string `json:"release"`
	NoWait  bool   `json:"no_wait"`

	TookMS     int64 `json:"took_ms"`     // from PUBLISH to the end of the collection
	AcceptedMS int64 `json:"accepted_ms"` // from PUBLISH to the last "accepted" ack

	Counts    Counts   `json:"counts"`
	Instances []Result `json:"instances"` // in tier order; unexpected responders last
	// Unattributed are text answers of legacy peers that name no instance.
	Unattributed []string `json:"unattributed"`
	// Notes are what else an operator should know, a sentence each.
	Notes   []string `json:"notes"`
	Summary string   `json:"summary"` // one sentence, fit to paste in a chat
	Exit    int      `json:"exit_code"`
}

// Counts is the number of instances by class.
type Counts struct {
	OK         int `json:"ok"`      // Skipped included
	Skipped    int `json:"skipped"` // a part of OK: nothing was done, as it should be or as it was configured
	Failed     int `json:"failed"`
	Refused    int `json:"refused"`
	Unfinished int `json:"unfinished"`
	Silent     int `json:"silent"`
}

// Of returns the number of instances in class c.
func (c *Counts) Of(class Class) int { return *c.of(class) }

func (c *Counts) of(class Class) *int {
	switch class {
	case ClassOK:
		return &c.OK
	case ClassFailed:
		return &c.Failed
	case ClassRefused:
		return &c.Refused
	case ClassUnfinished:
		return &c.Unfinished
	}
	return &c.Silent
}

// Result is what became of the op on one instance.
type Result struct {
	Instance string `json:"instance"`
	Service  string `json:"service"`
	Host     string `json:"host"`
	Tier     string `json:"tier"`
	Class    Class  `json:"class"`
	Phase    Phase  `json:"phase"`  // the last one heard of; "" when silent
	Status   Status `json:"status"` // of that ack; "" when silent
	Reason   Reason `json:"reason"` // why it was skipped; "" when it was not
	Detail   string `json:"detail"` // one line: the ack's, or why there is none

	Revision     string   `json:"revision"`
	InvocationID string   `json:"invocation_id"`
	Version      string   `json:"version"`
	Journal      []string `json:"journal"`

	AcceptedMS int64      `json:"accepted_ms"` // since PUBLISH; −1: never
	DoneMS     int64      `json:"done_ms"`     // since PUBLISH; −1: never
	LastSeen   fleet.Time `json:"last_seen"`   // newest heartbeat; 0: none

	Gateway bool `json:"gateway"` // waited for the release
	Legacy  bool `json:"legacy"`  // answers in text
	Late    bool `json:"late"`    // accepted only after the reply window
	Unknown bool `json:"unknown"` // answered without being expected
}

// ExitCode is the code that a command should end with: 3 if any failed or
// refused, else 5 if nobody answered, else 4 if any is silent or unfinished,
// else 0.
func (r *Report) ExitCode() int {
	c := r.Counts
	switch {
	case c.Failed+c.Refused > 0:
		return ExitFailed
	case !r.answered():
		return ExitNobody
	case c.Silent+c.Unfinished > 0:
		return ExitSilent
	}
	return ExitOK
}

// answered reports whether anybody answered at all.
func (r *Report) answered() bool {
	if len(r.Unattributed) > 0 {
		return true
	}
	for _, i := range r.Instances {
		if i.Phase != "" {
			return true
		}
	}
	return false
}

// Missed returns the instances on which the op did not succeed: what a retry
// addresses.
func (r *Report) Missed() []string {
	var out []string
	for _, i := range r.Instances {
		if i.Class != ClassOK {
			out = append(out, i.Instance)
		}
	}
	return out
}

// Err gathers what went wrong on each instance, trouble first; nil when
// nothing did.
func (r *Report) Err() error {
	var all *multierror.Error
	for _, class := range Classes {
		if class == ClassOK {
			continue
		}
		for _, i := range r.Instances {
			if i.Class == class {
				all = multierror.Append(all, errors.New(i.Instance+": "+i.words()))
			}
		}
	}
	return all.ErrorOrNil()
}

// Skipped reports whether nothing was done on the instance, which counts as ok.
func (i Result) Skipped() bool { return i.Class == ClassOK && i.Status == Skipped }

// leftFailed reports whether a failed unit was left as it is.
func (i Result) leftFailed() bool { return i.Skipped() && i.Reason == ReasonFailed }

// words says what became of one instance: the class, and what there is to say
// about it.
func (i Result) words() string {
	s := string(i.Class)
	if i.Status != "" && Class(i.Status) != i.Class && i.Class != ClassUnfinished {
		s = string(i.Status)
		if i.Class == ClassRefused {
			s = "refused (" + s + ")"
		}
	}
	// A refusal's detail begins with the step that refused, mostly named as
	// its status is.
	if d := strings.TrimPrefix(i.Detail, string(i.Status)+": "); d != "" {
		s += ": " + d
	}
	if i.Unknown {
		s += " [not expected]"
	}
	if i.Late {
		s += " [late]"
	}
	return s
}

// finish fills in what follows from the instances.
func (r *Report) finish() {
	r.Schema = ReportSchema
	r.Counts = Counts{}
	for _, i := range r.Instances {
		*r.Counts.of(i.Class)++
		if i.Skipped() {
			r.Counts.Skipped++
		}
		r.AcceptedMS = max(r.AcceptedMS, i.AcceptedMS)
	}
	r.Exit = r.ExitCode()
	r.Summary = r.summary()
	// A list is a list in JSON, also when it is empty.
	r.Instances = nonNil(r.Instances)
	r.Unattributed = nonNil(r.Unattributed)
	r.Notes = nonNil(r.Notes)
	for n := range r.Instances {
		r.Instances[n].Journal = nonNil(r.Instances[n].Journal)
	}
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// round shows a duration with three digits at most.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

func (r *Report) notef(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// short returns the first part of a commit id.
func short(revision string) string {
	if len(revision) > 10 {
		return revision[:10]
	}
	return cmp.Or(revision, "-")
}
