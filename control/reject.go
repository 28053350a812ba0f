package control

// RejectReason says at which step an op was refused. Each has a counter of its
// own in the daemon's metrics.
type RejectReason string

// The reasons found while decoding, in the order in which they are looked for.
const (
	RejectTooLarge     RejectReason = "too_large"     // more than MaxOpBytes
	RejectUTF8         RejectReason = "utf8"          // not valid UTF-8
	RejectMalformed    RejectReason = "malformed"     // not exactly one JSON object
	RejectDepth        RejectReason = "depth"         // nested deeper than MaxOpDepth
	RejectDuplicateKey RejectReason = "duplicate_key" // one key twice, in any letter case
	RejectShape        RejectReason = "shape"         // neither a v1 op nor a legacy one, or a field of the wrong type
	RejectVersion      RejectReason = "version"       // v is neither N nor N−1
	RejectUnknownField RejectReason = "unknown_field" // a field v1 does not have
	RejectID           RejectReason = "id"            // id is no ULID
	RejectField        RejectReason = "field"         // too long, a control character, out of range
	RejectUnknownOp    RejectReason = "unknown_op"    // not in the table of ops
	RejectTime         RejectReason = "time"          // times missing, in the wrong order, too far ahead, or a life over MaxOpLife
	RejectReplyKey     RejectReason = "reply_key"     // a legacy op's reply key is not below the reply prefix
)

// The reasons found by the later steps of the daemon's order of decisions.
const (
	RejectSignature RejectReason = "signature" // bad, missing where enforced, or by an unknown key
	RejectPolicy    RejectReason = "policy"    // the key may not send this op to this target
	RejectSkew      RejectReason = "skew"      // signed time against the host's clock
	RejectTarget    RejectReason = "target"    // the target does not parse
	RejectHeld      RejectReason = "held"      // a hold covers the instance
	RejectExpired   RejectReason = "expired"   // after expires_at
	RejectTooOld    RejectReason = "too_old"   // issued before this subscription began
	RejectDuplicate RejectReason = "duplicate" // seen before
	RejectGuard     RejectReason = "guard"     // the replay guard could not be asked: do not act
	RejectCooldown  RejectReason = "cooldown"  // the same op on the same unit a moment ago
	RejectAck       RejectReason = "ack"       // the accepted ack was not confirmed by Redis
	RejectBusy      RejectReason = "busy"      // the queue is full, or the daemon is stopping
)

// RejectReasons lists every reason, so that each counter exists from the start.
var RejectReasons = []RejectReason{
	RejectTooLarge, RejectUTF8, RejectMalformed, RejectDepth, RejectDuplicateKey, RejectShape, RejectVersion,
	RejectUnknownField, RejectID, RejectField, RejectUnknownOp, RejectTime, RejectReplyKey,
	RejectSignature, RejectPolicy, RejectSkew, RejectTarget, RejectHeld, RejectExpired, RejectTooOld,
	RejectDuplicate, RejectGuard, RejectCooldown, RejectAck, RejectBusy,
}

// Reject is why an op was refused.
type Reject struct {
	Reason RejectReason
	Detail string // one line, fit for chat: what was wrong
}

func (r *Reject) Error() string { return "refusing op (" + string(r.Reason) + "): " + r.Detail }

// Answerable reports whether the op's sender can be told: the op decoded far
// enough to have an id and a target of its own, and the refusal is about what
// it asks for. [Decode] then returns both with the error. Whether it *may* be
// told is another matter (an unsigned op is never answered where signatures
// are enforced).
func (r *Reject) Answerable() bool {
	return r.Reason == RejectVersion || r.Reason == RejectUnknownOp || r.Reason == RejectUnknownField
}
