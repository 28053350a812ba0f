package sim

import (
	"os"
	"testing"
	"testing/synctest"
)

// inBubble runs f in a bubble of virtual time (testing/synctest), then calls
// after outside of it and ends the process with the code that it returns. It
// works in an ordinary binary, not only under go test.
//
// synctest wants a *testing.T, and the only way to one outside go test is
// testing.Main, which is exported for go test's own use and not covered by the
// Go 1 promise; testing.RunTests runs nothing and says ok. A toolchain that
// breaks this fails TestBubble. One process can run one bubble only: go-redis
// keeps a global pool of timers, and a second bubble dies on those of the
// first.
func inBubble(f func(), after func() int) {
	os.Args = os.Args[:1] // testing.Main parses the flags
	test := testing.InternalTest{Name: "bubble", F: func(t *testing.T) {
		synctest.Test(t, func(*testing.T) { f() })
		os.Exit(after()) // before testing prints PASS
	}}
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{test}, nil, nil)
}
