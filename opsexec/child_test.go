package opsexec

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// childEnv, when set, makes the test binary a daemon that makes one pull.
const childEnv = "OPSEXEC_TEST_CHILD"

// childJob is what such a daemon is to do.
type childJob struct {
	Dir  string
	Home string // marks its git processes
}

func (j childJob) options() PullOptions {
	o := fileRemotes()
	o.Env.Home = j.Home
	return o
}

func childMain() bool {
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return false
	}
	var j childJob
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		panic(err)
	}
	r := RunGitPull(context.Background(), j.Dir, j.options())
	_ = json.NewEncoder(os.Stdout).Encode(r)
	return true
}

// startChild starts a daemon process that pulls.
func startChild(t *testing.T, j childJob) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{childEnv + "=" + string(text)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}
