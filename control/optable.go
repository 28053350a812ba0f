package control

import (
	"context"
	"maps"
	"slices"
)

// The names of the ops.
const (
	OpRestart = "restart"
	OpPull    = "pull"
	OpUpdate  = "update"
	OpPing    = "ping"
)

// opSpec is what both ends know about an op. Each op registers its own in its
// own file.
type opSpec struct {
	Name     string
	Pulls    bool // moves the checkout, under the pull lock
	Restarts bool // restarts the unit: gateways wait for the publisher's release

	// act does it, on the service's own worker, and returns the final ack.
	act func(ctx context.Context, t *task) Ack
	// answer, instead of act, answers at once an op that touches nothing.
	answer func(r *run, j *job) Ack
}

// opSpecs is the static table: a name in an op looks up an entry here and
// nothing else.
var opSpecs = map[string]opSpec{}

// registerOp adds an op to the table. A name twice is a programming error.
func registerOp(s opSpec) bool {
	if _, ok := opSpecs[s.Name]; ok {
		panic("control: op " + s.Name + " registered twice")
	}
	opSpecs[s.Name] = s
	return true
}

// OpNames returns the names of all ops, sorted.
func OpNames() []string { return slices.Sorted(maps.Keys(opSpecs)) }
