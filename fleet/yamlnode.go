package fleet

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func mappingPairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch x := n.(type) {
	case *ast.MappingNode:
		return x.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{x}, true
	}
	return nil, false
}

func keyText(p *ast.MappingValueNode) string {
	var key ast.Node = p.Key
	if k, ok := key.(*ast.MappingKeyNode); ok { // "? key"
		key = k.Value
	}
	if text, ok := scalarText(key); ok {
		return text
	}
	return strings.TrimSpace(p.Key.GetToken().Value)
}

// scalarText returns the text of a scalar: numbers as they are written, so that
// 1.10 stays 1.10.
func scalarText(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return strings.TrimSpace(n.GetToken().Value), true
	}
	return "", false
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	}
	text, _ := scalarText(n)
	return strconv.Quote(printable(text))
}
