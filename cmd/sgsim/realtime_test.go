package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/sim"
)

// A scenario gives the same verdict against a real redis-server in real time.
// The short ones run always, the rest in make soak; those that cannot say why.
func TestRealTime(t *testing.T) {
	const short = 30 * time.Second
	files, err := filepath.Glob("../../scenarios/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	server := redistest.Start(t)
	slots := make(chan struct{}, 8) // they mostly wait: more at a time than there are cores
	shorts, started, ended := 0, 0, 0
	type waiting struct {
		name string
		end  func(t *testing.T)
	}
	var list []waiting
	for _, file := range files {
		sc, _, err := sim.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		isShort := sc.Until.D() <= short
		if isShort {
			shorts++
		}
		switch why := sc.VirtualOnly(); {
		case why != "":
			list = append(list, waiting{sc.Name, func(t *testing.T) { t.Skip("not in real time: " + why) }})
			continue
		case !isShort && os.Getenv("SGFLEET_SOAK") == "":
			list = append(list, waiting{sc.Name, func(t *testing.T) { t.Skipf("takes %v; make soak runs it", sc.Until.D()) }})
			continue
		}
		started++
		var out, log bytes.Buffer
		code := make(chan int, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			args := []string{"run", file, "--seed", "1", "--progress", "none", "--real-time", "--redis", "redis://" + server.Addr + "/0"}
			code <- run(t.Context(), args, nil, &out, &log)
		}()
		list = append(list, waiting{sc.Name, func(t *testing.T) {
			if code := <-code; code != sim.ExitPass && code != sim.ExitVacuous {
				t.Errorf("exit code %d\n%s%s", code, out.String(), log.String())
			}
			ended++
		}})
	}
	for _, w := range list {
		t.Run(w.name, w.end)
	}
	if shorts == 0 {
		t.Errorf("no scenario is at most %v long: nothing was held against a real server", short)
	}
	if ended < started {
		return // -run picked some: the others still have keys
	}
	if keys := server.Do("DBSIZE"); keys != int64(0) {
		t.Errorf("%v keys were left on the server: %v", keys, server.Do("KEYS", "*"))
	}
}
