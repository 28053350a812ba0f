package sim

import (
	"embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/sgfleet/sgfleet/fleet"
)

// The documentation of a scenario file is the comments of the structs that it
// decodes into, so that there is one text to keep true.
//
//go:embed scenario.go plan.go action.go expect.go count.go event_*.go expect_*.go
var schemaSources embed.FS

// Schema returns the JSON Schema of scenario files, for editors to check and
// complete them.
func Schema() ([]byte, error) {
	docs, err := schemaDocs()
	if err != nil {
		return nil, fmt.Errorf("reading the documentation of scenarios: %w", err)
	}
	b := &schemaBuilder{docs: docs}
	config, err := fleet.ConfigSchema()
	if err != nil {
		return nil, err
	}
	b.config = &jsonschema.Schema{}
	if err := json.Unmarshal(config, b.config); err != nil {
		return nil, fmt.Errorf("reading the config's schema: %w", err)
	}
	b.config.Version, b.config.ID = "", ""
	s := b.reflect(&Scenario{})
	s.Version = jsonschema.Version
	s.Title = "A scenario of sgsim"
	s.Required = []string{"sgsim", "name", "fleet"}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return append(out, '\n'), nil
}

type schemaBuilder struct {
	docs   map[string]string // Type.Field → comment
	config *jsonschema.Schema
}

// reflect returns the schema of what v points to.
func (b *schemaBuilder) reflect(v any) *jsonschema.Schema {
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, DoNotReference: true, Anonymous: true, Mapper: b.mapper,
		LookupComment: func(t reflect.Type, field string) string { return b.docs[t.Name()+"."+field] },
	}
	s := r.Reflect(v)
	s.Version = ""
	return s
}

const timePattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0s?$`

// mapper gives the types with a notation of their own.
func (b *schemaBuilder) mapper(t reflect.Type) *jsonschema.Schema {
	str := func(pattern string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
	switch t {
	case reflect.TypeFor[fleet.Duration]():
		return str(timePattern)
	case reflect.TypeFor[*fleet.Config](), reflect.TypeFor[fleet.Config]():
		return b.config
	case reflect.TypeFor[Percent]():
		return str(`^[0-9]+(\.[0-9]+)?\s*%?$`)
	case reflect.TypeFor[Pick]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{str(`^(one|all|[0-9]+(\.[0-9]+)?%)$`), {Type: "integer", Minimum: "1"}}}
	case reflect.TypeFor[Seeds]():
		return b.seeds()
	case reflect.TypeFor[Entry]():
		return b.entry()
	case reflect.TypeFor[Expectation]():
		return b.expectation()
	}
	return nil
}

func (b *schemaBuilder) seeds() *jsonschema.Schema {
	p := jsonschema.NewProperties()
	p.Set("from", &jsonschema.Schema{Type: "integer"})
	p.Set("count", &jsonschema.Schema{Type: "integer", Minimum: "1"})
	p.Set("stop_on_first", &jsonschema.Schema{Type: "boolean"})
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "array", Items: &jsonschema.Schema{Type: "integer"}, MinItems: new(uint64(1))},
		{Type: "object", Properties: p, AdditionalProperties: jsonschema.FalseSchema},
	}}
}

// entry is a timeline's: when, and one of the registered actions.
func (b *schemaBuilder) entry() *jsonschema.Schema {
	p := jsonschema.NewProperties()
	p.Set("at", &jsonschema.Schema{Type: "string", Pattern: timePattern, Description: "since the start of the run"})
	p.Set("after", &jsonschema.Schema{Type: "string", Pattern: timePattern, Description: "since the entry before this one"})
	p.Set("every", &jsonschema.Schema{Type: "string", Pattern: timePattern, Description: "again and again"})
	for _, a := range Actions() {
		s := b.orScalar(a.New())
		s.Description = a.Summary + ". Example: " + a.Name + ": " + a.Example
		p.Set(a.Name, s)
	}
	// When, and one action: exactly two keys.
	return &jsonschema.Schema{Type: "object", Properties: p, AdditionalProperties: jsonschema.FalseSchema, MinProperties: new(uint64(2)), MaxProperties: new(uint64(2))}
}

func (b *schemaBuilder) expectation() *jsonschema.Schema {
	p := jsonschema.NewProperties()
	var names []any
	for _, i := range Invariants() {
		names = append(names, i.Name)
		s := b.reflect(&opArgs{})
		s.Description = i.Help
		p.Set(i.Name, s)
	}
	for _, e := range Expectations() {
		s := b.orScalar(e.New())
		s.Description = e.Help + ". Example: " + e.Example
		p.Set(e.Name, s)
	}
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "string", Enum: names},
		{Type: "object", Properties: p, AdditionalProperties: jsonschema.FalseSchema, MinProperties: new(uint64(1)), MaxProperties: new(uint64(1))},
	}}
}

// orScalar also allows the plain value of a field with the scalar option.
func (b *schemaBuilder) orScalar(v any) *jsonschema.Schema {
	s := b.reflect(v)
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		if !strings.Contains(t.Field(i).Tag.Get("yaml"), ",scalar") {
			continue
		}
		plain := &jsonschema.Schema{Type: "string"}
		if t.Field(i).Type.Kind() == reflect.Int {
			plain.Type = "integer"
		}
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{plain, s}}
	}
	return s
}

// schemaDocs returns the comments of the embedded sources' structs: Type.Field
// → text, and Type. → the type's own.
func schemaDocs() (map[string]string, error) {
	docs := map[string]string{}
	files, err := schemaSources.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		src, err := schemaSources.ReadFile(f.Name())
		if err != nil {
			return nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				return false
			}
			for _, field := range st.Fields.List {
				for _, name := range field.Names {
					docs[spec.Name.Name+"."+name.Name] = commentText(field.Doc, field.Comment)
				}
			}
			return false
		})
	}
	return docs, nil
}

func commentText(groups ...*ast.CommentGroup) string {
	for _, g := range groups {
		if s := strings.Join(strings.Fields(g.Text()), " "); s != "" {
			return s
		}
	}
	return ""
}
