package sim

import (
	"bytes"
	"strconv"
)

// keepBulk is how much of a bulk string a watcher keeps: an op and an ack are
// far below, and what is larger is only ever refused.
const keepBulk = 64 << 10

// respValue is one value of the Redis protocol (RESP2).
type respValue struct {
	kind byte // + - : $ *
	s    string
	n    int64 // of an integer; the full length of a bulk string
	arr  []respValue
	null bool
}

// respStream cuts a byte stream into RESP values.
type respStream struct {
	buf  []byte
	need int // a value cannot be complete with fewer bytes than this
	// keep says whether the next value's content is wanted; nil means always.
	keep func() bool
	emit func(respValue)
}

// feed takes the next bytes of the stream.
func (r *respStream) feed(b []byte) {
	if len(r.buf) > 0 {
		r.buf = append(r.buf, b...)
		if len(r.buf) < r.need {
			return
		}
		b = r.buf
	}
	r.need = 0
	for len(b) > 0 {
		p := respParser{b: b, keep: r.keep == nil || r.keep()}
		v := p.value()
		if p.short > 0 {
			r.need = p.i + p.short
			break
		}
		b = b[p.i:]
		r.emit(v)
	}
	r.buf = append(r.buf[:0], b...)
	if len(r.buf) == 0 && cap(r.buf) > keepBulk {
		r.buf = nil
	}
}

type respParser struct {
	b     []byte
	i     int
	short int // bytes that are missing, at least
	keep  bool
}

func (p *respParser) line() []byte {
	n := bytes.IndexByte(p.b[p.i:], '\n')
	if n < 0 {
		p.short = len(p.b) - p.i + 1
		return nil
	}
	l := p.b[p.i : p.i+n]
	p.i += n + 1
	return bytes.TrimSuffix(l, []byte{'\r'})
}

func (p *respParser) value() (v respValue) {
	l := p.line()
	if p.short > 0 || len(l) == 0 {
		return v
	}
	v.kind = l[0]
	switch v.kind {
	case '+', '-':
		v.s = string(l[1:])
	case ':':
		v.n, _ = strconv.ParseInt(string(l[1:]), 10, 64)
	case '$':
		n := atoi(l[1:])
		if n < 0 {
			v.null = true
			return v
		}
		if missing := p.i + n + 2 - len(p.b); missing > 0 {
			p.short = len(p.b) - p.i + missing
			return v
		}
		v.n = int64(n)
		if p.keep {
			v.s = string(p.b[p.i : p.i+min(n, keepBulk)])
		}
		p.i += n + 2
	case '*':
		n := atoi(l[1:])
		if n < 0 {
			v.null = true
			return v
		}
		for range n {
			e := p.value()
			if p.short > 0 {
				return v
			}
			if p.keep {
				v.arr = append(v.arr, e)
			}
		}
	}
	return v
}

func atoi(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return n
}
