// Package sim is the world in which production code runs when it is simulated:
// hosts, systemd, git, the network and Redis, in virtual time and reproducible
// from a seed.
//
// A scenario is a [Plan]. [Run] runs it once, from one seed, inside a bubble
// of virtual time (or, on a real redis-server, in real time), and returns the
// run's [Event] log, which is all that invariants and reports look at. One
// process can hold one bubble only, so runs are spread over worker processes
// by a [Pool].
package sim
