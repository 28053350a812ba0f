package sim

type aliveArgs struct {
	What string `yaml:"what,scalar" json:"what" jsonschema:"required,enum=daemons"`
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "alive", Help: "no daemon ended by itself: every end of a process is a fault of the scenario, a stop or its own restart",
		Example: "alive: daemons", Always: true,
		New: func() any { return new(aliveArgs) },
		Judge: func(r *Record, _ any) Finding {
			var f Finding
			for i, e := range r.Events {
				switch e.Kind {
				case EvBoot:
					f.Armed++
				case EvExit:
					if msg := e.Attr("error"); msg != "" {
						f.violate(r.seqs(i), "the daemon %s ended: %s", e.Actor, msg)
					}
				}
			}
			return f
		},
	})
}
