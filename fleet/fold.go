package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold shortens a list of names by writing numbers that follow each other as
// ranges: h1, h2, h3, h7 become h[1-3,7]. Names that differ in more than their
// last number stay apart, and so do h1 and h01. The result is sorted; duplicates
// are dropped. [ParseTarget] reads folded names.
func Fold(names []string) []string {
	type key struct {
		prefix, suffix string
		width          int // digits when zero-padded, else 0
	}
	type split struct {
		prefix, digits, suffix string
	}
	padded := map[key]bool{} // a name of this width is written with leading zeros
	var splits []split
	var out []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		prefix, digits, suffix := lastNumber(name)
		if digits == "" {
			out = append(out, name)
			continue
		}
		splits = append(splits, split{prefix, digits, suffix})
		if digits[0] == '0' && len(digits) > 1 {
			padded[key{prefix, suffix, len(digits)}] = true
		}
	}
	groups := map[key][]int{}
	for _, s := range splits {
		k := key{s.prefix, s.suffix, len(s.digits)}
		if !padded[k] {
			k.width = 0
		}
		n, _ := strconv.Atoi(s.digits)
		groups[k] = append(groups[k], n)
	}
	for k, numbers := range groups {
		slices.Sort(numbers)
		out = append(out, k.prefix+ranges(numbers, k.width)+k.suffix)
	}
	slices.Sort(out)
	return out
}

// ranges writes sorted numbers as [1-3,7], a single one without brackets.
func ranges(numbers []int, width int) string {
	format := func(n int) string { return fmt.Sprintf("%0*d", width, n) }
	if len(numbers) == 1 {
		return format(numbers[0])
	}
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := format(numbers[i])
		switch {
		case j == i+1:
			part += "," + format(numbers[j])
		case j > i:
			part += "-" + format(numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// lastNumber splits a name around its last run of digits. A run of more than
// nine digits is a serial number, not a count, and stays text.
func lastNumber(name string) (prefix, digits, suffix string) {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	end := len(name)
	for end > 0 && !digit(name[end-1]) {
		end--
	}
	start := end
	for start > 0 && digit(name[start-1]) {
		start--
	}
	if start == end || end-start > 9 {
		return name, "", ""
	}
	return name[:start], name[start:end], name[end:]
}

// FoldInstances folds the hosts of instances of one service and index:
// inference@h[1-4,7]. The order is by service, then index.
func FoldInstances(instances []Instance) []string {
	type key struct {
		service string
		n       int
	}
	hosts := map[key][]string{}
	for _, i := range instances {
		k := key{i.Service, i.N}
		hosts[k] = append(hosts[k], i.Host)
	}
	keys := make([]key, 0, len(hosts))
	for k := range hosts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmpInstance(Instance{Service: a.service, N: a.n}, Instance{Service: b.service, N: b.n})
	})
	var out []string
	for _, k := range keys {
		for _, h := range Fold(hosts[k]) {
			out = append(out, Instance{Service: k.service, Host: h, N: k.n}.String())
		}
	}
	return out
}

// expand is the inverse of Fold for one word: each [1-3,7] in it is replaced
// by each of its numbers. More than limit results are an error.
func expand(word string, limit int) ([]string, error) {
	before, rest, ok := strings.Cut(word, "[")
	if !ok {
		if strings.Contains(word, "]") {
			return nil, fmt.Errorf("%q: the ] has no [ before it", word)
		}
		if limit < 1 {
			return nil, fmt.Errorf("unfolds to more than %d names", maxTargetTerms)
		}
		return []string{word}, nil
	}
	list, after, ok := strings.Cut(rest, "]")
	if !ok {
		return nil, fmt.Errorf("%q: the [ is not closed by a ]", word)
	}
	if len(before) > 3*MaxName {
		return nil, fmt.Errorf("%.80q… is too long for a name", word)
	}
	tails, err := expand(after, limit)
	if err != nil {
		return nil, err
	}
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		lo, okLo := parseDigits(first)
		hi, okHi := parseDigits(last)
		width := 0
		if len(first) > 1 && first[0] == '0' {
			width = len(first)
		}
		if !okLo || !okHi || hi < lo || width > 0 && len(last) != width || width == 0 && len(last) > 1 && last[0] == '0' {
			return nil, fmt.Errorf("%q: [%s] is not a list of numbers and ranges such as [1-4,7] or [01-12]", word, list)
		}
		if (hi-lo+1)*len(tails)+len(out) > limit {
			return nil, fmt.Errorf("%q: unfolds to more than %d names", word, maxTargetTerms)
		}
		for n := lo; n <= hi; n++ {
			for _, tail := range tails {
				out = append(out, fmt.Sprintf("%s%0*d%s", before, width, n, tail))
			}
		}
	}
	return out, nil
}

// splitList splits at commas that do not stand in brackets.
func splitList(s string) []string {
	var out []string
	depth, start := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth <= 0 {
				out = append(out, s[start:i])
				start = i + 1
			}
		}
	}
	return append(out, s[start:])
}

// parseDigits reads one to nine decimal digits and nothing else.
func parseDigits(s string) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// parseIndex reads the index of an instance: a number from 1, written in the
// one way that [Instance.String] writes it.
func parseIndex(s string) (int, bool) {
	n, ok := parseDigits(s)
	return n, ok && n > 0 && s[0] != '0'
}
