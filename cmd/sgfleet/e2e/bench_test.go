package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// TestIdleMemory prints what a daemon weighs that serves the five default
// services and has nothing to do. It is a benchmark, run by make bench.
func TestIdleMemory(t *testing.T) {
	if os.Getenv("SGFLEET_BENCH") == "" {
		t.Skip("a benchmark: make bench")
	}
	r := bareRig(t)
	var wants strings.Builder
	for _, s := range fleet.ServiceTiers {
		r.host.Unit("stargazer-"+s+".service", "[Service]\nExecStart=/bin/sleep infinity\n")
		r.host.Systemctl("start", "stargazer-"+s)
	}
	config := filepath.Join(r.host.Dir, "config.yaml")
	fmt.Fprintf(&wants, "host: h1\nredis: {url: %q}\n", "redis://"+r.redis.Addr+"/0")
	r.must(os.WriteFile(config, []byte(wants.String()), 0o644))
	r.host.Unit("sgfleet.service", "[Service]\nType=notify\nExecStart="+r.bin+" daemon --config "+config+"\n")
	r.host.Systemctl("start", "sgfleet")

	pid := r.pidOf(r.bin)
	const idle = 15 * time.Second // a heartbeat and a half
	cpu := r.cpu(pid)
	time.Sleep(idle)
	status := r.proc(pid, "status")
	fmt.Printf("idle daemon, 5 services: %.1f MB resident (of it %.1f MB the binary's own pages), %.2f %% of a core over %v; binary %.1f MB\n",
		kb(status, "VmRSS")/1024, kb(status, "RssFile")/1024, 100*(r.cpu(pid)-cpu).Seconds()/idle.Seconds(), idle, float64(r.size(r.bin))/1e6)
}

// TestWholeCommand prints how long a whole "sgfleet ping all" takes, from the
// start of the process to its end, with 50 instances on ten daemons, beside one
// that does nothing. It is a benchmark, run by make bench.
func TestWholeCommand(t *testing.T) {
	if os.Getenv("SGFLEET_BENCH") == "" {
		t.Skip("a benchmark: make bench")
	}
	r := bareRig(t)
	const hosts = 10
	config := ""
	for h := range hosts {
		name := fmt.Sprintf("h%d", h+1)
		config = filepath.Join(r.host.Dir, name+".yaml")
		r.must(os.WriteFile(config, fmt.Appendf(nil, "host: %s\nredis: {url: %q}\n", name, "redis://"+r.redis.Addr+"/0"), 0o644))
		r.host.Unit(name+".service", "[Service]\nType=notify\nExecStart="+r.bin+" daemon --config "+config+"\n")
		r.host.Systemctl("start", name)
	}
	run := func(args ...string) time.Duration {
		cmd := exec.Command(r.bin, args...)
		cmd.Env = []string{"SGFLEET_CONFIG=" + config, "HOME=" + r.host.Dir}
		start := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(start)
		if err != nil {
			t.Fatalf("sgfleet %v: %v\n%s", args, err, out)
		}
		return took
	}
	var ping, nothing []time.Duration
	for range 25 { // in turns: a machine's speed drifts
		ping = append(ping, run("ping", "all"))
		nothing = append(nothing, run("version"))
	}
	slices.Sort(ping)
	slices.Sort(nothing)
	p, n := ping[len(ping)/2], nothing[len(nothing)/2]
	fmt.Printf("sgfleet ping all, %d instances, whole process: %v; a process that only says its version: %v (%.1f times)\n",
		hosts*len(fleet.ServiceTiers), p.Round(100*time.Microsecond), n.Round(100*time.Microsecond), float64(p)/float64(n))
}

// pidOf finds the one process outside view that runs exe.
func (r *rig) pidOf(exe string) string {
	r.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	r.must(err)
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && target == exe {
			return strings.Split(l, "/")[2]
		}
	}
	r.Fatalf("no process runs %s", exe)
	return ""
}

func (r *rig) proc(pid, name string) string {
	r.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", pid, name))
	r.must(err)
	return string(b)
}

// cpu is the time the process spent so far. Linux counts it in 1/100 s.
func (r *rig) cpu(pid string) time.Duration {
	r.Helper()
	_, fields, _ := strings.Cut(r.proc(pid, "stat"), ") ")
	f := strings.Fields(fields)
	user, err := strconv.Atoi(f[11])
	r.must(err)
	system, err := strconv.Atoi(f[12])
	r.must(err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (r *rig) size(file string) int64 {
	r.Helper()
	fi, err := os.Stat(file)
	r.must(err)
	return fi.Size()
}

// kb reads a line "Name:   1234 kB" of /proc/PID/status.
func kb(status, name string) float64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}
