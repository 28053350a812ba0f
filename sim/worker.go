package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Job is one run, to be done by a worker process of its own.
type Job struct {
	Seed int64           `json:"seed"`
	Data json.RawMessage `json:"data"` // whatever the work function needs
	// Procs is the worker's GOMAXPROCS; 0 means 1, which lets as many runs
	// proceed side by side as there are cores.
	Procs int `json:"procs"`
	// RealTime runs the work outside a bubble.
	RealTime bool `json:"real_time"`
}

// Output is what became of a job.
type Output struct {
	Job    Job
	Data   json.RawMessage // what the work function returned
	Err    string          // what it returned as an error
	Crash  *Crash          // the process died instead
	Real   time.Duration   // process start included
	MaxRSS int64           // bytes
}

// Crash is the death of a worker: a panic or a deadlock in the production code
// or the simulator takes the process with it.
type Crash struct {
	Seed   int64
	Exit   string // exit status 2, signal: killed, …
	Stderr string // excerpt
}

func (c *Crash) Error() string {
	return fmt.Sprintf("seed %d: the worker process died (%s):\n%s", c.Seed, c.Exit, c.Stderr)
}

// workerEnv marks a process as a worker.
const workerEnv = "SGSIM_WORKER"

// resultFD is where a worker writes its output: stdout and stderr belong to
// whatever goes wrong.
const resultFD = 3

type workerResult struct {
	Data json.RawMessage `json:"data"`
	Err  string          `json:"err"`
}

// WorkerMain makes this process do one job and exit, when a [Pool] started it
// as a worker; else it returns at once. Call it first thing in main. work runs
// in a bubble of virtual time.
func WorkerMain(work func(ctx context.Context, job Job) (any, error)) {
	if os.Getenv(workerEnv) == "" {
		return
	}
	os.Unsetenv(workerEnv)
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	var job Job
	if err == nil {
		err = json.Unmarshal(line, &job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker: reading its job:", err)
		os.Exit(70)
	}
	runtime.GOMAXPROCS(max(1, job.Procs))
	// A run is short and its garbage is most of what it allocates: collecting
	// it more seldom saves a tenth. The limit is what ten thousand services need:
	// with 600 MiB half of their time went into collecting.
	debug.SetGCPercent(300)
	debug.SetMemoryLimit(1300 << 20)
	go func() { // the pool closes our stdin when it dies, however it dies
		_, _ = io.Copy(io.Discard, in)
		os.Exit(130)
	}()
	var res workerResult
	run := func() {
		v, err := work(context.Background(), job)
		if err != nil {
			res.Err = err.Error()
		}
		if v != nil {
			if res.Data, err = json.Marshal(v); err != nil {
				res.Err = "encoding the result: " + err.Error()
			}
		}
	}
	finish := func() int {
		out := os.NewFile(resultFD, "result")
		if err := json.NewEncoder(out).Encode(res); err != nil {
			fmt.Fprintln(os.Stderr, "worker: writing its result:", err)
			return 70
		}
		return 0
	}
	if job.RealTime {
		run()
		os.Exit(finish())
	}
	inBubble(run, finish)
}

// Pool runs jobs in worker processes, spread over the cores. One process can
// hold one bubble of virtual time only, and a crash takes only its own seed.
type Pool struct {
	Exe     string        // a binary whose main calls [WorkerMain]; "" means this one
	Args    []string      // its arguments
	Workers int           // processes at a time; 0 means one per core
	Timeout time.Duration // of one job, in real time; 0 means 10 min
}

// Run does every job that next yields until it says that there is none, and
// calls each with every output as it comes, one at a time. When ctx ends the
// workers are killed and Run returns ctx's error; no worker survives Run.
func (p Pool) Run(ctx context.Context, next func() (Job, bool), each func(Output)) error {
	exe := p.Exe
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return fmt.Errorf("finding this program, to start workers: %w", err)
		}
	}
	workers := p.Workers
	if workers <= 0 {
		workers = runtime.NumCPU()
	}
	var mu sync.Mutex // of next, each and first
	var first error
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				job, more := next()
				more = more && first == nil
				mu.Unlock()
				if !more {
					return
				}
				out, err := p.work(ctx, exe, job)
				mu.Lock()
				switch {
				case err != nil && first == nil:
					first = err
				case err == nil && ctx.Err() == nil:
					each(out)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return first
}

// work does one job in a process of its own. The error is about the process's
// start; that it dies is part of the output.
func (p Pool) work(ctx context.Context, exe string, job Job) (Output, error) {
	limit := p.Timeout
	if limit <= 0 {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	line, err := json.Marshal(job)
	if err != nil {
		return Output{}, fmt.Errorf("encoding job %d: %w", job.Seed, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return Output{}, fmt.Errorf("starting a worker: %w", err)
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, exe, p.Args...)
	cmd.Env = append(os.Environ(), workerEnv+"=1", "GOTRACEBACK=all")
	cmd.ExtraFiles = []*os.File{w}
	// Not ours to pass on a ctrl-C to: we end the workers ourselves.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := &excerpt{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 2 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.Close()
		return Output{}, fmt.Errorf("starting a worker: %w", err)
	}
	began := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return Output{}, fmt.Errorf("starting a worker: %w", err)
	}
	_, _ = stdin.Write(append(line, '\n')) // a worker that is dead already is seen below
	var res workerResult
	decodeErr := json.NewDecoder(r).Decode(&res)
	err = cmd.Wait()
	stdin.Close()
	out := Output{Job: job, Data: res.Data, Err: res.Err, Real: time.Since(began)}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		out.MaxRSS = u.Maxrss << 10 // Linux counts KiB
	}
	if err != nil || decodeErr != nil {
		out.Crash = &Crash{Seed: job.Seed, Exit: cmd.ProcessState.String(), Stderr: log.String()}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			out.Crash.Exit = fmt.Sprintf("killed: it ran for %v", limit)
		}
	}
	return out, nil
}

// excerpt keeps the first and last bytes of what is written to it.
type excerpt struct {
	mu   sync.Mutex
	head []byte
	tail []byte
	left int
}

const excerptEnd = 6 << 10

func (e *excerpt) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(b)
	if room := excerptEnd - len(e.head); room > 0 {
		k := min(room, len(b))
		e.head = append(e.head, b[:k]...)
		b = b[k:]
	}
	e.tail = append(e.tail, b...)
	if over := len(e.tail) - excerptEnd; over > 0 {
		e.left += over
		e.tail = append(e.tail[:0], e.tail[over:]...)
	}
	return n, nil
}

func (e *excerpt) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b bytes.Buffer
	b.Write(e.head)
	if e.left > 0 {
		b.WriteString("\n… " + strconv.Itoa(e.left) + " bytes left out …\n")
	}
	b.Write(e.tail)
	return b.String()
}
