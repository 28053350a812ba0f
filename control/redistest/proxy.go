package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between clients and a server and does, when told, what networks
// do: cut connections, go silent while they stay open, lose one reply.
type Proxy struct {
	Addr string // 127.0.0.1:port; clients connect here

	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]bool
	silent bool
	refuse bool
	faults map[string][]Fault // by command, upper case; the first is next
	seen   map[string]int     // commands forwarded, by name
}

// Fault is how a reply is lost.
type Fault int

const (
	// CutReply forwards the command, waits until the server answers, and cuts
	// the connection instead of passing the answer on.
	CutReply Fault = iota
	// SwallowReply forwards the command and never passes anything on again
	// from that connection, which stays open: the client times out.
	SwallowReply
	// CutCommand cuts the connection instead of forwarding the command. The
	// client cannot tell it from CutReply.
	CutCommand
)

// link is one client's connection and the one to the server behind it.
type link struct {
	client, server net.Conn

	mu   sync.Mutex
	mute bool // nothing is passed to the client any more
	cut  bool // and the connection is cut at the next byte from the server
}

func (l *link) close() { l.client.Close(); l.server.Close() }

// NewProxy starts a proxy to target (host:port), gone when the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Addr: l.Addr().String(), target: target, listener: l,
		links: map[*link]bool{}, faults: map[string][]Fault{}, seen: map[string]int{},
	}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Cut closes every connection; new ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Silence makes the network a black hole: connections stay open, new ones are
// accepted, and nothing passes in either direction, until Silence(false). What
// was swallowed is lost, so Cut afterwards.
func (p *Proxy) Silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
}

// Refuse closes new connections at once, until Refuse(false).
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// LoseReply applies fault to the next command of this name (PUBLISH, LRANGE,
// …). Called again, it applies to the one after that. Replies inside a MULTI
// are lost with EXEC.
func (p *Proxy) LoseReply(command string, fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	command = strings.ToUpper(command)
	p.faults[command] = append(p.faults[command], fault)
}

// Seen returns how often a command has reached the proxy.
func (p *Proxy) Seen(command string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[strings.ToUpper(command)]
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.refuse
		p.mu.Unlock()
		if refuse {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil { // the server is down: so it looks from here
			client.Close()
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		p.wg.Add(2)
		go p.forward(l)
		go p.backward(l)
	}
}

func (p *Proxy) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// forward passes the client's commands on, one by one.
func (p *Proxy) forward(l *link) {
	defer p.wg.Done()
	defer func() {
		l.close()
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	r := bufio.NewReader(l.client)
	for {
		name, raw, err := readCommand(r)
		if err != nil {
			return
		}
		if p.isSilent() {
			continue
		}
		fault, faulty := p.next(name)
		if faulty && fault == CutCommand {
			return
		}
		if faulty {
			l.mu.Lock()
			l.mute, l.cut = true, fault == CutReply
			l.mu.Unlock()
		}
		if _, err := l.server.Write(raw); err != nil {
			return
		}
	}
}

// next counts a command and takes its fault, if there is one.
func (p *Proxy) next(name string) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[name]++
	f := p.faults[name]
	if len(f) == 0 {
		return 0, false
	}
	p.faults[name] = f[1:]
	return f[0], true
}

// backward passes the server's answers on.
func (p *Proxy) backward(l *link) {
	defer p.wg.Done()
	defer l.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 && !p.isSilent() {
			l.mu.Lock()
			mute, cut := l.mute, l.cut
			l.mu.Unlock()
			if cut {
				return
			}
			if !mute {
				if _, err := l.client.Write(buf[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// readCommand reads one command: an array of bulk strings.
func readCommand(r *bufio.Reader) (name string, raw []byte, err error) {
	line := func(prefix byte) (int, error) {
		s, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		raw = append(raw, s...)
		if s[0] != prefix {
			return 0, fmt.Errorf("proxy: want %q, got %q", prefix, s)
		}
		return strconv.Atoi(strings.TrimSpace(s[1:]))
	}
	args, err := line('*')
	if err != nil {
		return "", nil, err
	}
	for i := range args {
		n, err := line('$')
		if err != nil {
			return "", nil, err
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", nil, err
		}
		raw = append(raw, b...)
		if i == 0 {
			name = strings.ToUpper(string(b[:n]))
		}
	}
	return name, raw, nil
}
