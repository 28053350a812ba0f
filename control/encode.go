package control

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sgfleet/sgfleet/fleet"
)

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
