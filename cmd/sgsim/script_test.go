package main

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sgfleet/sgfleet/sim"
)

var update = flag.Bool("update", false, "rewrite the golden files; commit the change only if you understand it")

func TestMain(m *testing.M) {
	sim.WorkerMain(sim.Work) // the pool starts this very binary again
	testscript.Main(m, map[string]func(){"sgsim": main})
}

// The scripts drive the built program.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// exits CODE PROGRAM ARG…: the exact exit code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM ARG…")
				}
				err := ts.Exec(args[1], args[2:]...)
				got := "0"
				if err != nil {
					got = err.Error()[len("exit status "):]
				}
				if got != args[0] {
					ts.Fatalf("exit code %s, want %s", got, args[0])
				}
			},
		},
		TestWork: os.Getenv("TESTWORK") != "",
	})
}
