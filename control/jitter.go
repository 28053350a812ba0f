package control

import (
	"hash/fnv"
	"strconv"
	"time"
)

// hashDuration maps parts to a duration below limit, evenly, at nanosecond
// grain, and always the same. It is what stands in for randomness: instances
// spread out, and a run can be repeated.
func hashDuration(limit time.Duration, parts ...string) time.Duration {
	if limit <= 0 {
		return 0
	}
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	// FNV's low bits differ little between names that differ in their last
	// characters; a multiplication and a shift (splitmix64) spread them.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return time.Duration(x % uint64(limit))
}

// backoff is how long to wait before attempt n (from 0) of what name does:
// doubling from first to most, the upper half of it spread by name and ordinal.
func backoff(first, most time.Duration, n int, name string, ordinal int) time.Duration {
	d := most
	if n < 16 && first<<n < most {
		d = first << n
	}
	return d/2 + hashDuration(d/2+1, name, strconv.Itoa(ordinal))
}
