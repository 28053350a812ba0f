package control

var (
	_ = registerOp(opSpec{Name: OpRestart, Restarts: true})
	_ = registerOp(opSpec{Name: OpPull, Pulls: true})
	_ = registerOp(opSpec{Name: OpUpdate, Pulls: true, Restarts: true})
	_ = registerOp(opSpec{Name: OpPing})
)
