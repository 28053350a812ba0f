package control

// ping asks who is there. It touches nothing, so it is answered at once, held
// or not, and needs no guard.
var _ = registerOp(opSpec{Name: OpPing, answer: answerPing})

func answerPing(r *run, j *job) Ack {
	a := r.ack(j.inst, j.op, Done, OK, "")
	a.Version = r.Version
	a.InvocationID = r.Identity.InvocationID
	return a
}
