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

// respStream cuts a byte stream into RESP values. It goes on where it stopped:
// the roster of ten thousand services comes in two thousand pieces.
type respStream struct {
	buf  []byte // the beginning of a line or bulk string that is not complete
	need int    // it cannot be complete with fewer bytes than this
	open []respArray
	// keep says whether the next value's content is wanted; nil means always.
	keep    func() bool
	wanted  bool // what keep said of the value that has begun
	started bool
	emit    func(respValue)
}

// respArray is an array that lacks elements.
type respArray struct {
	v    respValue
	left int
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
		if !r.started {
			r.started, r.wanted = true, r.keep == nil || r.keep()
		}
		v, n, need := scalar(b, r.wanted)
		if n == 0 {
			r.need = need
			break
		}
		b = b[n:]
		r.take(v)
	}
	r.buf = append(r.buf[:0], b...)
	if len(r.buf) == 0 && cap(r.buf) > keepBulk {
		r.buf = nil
	}
}

// take adds a value, or the head of an array, to what is there of the array
// around it, and emits the outermost when it is complete.
func (r *respStream) take(v respValue) {
	if v.kind == '*' && v.n > 0 {
		r.open = append(r.open, respArray{respValue{kind: '*'}, int(v.n)})
		return
	}
	if v.kind == '*' {
		v.n = 0
	}
	for len(r.open) > 0 {
		top := &r.open[len(r.open)-1]
		if r.wanted {
			top.v.arr = append(top.v.arr, v)
		}
		if top.left--; top.left > 0 {
			return
		}
		v = top.v
		r.open = r.open[:len(r.open)-1]
	}
	r.started = false
	r.emit(v)
}

// scalar reads one value from the beginning of b: for an array its head, with
// the number of its elements in n. It returns how long the value is, or 0 and
// how many bytes there must be, at least, for it to be complete.
func scalar(b []byte, keep bool) (v respValue, length, need int) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return v, 0, len(b) + 1
	}
	l := bytes.TrimSuffix(b[:end], []byte{'\r'})
	end++
	if len(l) == 0 {
		return v, end, 0
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
			return v, end, 0
		}
		if len(b) < end+n+2 {
			return v, 0, end + n + 2
		}
		v.n = int64(n)
		if keep {
			v.s = string(b[end : end+min(n, keepBulk)])
		}
		end += n + 2
	case '*':
		n := atoi(l[1:])
		v.null, v.n = n < 0, int64(n)
	}
	return v, end, 0
}

func atoi(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return n
}
