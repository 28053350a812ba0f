package sim

// ChaosFaults names the faults that chaos can draw.
func ChaosFaults() []string { return nil }
