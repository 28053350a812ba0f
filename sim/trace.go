package sim

import "time"

// Event is one line of a run's log, events.jsonl: the only thing that reports
// and judges look at.
type Event struct {
	Seq      int           `json:"seq"`            // from 1
	T        time.Duration `json:"t"`              // since the start, virtual; nanoseconds
	Actor    string        `json:"actor"`          // a process, a host, an instance, redis, operator, world
	Kind     string        `json:"kind"`           // one of the Kind constants
	Op       string        `json:"op,omitempty"`   // the scenario's name of the op, else its id
	Host     string        `json:"host,omitempty"` //
	Instance string        `json:"instance,omitempty"`
	Detail   string        `json:"detail,omitempty"`
	Attrs    Attrs         `json:"attrs,omitempty"`
	Cause    int           `json:"cause,omitempty"` // Seq of the event that led to this one; 0: none known
}

// Attrs are an event's further attributes; encoding/json writes them sorted by
// name, so that equal events are equal bytes.
type Attrs map[string]string
