// Package mutants plants bugs in a copy of the production code and requires
// that the simulator catches each, by the promise that it breaks. It has tests
// only; README.md tells more.
package mutants
