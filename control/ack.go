package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sgfleet/sgfleet/fleet"
)

// Class is what an instance's answer comes to; every instance of a report is
// in exactly one.
type Class string

const (
	ClassOK         Class = "ok"
	ClassFailed     Class = "failed"
	ClassRefused    Class = "refused"
	ClassUnfinished Class = "unfinished" // accepted, and not done by its deadline
	ClassSilent     Class = "silent"     // known, and nothing was heard
)

// Classes lists every class, trouble first: the order of a report.
var Classes = []Class{ClassFailed, ClassSilent, ClassUnfinished, ClassRefused, ClassOK}

// Class says what a status counts as; an unknown one counts as failed, because
// taking it for success could hide trouble.
func (s Status) Class() Class {
	switch s {
	case OK, Joined, Skipped:
		return ClassOK
	case Pending:
		return ClassUnfinished
	case Busy, Expired, TooOld, Skew, InCooldown, Denied, Held, WrongVersion, Duplicate:
		return ClassRefused
	}
	return ClassFailed
}

// Bounds of an ack, which comes from a machine that may be broken.
const (
	maxAckBytes     = 64 << 10
	maxDetail       = 600 // bytes
	maxJournalLines = 20
)

// DecodeAck reads a daemon's ack. It is lenient about fields it does not know,
// because a newer daemon may say more, and strict about whose ack it is. Text
// is made fit for chat. It never panics.
func DecodeAck(raw []byte) (Ack, error) {
	fields, r := scanObject(raw, maxAckBytes)
	if r != nil {
		return Ack{}, fmt.Errorf("decoding ack: %s", r.Detail)
	}
	var a Ack
	for _, f := range fields {
		if err := a.set(f); err != nil {
			return Ack{}, fmt.Errorf("decoding ack: %s: %w", clip(f.key, 40), err)
		}
	}
	i, err := fleet.ParseInstance(a.Instance)
	switch {
	case err != nil:
		return Ack{}, fmt.Errorf("decoding ack: %w", err)
	case i.String() != a.Instance: // web@h#01
		return Ack{}, fmt.Errorf("decoding ack: instance %q is not written as %q", a.Instance, i)
	case a.Phase != Accepted && a.Phase != Done && a.Phase != Refused:
		return Ack{}, fmt.Errorf("decoding ack of %s: unknown phase %q", a.Instance, clip(string(a.Phase), 40))
	case a.Status == "" || len(a.Status) > 40 || !printable(string(a.Status)):
		return Ack{}, errors.New("decoding ack of " + a.Instance + ": no sane status")
	}
	a.Host = i.Host
	a.Detail = oneLine(a.Detail, maxDetail)
	a.Reason = Reason(oneLine(string(a.Reason), maxLabel))
	a.Revision = oneLine(a.Revision, maxLabel)
	a.InvocationID = oneLine(a.InvocationID, maxLabel)
	a.TraceID = oneLine(a.TraceID, maxLabel)
	a.Version = oneLine(a.Version, maxLabel)
	if len(a.Journal) > maxJournalLines {
		a.Journal = a.Journal[len(a.Journal)-maxJournalLines:]
	}
	for n := range a.Journal {
		a.Journal[n] = oneLine(a.Journal[n], maxDetail)
	}
	return a, nil
}

// set decodes one field; an unknown one is ignored. It is written out, and not
// left to reflection, because a collector decodes two acks for each instance
// of a fleet while the operator waits.
func (a *Ack) set(f field) (err error) {
	var text *string
	switch f.key {
	case "id":
		text = &a.ID
	case "instance":
		text = &a.Instance
	case "phase":
		text = (*string)(&a.Phase)
	case "status":
		text = (*string)(&a.Status)
	case "detail":
		text = &a.Detail
	case "reason":
		text = (*string)(&a.Reason)
	case "revision":
		text = &a.Revision
	case "invocation_id":
		text = &a.InvocationID
	case "trace_id":
		text = &a.TraceID
	case "version":
		text = &a.Version
	case "at":
		a.At, err = decodeInt[fleet.Time](f.raw)
		return err
	case "journal":
		return json.Unmarshal(f.raw, &a.Journal)
	default: // host, too: the instance says it
		return nil
	}
	*text, err = decodeString(f.raw)
	return err
}

// oneLine makes s fit for a line of a chat or terminal: one line, no control
// characters, valid UTF-8, about n bytes.
func oneLine(s string, n int) string {
	if len(s) > n {
		s = clip(s, n)
	}
	if printable(s) && utf8.ValidString(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
