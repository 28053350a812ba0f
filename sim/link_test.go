package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

const testQ = 131_071

// testLink is a link with a fixed latency of 1 ms each way.
func testLink() *link {
	model := Dist{P50: fleet.Duration(time.Millisecond)}
	l := newLink("p#1", newHalf(stream(1, "up"), model, 6, testQ), newHalf(stream(1, "down"), model, 7, testQ), nil)
	l.conn = &connInfo{name: l.name}
	return l
}

// readAll reads n bytes from c and returns them with the time they took.
func readAll(t *testing.T, c *endpoint, n int) (string, time.Duration) {
	t.Helper()
	began := time.Now()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("reading %d bytes: %v", n, err)
	}
	return string(b), time.Since(began)
}

func TestLinkDeliversInOrderAtItsOwnInstants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLink()
		for i, s := range []string{"one", "two", "three"} {
			time.Sleep(time.Duration(i) * 300 * time.Microsecond)
			if _, err := l.client.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		for len(got) < len("onetwothree") {
			b := make([]byte, 64)
			n, err := l.server.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got += string(b[:n])
			if r := time.Now().UnixNano() % testQ; r != 6 {
				t.Errorf("delivered at residue %d, want 6", r)
			}
		}
		if got != "onetwothree" {
			t.Errorf("got %q, want onetwothree", got)
		}
	})
}

func TestLinkDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLink()
		b := make([]byte, 8)
		if err := l.client.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := l.client.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v, want a deadline after 2s", err, time.Since(began))
		}
		if _, err := l.client.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after the deadline: got %v, want a deadline again", err)
		}
		// A deadline that is moved wakes a reader that waits for the old one.
		_ = l.client.SetReadDeadline(time.Now().Add(time.Hour))
		go func() {
			time.Sleep(time.Second)
			_ = l.client.SetReadDeadline(time.Now())
		}()
		began = time.Now()
		if _, err := l.client.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want a deadline after 1s", err, time.Since(began))
		}
		_ = l.client.SetReadDeadline(time.Time{})
		_, _ = l.server.Write([]byte("pong"))
		if got, _ := readAll(t, l.client, 4); got != "pong" {
			t.Errorf("got %q, want pong", got)
		}
	})
}

func TestLinkHold(t *testing.T) {
	for _, c := range []struct {
		name       string
		up, down   bool
		lost       time.Duration
		least, max time.Duration // from the release until delivery
	}{
		{"one way", true, false, 0, 0, time.Millisecond},
		{"both ways", true, true, 0, 0, time.Millisecond},
		{"lost and sent again", true, true, 10 * time.Second, 200 * time.Millisecond, 6 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := testLink()
				l.hold(c.up, c.down)
				_, _ = l.client.Write([]byte("ping"))
				_, _ = l.server.Write([]byte("push"))
				if !c.down {
					if got, took := readAll(t, l.client, 4); got != "push" || took > 2*time.Millisecond {
						t.Errorf("the open direction delivered %q after %v", got, took)
					}
				}
				_ = l.server.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := l.server.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("read from a held direction: %v", err)
				}
				_ = l.server.SetReadDeadline(time.Time{})
				l.release(c.up, c.down, c.lost)
				if got, took := readAll(t, l.server, 4); got != "ping" || took < c.least || took > c.max {
					t.Errorf("got %q %v after the release, want ping after %v to %v", got, took, c.least, c.max)
				}
				l.release(c.up, c.down, 0) // one release too many does no harm
			})
		})
	}
}

func TestLinkCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLink()
		_, _ = l.client.Write([]byte("on its way"))
		l.cut()
		var at []time.Time
		for _, e := range []*endpoint{l.server, l.client} {
			if _, err := e.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read after a cut: got %v, want a reset", err)
			}
			at = append(at, time.Now())
		}
		if at[0].Equal(at[1]) {
			t.Error("both ends learned of the cut at one instant")
		}
		if _, err := l.client.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after a cut: got %v, want a broken pipe", err)
		}
	})
}

func TestLinkClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLink()
		closed := 0
		l.closed = func() { closed++ }
		_, _ = l.client.Write([]byte("bye"))
		_ = l.client.Close()
		if got, _ := readAll(t, l.server, 3); got != "bye" {
			t.Errorf("got %q, want bye", got)
		}
		if _, err := l.server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		_ = l.server.Close()
		_ = l.server.Close()
		if closed != 1 {
			t.Errorf("closed called %d times, want once", closed)
		}
		// Without power no packet leaves: the other end waits for ever.
		dark := testLink()
		dark.end(false)
		_ = dark.server.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := dark.server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the server learned of a power failure: %v", err)
		}
	})
}

// TestOutputBuffer wants a subscriber that does not read to be closed at
// Redis's hard limit at once, and above the soft one after a minute.
func TestOutputBuffer(t *testing.T) {
	mb := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name   string
		sizes  []int // MB
		pause  time.Duration
		closed bool
	}{
		{"below the soft limit", []int{7, 0, 0}, time.Minute, false},
		{"above the soft limit, not long enough", []int{9}, 50 * time.Second, false},
		{"above the soft limit for a minute", []int{9, 1}, time.Minute, true},
		{"above the hard limit", []int{20, 13}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := testLink()
				l.hold(false, true)
				l.down.limited = l.cut
				for _, n := range c.sizes {
					for range n {
						_, _ = l.server.Write([]byte(mb))
					}
					time.Sleep(c.pause)
					_, _ = l.server.Write([]byte("x"))
				}
				l.release(false, true, 0)
				_ = l.client.SetReadDeadline(time.Now().Add(time.Minute))
				_, err := l.client.Read(make([]byte, 1))
				if got := errors.Is(err, syscall.ECONNRESET); got != c.closed {
					t.Errorf("closed = %v (%v), want %v", got, err, c.closed)
				}
			})
		})
	}
}

func TestDirectorOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirector()
		got := ""
		now := time.Now()
		d.at(now.Add(2*time.Second), "b", func() { got += "b" })
		d.at(now.Add(2*time.Second), "a", func() { got += "a" })
		d.at(now.Add(time.Second), "z", func() { got += "z" })
		cancel := d.at(now.Add(1500*time.Millisecond), "x", func() { got += "x" })
		ctx, stop := contextWithStop(t)
		done := make(chan struct{})
		go func() { d.run(ctx); close(done) }()
		cancel()
		time.Sleep(3 * time.Second)
		d.after(0, "late", func() { got += "l" })
		time.Sleep(time.Second)
		stop()
		<-done
		if got != "zabl" {
			t.Errorf("got %q, want zabl", got)
		}
	})
}

func TestRESPStream(t *testing.T) {
	const text = "*2\r\n$4\r\nPING\r\n$0\r\n\r\n+OK\r\n-ERR no\r\n:42\r\n$-1\r\n*-1\r\n*1\r\n*2\r\n:1\r\n$3\r\nabc\r\n"
	for _, size := range []int{1, 2, 3, 7, len(text)} {
		var got []respValue
		s := respStream{emit: func(v respValue) { got = append(got, v) }}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			s.feed([]byte(rest[:n]))
			rest = rest[n:]
		}
		if len(got) != 7 {
			t.Fatalf("in pieces of %d: got %d values, want 7: %v", size, len(got), got)
		}
		if got[0].arr[0].s != "PING" || got[1].s != "OK" || got[2].kind != '-' || got[3].n != 42 || !got[4].null || !got[5].null || got[6].arr[0].arr[1].s != "abc" {
			t.Errorf("in pieces of %d: got %v", size, got)
		}
	}
}

// A reply of any length is read once, however small its pieces: nothing of it is
// held but the element that is not complete.
func TestRESPStreamHoldsOneElement(t *testing.T) {
	const elements = 10_000
	payload := strings.Repeat("x", 600)
	text := fmt.Sprintf("*%d\r\n", elements) + strings.Repeat(fmt.Sprintf("$%d\r\n%s\r\n", len(payload), payload), elements)
	var got []respValue
	s := respStream{emit: func(v respValue) { got = append(got, v) }}
	for rest := text; rest != ""; {
		n := min(4096, len(rest))
		s.feed([]byte(rest[:n]))
		rest = rest[n:]
		if len(s.buf) > len(payload)+16 {
			t.Fatalf("%d bytes are held", len(s.buf))
		}
	}
	if len(got) != 1 || len(got[0].arr) != elements || got[0].arr[elements-1].s != payload {
		t.Errorf("got %d values", len(got))
	}
}

// Two pulls of one process draw their locks' tokens from one stream: it is safe
// for that, and the same stream still.
func TestSharedStream(t *testing.T) {
	alone, together := stream(1, "token"), shared(stream(1, "token"))
	want, got := map[uint64]bool{}, sync.Map{}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 1000 {
				got.Store(together.Uint64(), true)
			}
		})
	}
	for range 2000 {
		want[alone.Uint64()] = true
	}
	wg.Wait()
	for n := range want {
		if _, ok := got.Load(n); !ok {
			t.Fatalf("%d was not drawn: two goroutines drew one number", n)
		}
	}
}

func contextWithStop(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
