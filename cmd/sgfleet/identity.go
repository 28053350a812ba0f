package main

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/control"
)

// identity reads who and where this process is.
func identity() control.Identity {
	host, _ := os.Hostname()
	return control.Identity{
		Host:         host,
		PID:          os.Getpid(),
		MachineID:    firstLine("/etc/machine-id"),
		BootID:       firstLine("/proc/sys/kernel/random/boot_id"),
		InvocationID: os.Getenv("INVOCATION_ID"),
		Token:        token,
		Wall:         time.Now,
	}
}

// token returns 128 random bits in hex.
func token() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand ends the process instead)
	return hex.EncodeToString(b[:])
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
