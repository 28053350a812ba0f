package sim

type subscribedArgs struct {
	All string `yaml:"all,scalar" json:"all" jsonschema:"required,enum=all_live"`
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "subscribed", Help: "at the end every daemon that is up is subscribed",
		Example: "subscribed: all_live", Finally: true,
		New: func() any { return new(subscribedArgs) },
		Judge: func(r *Record, _ any) Finding {
			var f Finding
			for i, e := range r.Events {
				if e.Kind != EvState || e.Attr("daemon") != "up" {
					continue
				}
				f.Armed++
				if e.Attr("subscribed") != "true" {
					f.violate(r.seqs(i), "the daemon %s of %s is up and still deaf at the end", e.Attr("process"), e.Instance)
				}
			}
			return f
		},
	})
}
