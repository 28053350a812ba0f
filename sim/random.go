package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// stream returns a random stream of its own for the thing that names name, so
// that what one part of the world draws never shifts what another draws.
func stream(seed int64, name ...string) *rand.Rand {
	h := sha256.New()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(seed))
	h.Write(b[:])
	for _, s := range name {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	sum := h.Sum(nil)
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])))
}

// shared makes a stream one that goroutines of a process may draw from, each at
// its own instant.
func shared(r *rand.Rand) *rand.Rand { return rand.New(&lockedSource{src: r}) }

type lockedSource struct {
	mu  sync.Mutex
	src rand.Source
}

func (s *lockedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src.Uint64()
}

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// draw takes one duration from the model.
func (m Dist) draw(r *rand.Rand) time.Duration {
	if len(m.Uniform) == 2 {
		lo, hi := m.Uniform[0].D(), m.Uniform[1].D()
		return lo + time.Duration(r.Float64()*float64(hi-lo))
	}
	n := r.NormFloat64() // drawn always: a changed model does not shift the stream
	if m.P99 <= m.P50 || m.P50 <= 0 {
		return m.P50.D()
	}
	// Beyond the 99.99th percentile a draw would say more about the shape of
	// the distribution than about the fleet.
	n = max(-3.7, min(3.7, n))
	return time.Duration(float64(m.P50) * math.Exp(math.Log(float64(m.P99)/float64(m.P50))/z99*n))
}

// fails says whether one attempt fails.
func (m Dist) fails(r *rand.Rand) bool { return r.Float64() < float64(m.Fail) }
