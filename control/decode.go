package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/oklog/ulid/v2"

	"github.com/sgfleet/sgfleet/fleet"
)

// Bounds of an op's fields, in bytes.
const (
	maxLabel    = 128      // requested_by, trace_id
	maxTarget   = 12 << 10 // a retry names instances one by one
	maxRevision = 200
	maxReplyKey = 200
)

// maxGatewayWait bounds how far an op's gateway deadline may lie ahead: a
// gateway that waits for a publisher which is gone must come back some day.
// An hour is how long the release key lives.
const maxGatewayWait = ReplyLife

// Decode reads an op as it came over the channel. It never panics, whatever
// the bytes. The error is always a *[Reject]; where that is Answerable, the Op
// returned with it has id, target and auth, enough to answer.
//
// v1 is strict: a field it does not have is refused, for a daemon must not act
// on an op that says more than it understands; a change of fields is a new
// version. One field is let through and ignored: the reply key that ops to
// "all" and to single tiers carry for legacy peers. A v1 op never names its
// reply key, it is derived from the id.
//
// An object with none of v, id, issued_at and expires_at is of the original
// system's shape: Legacy is set, fields that are not known are ignored, and
// the id is derived from the bytes, so that all daemons give it the same. The
// same bytes have the same id for ever: guard a legacy op by its cooldown, not
// by its id.
func Decode(payload []byte, cfg *fleet.Config) (Op, error) {
	fields, r := scanObject(payload, MaxOpBytes)
	if r != nil {
		return Op{}, r
	}
	if !slices.ContainsFunc(fields, func(f field) bool { return slices.Contains(versionedFields, foldKey(f.key)) }) {
		op, r := decodeLegacy(payload, fields, cfg)
		if r != nil {
			return Op{}, r
		}
		return op, nil
	}
	op, r := decodeV1(fields, cfg)
	if r == nil {
		return op, nil
	}
	if r.Answerable() && validID(op.ID) && op.Target != "" {
		return op, r
	}
	return Op{}, r
}

// versionedFields are those that an op of the original's shape does not have.
var versionedFields = []string{"v", "id", "issued_at", "expires_at"}

// decodeV1 checks everything about a v1 op that does not depend on when and
// where it is received. What it has read is returned with a Reject, too.
func decodeV1(fields []field, cfg *fleet.Config) (Op, *Reject) {
	var op Op
	hasV, unknown := false, ""
	for _, f := range fields {
		var err error
		switch f.key {
		case "v":
			hasV = true
			op.V, err = decodeInt[int](f.raw)
		case "id":
			op.ID, err = decodeString(f.raw)
		case "op":
			op.Op, err = decodeString(f.raw)
		case "target":
			op.Target, err = decodeString(f.raw)
		case "requested_by":
			op.RequestedBy, err = decodeString(f.raw)
		case "trace_id":
			op.TraceID, err = decodeString(f.raw)
		case "issued_at":
			op.IssuedAt, err = decodeInt[fleet.Time](f.raw)
		case "expires_at":
			op.ExpiresAt, err = decodeInt[fleet.Time](f.raw)
		case "args":
			err = decodeArgs(f.raw, &op.Args, &unknown)
		case "auth":
			if f.raw[0] != '{' {
				err = errors.New("want an object")
			}
			op.Auth = bytes.Clone(f.raw)
		case cfg.Legacy.ReplyField: // for legacy peers; ours is derived
		default:
			if unknown == "" {
				unknown = f.key
			}
		}
		if err != nil {
			return Op{}, &Reject{RejectShape, fmt.Sprintf("%s: %v", f.key, err)}
		}
	}
	if !hasV {
		return Op{}, &Reject{RejectShape, "v is missing"}
	}
	return op, checkV1(&op, unknown)
}

func checkV1(op *Op, unknown string) *Reject {
	if r := checkCommon(op); r != nil {
		return r
	}
	_, known := opSpecs[op.Op]
	switch {
	case op.V != Version: // N−1 is the original's shape, which has no v
		return &Reject{RejectVersion, fmt.Sprintf("op of version %d, this daemon understands %d", op.V, Version)}
	case unknown != "":
		return &Reject{RejectUnknownField, fmt.Sprintf("op has the field %q, which version %d does not", clip(unknown, 40), Version)}
	case !validID(op.ID):
		return &Reject{RejectID, fmt.Sprintf("id %q is not a ULID (26 characters)", clip(op.ID, 40))}
	case !known:
		return unknownOp(op.Op)
	case op.IssuedAt <= 0 || op.ExpiresAt <= op.IssuedAt:
		return &Reject{RejectTime, "issued_at and expires_at must be set, in this order"}
	case op.ExpiresAt.Sub(op.IssuedAt) > MaxOpLife || op.ExpiresAt-op.IssuedAt > fleet.Time(MaxOpLife.Microseconds()):
		return &Reject{RejectTime, fmt.Sprintf("op lives for more than %v", MaxOpLife)}
	}
	gd := op.Args.GatewayDeadline
	if gd != 0 && (gd < op.IssuedAt || gd-op.IssuedAt > fleet.Time(maxGatewayWait.Microseconds())) {
		return &Reject{RejectTime, fmt.Sprintf("gateway_deadline is not within %v of issued_at", maxGatewayWait)}
	}
	return nil
}

// checkCommon checks the text fields, which end up in chats, logs and keys.
func checkCommon(op *Op) *Reject {
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"op", op.Op, maxLabel},
		{"target", op.Target, maxTarget},
		{"requested_by", op.RequestedBy, maxLabel},
		{"trace_id", op.TraceID, maxLabel},
		{"args.revision", op.Args.Revision, maxRevision},
	} {
		if len(f.value) > f.limit {
			return &Reject{RejectField, fmt.Sprintf("%s is longer than %d bytes", f.name, f.limit)}
		}
		if !printable(f.value) {
			return &Reject{RejectField, f.name + " holds a control character"}
		}
	}
	if strings.TrimSpace(op.Target) == "" {
		return &Reject{RejectField, "target is empty, which never means all"}
	}
	if op.Args.Last != "" {
		if _, err := fleet.ParseInstance(op.Args.Last); err != nil {
			return &Reject{RejectField, "args.last: " + err.Error()}
		}
	}
	if rev := op.Args.Revision; rev != "" && !validRevision(rev) {
		return &Reject{RejectField, fmt.Sprintf("args.revision %q is not a commit or ref name", clip(rev, 40))}
	}
	return nil
}

func unknownOp(name string) *Reject {
	return &Reject{RejectUnknownOp, fmt.Sprintf("unknown op %q; known: %s", clip(name, 40), strings.Join(OpNames(), ", "))}
}

// decodeLegacy reads an op of the original system's shape.
func decodeLegacy(payload []byte, fields []field, cfg *fleet.Config) (Op, *Reject) {
	op := Op{Legacy: true}
	for _, f := range fields {
		var err error
		switch f.key {
		case "op":
			op.Op, err = decodeString(f.raw)
		case "target":
			op.Target, err = decodeString(f.raw)
		case "requested_by":
			op.RequestedBy, err = decodeString(f.raw)
		case "trace_id":
			op.TraceID, err = decodeString(f.raw)
		case "auth":
			op.Auth = bytes.Clone(f.raw)
		case cfg.Legacy.ReplyField:
			op.ReplyKey, err = decodeString(f.raw)
		}
		if err != nil {
			return Op{}, &Reject{RejectShape, fmt.Sprintf("%s: %v", f.key, err)}
		}
	}
	if op.Op == "" {
		return Op{}, &Reject{RejectShape, "op is missing"}
	}
	if r := checkCommon(&op); r != nil {
		return Op{}, r
	}
	if _, known := opSpecs[op.Op]; !known {
		return Op{}, unknownOp(op.Op)
	}
	if op.ReplyKey != "" && !validReplyKey(op.ReplyKey, cfg.Keys().ReplyPrefix()) {
		return Op{}, &Reject{RejectReplyKey, fmt.Sprintf("reply key %q is not below %q", clip(op.ReplyKey, 60), cfg.Keys().ReplyPrefix())}
	}
	op.ID = legacyID(payload)
	return op, nil
}

// legacyID derives an id of ULID form from the bytes of an op without one.
func legacyID(payload []byte) string {
	sum := sha256.Sum256(payload)
	return ulid.ULID(sum[:16]).String()
}

// validReplyKey keeps a legacy op from making daemons write to any key but a
// reply list.
func validReplyKey(key, prefix string) bool {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok || rest == "" || len(key) > maxReplyKey {
		return false
	}
	for _, c := range []byte(rest) {
		if !nameByte(c) && c != ':' {
			return false
		}
	}
	return true
}

// validID reports whether id is a ULID as [Op] writes it: 26 upper-case
// characters of Crockford's base 32, the first at most 7.
func validID(id string) bool {
	if len(id) != OpIDLength || id[0] > '7' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z') || c == 'I' || c == 'L' || c == 'O' || c == 'U' {
			return false
		}
	}
	return true
}

// validRevision accepts a commit id or a ref name, nothing that git could take
// for an option or a range.
func validRevision(rev string) bool {
	if rev[0] == '-' || rev[0] == '.' || rev[0] == '/' || strings.Contains(rev, "..") || len(rev) > maxRevision {
		return false
	}
	for _, c := range []byte(rev) {
		if !nameByte(c) && c != '/' && c != '+' {
			return false
		}
	}
	return true
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// printable reports whether s holds neither control nor format characters:
// what it names is shown on terminals and in chats, where those reorder or
// hide text.
func printable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return !strings.ContainsFunc(s, func(r rune) bool {
				return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
			})
		}
	}
	return true
}

func decodeString(raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", errors.New("want a string")
	}
	return unquote(raw), nil
}

func decodeInt[T ~int | ~int64](raw []byte) (T, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, errors.New("want a whole number")
	}
	return T(n), nil
}

// decodeArgs reads the args object; the first field that it does not know goes
// to unknown.
func decodeArgs(raw []byte, args *Args, unknown *string) error {
	if raw[0] != '{' {
		return errors.New("want an object")
	}
	if string(raw) == "{}" {
		return nil
	}
	fields, r := scanObject(raw, MaxOpBytes)
	if r != nil {
		return r
	}
	for _, f := range fields {
		var err error
		switch f.key {
		case "gateway_deadline":
			args.GatewayDeadline, err = decodeInt[fleet.Time](f.raw)
		case "revision":
			args.Revision, err = decodeString(f.raw)
		case "backward":
			args.Backward, err = decodeBool(f.raw)
		case "include_failed":
			args.IncludeFailed, err = decodeBool(f.raw)
		case "last":
			args.Last, err = decodeString(f.raw)
		default:
			if *unknown == "" {
				*unknown = "args." + f.key
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return nil
}

func decodeBool(raw []byte) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("want true or false")
}

// Encode writes op as it goes over the channel. With ReplyField set, the reply
// key is written under that name as well, for legacy peers.
func (op Op) Encode() ([]byte, error) {
	b, err := json.Marshal(op)
	if err != nil {
		return nil, fmt.Errorf("encoding op %s: %w", op.ID, err)
	}
	if op.ReplyField != "" {
		name, _ := json.Marshal(op.ReplyField) // strings always encode
		key, _ := json.Marshal(op.ReplyKey)
		b = slices.Concat(b[:len(b)-1], []byte(","), name, []byte(":"), key, []byte("}"))
	}
	if len(b) > MaxOpBytes {
		return nil, fmt.Errorf("encoding op %s: %d bytes, the limit is %d: name a tier or use a * glob instead of a long list", op.ID, len(b), MaxOpBytes)
	}
	return b, nil
}

// newID makes an op id from Redis time and a random token.
func newID(at fleet.Time, token string) string {
	sum := sha256.Sum256([]byte(token))
	var id ulid.ULID
	_ = id.SetTime(uint64(at) / uint64(time.Millisecond/time.Microsecond)) // fails from the year 10889
	_ = id.SetEntropy(sum[:10])
	return id.String()
}
