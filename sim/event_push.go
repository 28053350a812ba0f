package sim

// pushCommit is somebody pushing a commit to the remote.
type pushCommit struct{}

func init() {
	registerAction(ActionInfo{
		Name: "push", Summary: "somebody pushes a commit to the remote", Example: "{}",
		New: func() Action { return &pushCommit{} },
	})
}

// Validate implements [Action].
func (*pushCommit) Validate(*Plan) []Problem { return nil }

// Run implements [Action].
func (*pushCommit) Run(w *World, _ Step) error {
	w.push()
	return nil
}
