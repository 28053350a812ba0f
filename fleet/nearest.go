package fleet

import (
	"slices"
	"strings"
)

// Nearest returns the known name that word was most likely meant to be: the
// one at the smallest edit distance (a transposition counts one), or the one
// that word begins. It returns "" when nothing is near enough to be worth
// asking about.
func Nearest(word string, known []string) string {
	w := strings.ToLower(word)
	best, bestDistance := "", 0
	for _, k := range slices.Sorted(slices.Values(known)) {
		l := strings.ToLower(k)
		d := editDistance(w, l)
		if len(w) >= 2 && strings.HasPrefix(l, w) {
			d = min(d, 1) // half-typed
		}
		// A third of the word may be wrong: "wbe" is web, "xyz" is nothing.
		if d > 1+max(len(w), len(l))/4 || d >= len(l) {
			continue
		}
		if best == "" || d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// DidYouMean returns a hint to append to "unknown …": the nearest known name,
// else the known names when they are few, else "".
func DidYouMean(word string, known []string) string {
	if n := Nearest(word, known); n != "" {
		return "did you mean " + n + "?"
	}
	names := slices.Compact(slices.Sorted(slices.Values(known)))
	if len(names) == 0 || len(names) > 12 {
		return ""
	}
	return "known: " + strings.Join(names, ", ")
}

// editDistance is the optimal string alignment distance in bytes: insertions,
// deletions, substitutions and swaps of neighbours cost one each.
func editDistance(a, b string) int {
	if len(a) > MaxName*4 || len(b) > MaxName*4 {
		return len(a) + len(b) // no name is that long: do not spend time on it
	}
	before := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}

// glob reports whether s matches pattern, in which * stands for any run of
// characters and everything else for itself.
func glob(pattern, s string) bool {
	for {
		star := strings.IndexByte(pattern, '*')
		if star < 0 {
			return pattern == s
		}
		if !strings.HasPrefix(s, pattern[:star]) {
			return false
		}
		s, pattern = s[star:], pattern[star+1:]
		next, _, more := strings.Cut(pattern, "*")
		if !more {
			return strings.HasSuffix(s, next)
		}
		at := strings.Index(s, next)
		if at < 0 {
			return false
		}
		// The leftmost place is always good enough: a later star can still
		// swallow whatever follows.
		s = s[at:]
	}
}
