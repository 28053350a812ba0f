package fleet

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
)

// The config's documentation is the comments of its struct: the schema takes
// them from there, so that there is one text to keep true.
//
//go:embed config.go
var configSource string

// ConfigSchema returns the JSON Schema of the config file, for editors to
// check and complete it.
func ConfigSchema() ([]byte, error) {
	docs, err := fieldDocs(configSource)
	if err != nil {
		return nil, fmt.Errorf("reading the config's documentation: %w", err)
	}
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true,
		Mapper: durationSchema,
		LookupComment: func(t reflect.Type, field string) string {
			return docs[t.Name()+"."+field]
		},
	}
	s := r.Reflect(&Config{})
	s.Title = "sgfleet's config"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return b, nil
}

func durationSchema(t reflect.Type) *jsonschema.Schema {
	// As time.ParseDuration reads it.
	const pattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`
	switch t {
	case reflect.TypeFor[Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: pattern}
	case reflect.TypeFor[Seconds]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string", Pattern: pattern}, {Type: "number"}}}
	}
	return nil
}

// fieldDocs returns the comments of a Go file's structs: Type.Field → text,
// and Type. → the type's own.
func fieldDocs(source string) (map[string]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	text := func(groups ...*ast.CommentGroup) string {
		for _, g := range groups {
			if s := strings.Join(strings.Fields(g.Text()), " "); s != "" {
				return s
			}
		}
		return ""
	}
	for _, decl := range f.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		for _, spec := range gen.Specs {
			ts := spec.(*ast.TypeSpec)
			docs[ts.Name.Name+"."] = text(ts.Doc, gen.Doc)
			st, ok := ts.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range st.Fields.List {
				for _, name := range field.Names {
					docs[ts.Name.Name+"."+name.Name] = text(field.Doc, field.Comment)
				}
			}
		}
	}
	return docs, nil
}
