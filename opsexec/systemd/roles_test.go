package systemd

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd/systemdtest"
)

func TestMain(m *testing.M) {
	os.Exit(systemdtest.Main(m,
		systemdtest.Role{Name: "service", Run: service},
		systemdtest.Role{Name: "self", Run: self},
		systemdtest.Role{Name: "asker", Run: asker},
	))
}

// unit is a Type=notify unit that runs [service]; env are assignments for it.
func unit(t *testing.T, env string, lines ...string) string {
	if env != "" { // an empty assignment would undo others
		lines = append(lines, "Environment="+env)
	}
	return systemdtest.Service(t, "service", append(lines, "Type=notify")...)
}

// service is the program of most units. Its environment says how it behaves:
// READY_AFTER, DIE_AFTER (after it was ready) and TERM=ignore; the file
// HANG_IF keeps it from getting ready.
func service() int {
	term := make(chan os.Signal, 1)
	if os.Getenv("TERM") == "ignore" {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(term, syscall.SIGTERM)
	}
	after := func(name string) <-chan time.Time {
		s := os.Getenv(name)
		if s == "" {
			return nil
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			panic(err)
		}
		return time.After(d)
	}
	if ready := after("READY_AFTER"); ready != nil {
		<-ready
	}
	if _, err := os.Stat(os.Getenv("HANG_IF")); err == nil {
		fmt.Println("hanging")
		<-term
		return 0
	}
	if err := Notify(Ready, "STATUS=serving"); err != nil {
		fmt.Println(err)
		return 1
	}
	select {
	case <-after("DIE_AFTER"):
		fmt.Println("no port left")
		return 3
	case <-term:
	}
	return 0
}

// self restarts its own unit, once, and tells a FIFO about it.
func self() int {
	say := func(format string, args ...any) {
		f, err := os.OpenFile(os.Getenv("FIFO"), os.O_WRONLY, 0)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		fmt.Fprintf(f, format+"\n", args...)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if err := Notify(Ready); err != nil {
		say("error %v", err)
	}
	marker := os.Getenv("FIFO") + ".restarted"
	if _, err := os.Stat(marker); err == nil {
		say("done %s", os.Getenv("INVOCATION_ID"))
		<-term
		return 0
	}
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		say("error %v", err)
	}
	say("accepted %s", os.Getenv("INVOCATION_ID"))
	b := New("")
	defer b.Close()
	if err := opsexec.QueueRestart(context.Background(), b, "self.service"); err != nil {
		say("error %v", err)
	}
	<-term
	say("terminated")
	return 0
}

// asker asks for a restart that it has no right to.
func asker() int {
	if err := syscall.Setuid(65534); err != nil {
		panic(err)
	}
	b := New("")
	defer b.Close()
	r := opsexec.RestartUnit(context.Background(), b, "good.service", opsexec.RestartOptions{})
	fmt.Println(r.Status, r.Summary)
	return 0
}
