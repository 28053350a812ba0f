package sim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/fleet"
)

// What a process sent before it died is carried out by the server all the same,
// maybe later: no key of the run may come back by that.
func TestKeysAreRemovedAfterTheLastCommand(t *testing.T) {
	server := redistest.Start(t)
	w := &World{
		opts: Options{RedisURL: "redis://" + server.Addr + "/0"},
		plan: &Plan{Config: &fleet.Config{KeyPrefix: "run:"}},
	}
	w.facts, w.real = newFacts(w), newRealNetwork(w)
	inc := &incarnation{proc: &process{w: w, host: &host{w: w}}, own: map[wire]bool{}}
	c, err := inc.dialer(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	// The server reads less than this at once, and so attends to others between
	// two of the scripts, each of which takes it some milliseconds.
	padding := strings.Repeat("x", 64<<10)
	const script = "for i = 1, 500000 do end return redis.call('hset', KEYS[1], 'f', 'v')"
	for range 20 {
		fmt.Fprintf(c, "*5\r\n$4\r\nEVAL\r\n$%d\r\n%s\r\n$1\r\n1\r\n$8\r\nrun:live\r\n$%d\r\n%s\r\n", len(script), script, len(padding), padding)
	}
	c.Close()
	w.real.removeKeys()
	if keys := server.Do("DBSIZE"); keys != int64(0) {
		t.Errorf("%v keys came back: %v", keys, server.Do("KEYS", "*"))
	}
}
