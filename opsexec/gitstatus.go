package opsexec

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// gitStatus is what "git status" says of a checkout.
type gitStatus struct {
	head     string   // commit
	branch   string   // "" when detached
	upstream string   // remote/branch, "" when there is none
	changed  []string // tracked files that differ from the commit
}

// status reads the state of the checkout. Untracked files are no hindrance, and
// submodules are not ours to move.
func (g git) status(ctx context.Context) (gitStatus, error) {
	res, err := g.run(ctx, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=all")
	if err != nil {
		return gitStatus{}, err
	}
	return parseStatus(res.Output)
}

// parseStatus parses git-status(1)'s porcelain format version 2 with -z.
// Warnings, which git writes to the same stream, may stand before an entry.
func parseStatus(out string) (gitStatus, error) {
	var s gitStatus
	entries := strings.Split(out, "\x00")
	for i := 0; i < len(entries); i++ {
		e := skipWarnings(entries[i])
		if h, ok := strings.CutPrefix(e, "# branch."); ok {
			key, value, _ := strings.Cut(h, " ")
			switch key {
			case "oid":
				s.head = value
			case "head":
				s.branch = value
			case "upstream":
				s.upstream = value
			}
			continue
		}
		fields := map[byte]int{'1': 9, 'u': 11, '2': 10} // the path comes last
		if len(e) < 2 || e[1] != ' ' {
			continue
		}
		f := strings.SplitN(e, " ", fields[e[0]])
		if n := fields[e[0]]; n > 0 && len(f) == n {
			s.changed = append(s.changed, f[n-1])
			if e[0] == '2' {
				i++ // the path it was renamed from
			}
		}
	}
	if s.branch == "(detached)" {
		s.branch = ""
	}
	switch {
	case s.head == "(initial)":
		return s, errors.New("the checkout has no commit yet")
	case !objectName.MatchString(s.head):
		return s, fmt.Errorf("git status: no revision in its answer: %s", excerpt(out))
	}
	return s, nil
}

func skipWarnings(entry string) string {
	for strings.HasPrefix(entry, "warning: ") || strings.HasPrefix(entry, "hint: ") {
		_, rest, ok := strings.Cut(entry, "\n")
		if !ok {
			return ""
		}
		entry = rest
	}
	return entry
}

// dirtyError refuses a tree with local changes, naming the files.
func (s gitStatus) dirtyError(dir string) error {
	const most = 5
	names := s.changed
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return fmt.Errorf("refused: %s has local changes, commit or undo them (git -C %s status): %s%s",
		dir, dir, strings.Join(names, ", "), more)
}
