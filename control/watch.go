package control

// UpdateKind says what an [Update] is about.
type UpdateKind string

const (
	UpdatePublished UpdateKind = "published" // the op is on its way; Instances lists who is expected
	UpdateAck       UpdateKind = "ack"       // Result is the instance's new state, Ack what it said
	UpdateText      UpdateKind = "text"      // a legacy peer answered, Ack.Detail is its text; it is not known which
	UpdateReleased  UpdateKind = "released"  // the gateways were told to go, or to stay (Release)
)

// Update tells a watcher what has just happened. Nothing in it may be changed.
type Update struct {
	Kind      UpdateKind
	Op        string // id
	Instances []Expected
	Ack       *Ack
	Result    Result // class unfinished: has accepted
	Release   string
	Settled   int // instances that have said their last word
	Total     int // instances expected or heard of
}
