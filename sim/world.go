package sim

import "time"

// Options says how a world is run, beside what happens in it.
type Options struct {
	// RealTime runs against the redis-server at RedisURL, with the machine's
	// clock, instead of virtual time.
	RealTime bool
	RedisURL string

	Commands bool        // log every Redis command (EvCommand)
	OnEvent  func(Event) // called with every event as it is recorded, may be nil
}

// Result is what a run leaves behind.
type Result struct {
	Seed     int64
	Events   []Event
	Hash     string        // of the events and of every Redis command with its link
	Commands int           // Redis commands
	Virtual  time.Duration // how long the run was in its own time
	Real     time.Duration // and in ours
}

// World is a running fleet: what actions act on.
type World struct {
	plan  *Plan
	seed  int64
	opts  Options
	trace *Trace
}
