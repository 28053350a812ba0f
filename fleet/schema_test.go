package fleet

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Every key of the config is in the schema, described, and nothing else is
// allowed.
func TestConfigSchema(t *testing.T) {
	b, err := ConfigSchema()
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Ref                  string          `json:"$ref"`
		Description          string          `json:"description"`
		Properties           map[string]node `json:"properties"`
		AdditionalProperties json.RawMessage `json:"additionalProperties"`
		Required             []string        `json:"required"`
		Defs                 map[string]node `json:"$defs"`
	}
	var schema node
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	check := func(typ reflect.Type, n node) {
		if string(n.AdditionalProperties) != "false" || len(n.Required) > 0 {
			t.Errorf("%s: additionalProperties %s, required %v", typ, n.AdditionalProperties, n.Required)
		}
		for i := range typ.NumField() {
			key := fieldName(typ.Field(i))
			p, ok := n.Properties[key]
			if !ok {
				t.Errorf("%s: the schema lacks %s", typ, key)
			}
			if p.Description == "" && p.Ref == "" && key != "name" && key != "master_name" && key != "allowed_signers" {
				t.Errorf("%s: %s has no description", typ, key)
			}
		}
	}
	check(reflect.TypeFor[Config](), schema)
	for _, typ := range []reflect.Type{
		reflect.TypeFor[RedisConfig](), reflect.TypeFor[Tier](), reflect.TypeFor[Service](), reflect.TypeFor[Checkout](),
		reflect.TypeFor[SigningConfig](), reflect.TypeFor[LegacyConfig](), reflect.TypeFor[GitConfig](), reflect.TypeFor[MetricsConfig](),
	} {
		check(typ, schema.Defs[typ.Name()])
	}
	if got := schema.Properties["op_life"].Description; got != "default 30 s, at most 120 s" {
		t.Errorf("op_life is described as %q", got)
	}
}
