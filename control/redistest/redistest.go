// Package redistest starts real redis-server processes for tests: own port, own
// directory, gone when the test ends.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is one redis-server on a loopback port.
type Server struct {
	Addr string // 127.0.0.1:port, the same after a Restart
	Dir  string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a redis-server with extra arguments (as on its command line,
// "--maxmemory", "1mb", …). Without redis-server on the machine the test is
// skipped, unless CI is set: there a skip would hide a missing install step.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("redis-server is not installed")
		}
		t.Skip("needs redis-server: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &Server{Addr: addr, Dir: t.TempDir(), t: t, args: args}
	s.start()
	t.Cleanup(s.Kill)
	return s
}

func (s *Server) start() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "", "--appendonly", "no",
		"--logfile", filepath.Join(s.Dir, "redis.log"),
	}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) { cmd.Wait(); close(done) }(s.cmd, s.done)
	deadline := time.Now().Add(15 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			fmt.Fprintf(c, "PING\r\n")
			b := make([]byte, 64)
			n, _ := c.Read(b)
			c.Close()
			if n > 0 && (b[0] == '+' || strings.Contains(string(b[:n]), "NOAUTH")) {
				return
			}
		}
		select {
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "redis.log"))
			s.t.Fatalf("redis-server ended at start:\n%s", log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatal("redis-server not up after 15 s")
		}
	}
}

// Kill ends the server without ceremony and waits for it. It may be called
// twice.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.done
}

// Restart kills the server and starts it again, empty, on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.start()
}

// Client returns a plain client, closed when the test ends.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Do runs one command with a plain client and fails the test when it errs.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	v, err := s.Client().Do(context.Background(), args...).Result()
	if err != nil && err != redis.Nil {
		s.t.Fatalf("redis %v: %v", args, err)
	}
	return v
}
