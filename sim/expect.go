package sim

// Expect is what a scenario expects of every run.
type Expect struct {
	Always     []Expectation       `yaml:"always" json:"always"`         // safety: broken is exit 1
	Finally    []Expectation       `yaml:"finally" json:"finally"`       // liveness, at the end: broken is exit 2
	Sometimes  []string            `yaml:"sometimes" json:"sometimes"`   // must happen in at least one seed, else exit 3
	Thresholds map[string][]string `yaml:"thresholds" json:"thresholds"` // metric → "p(99)<2s"; broken is exit 2
}

// Expectation is one entry of always or finally.
type Expectation struct {
	Name string // as registered
	Args any    // its arguments
	Line int
}
