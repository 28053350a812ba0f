package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEventKinds: what a scenario may name as "event KIND" is every constant
// that trace.go declares.
func TestEventKinds(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "trace.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Ev") {
			kind, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			declared = append(declared, kind)
		}
		return true
	})
	if !slices.Equal(declared, eventKinds) || len(declared) == 0 {
		t.Errorf("declared %q\nlisted   %q", declared, eventKinds)
	}
}
