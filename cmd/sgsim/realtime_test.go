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
	ran := 0
	t.Run("scenarios", func(t *testing.T) {
		for _, file := range files {
			sc, _, err := sim.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			isShort := sc.Until.D() <= short
			if isShort {
				ran++
			}
			t.Run(sc.Name, func(t *testing.T) {
				if why := sc.VirtualOnly(); why != "" {
					t.Skip("not in real time: " + why)
				}
				if !isShort && os.Getenv("SGFLEET_SOAK") == "" {
					t.Skipf("takes %v; make soak runs it", sc.Until.D())
				}
				t.Parallel()
				var out, log bytes.Buffer
				args := []string{"run", file, "--seed", "1", "--progress", "none", "--real-time", "--redis", "redis://" + server.Addr + "/0"}
				if code := run(t.Context(), args, nil, &out, &log); code != sim.ExitPass && code != sim.ExitVacuous {
					t.Errorf("exit code %d\n%s%s", code, out.String(), log.String())
				}
			})
		}
	})
	if ran == 0 {
		t.Errorf("no scenario is at most %v long: nothing was held against a real server", short)
	}
	if keys := server.Do("DBSIZE"); keys != int64(0) {
		t.Errorf("%v keys were left on the server: %v", keys, server.Do("KEYS", "*"))
	}
}
