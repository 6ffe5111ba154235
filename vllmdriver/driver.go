package vllmdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// capabilityRealTP is what a worker says that can boot an engine of several
// ranks.
const capabilityRealTP = "tp_real"

var errClosed = errors.New("the driver is closed")

// Options say which worker to start and how long it may take. The zero value is
// the embedded worker for vLLM under "python3".
type Options struct {
	// Command is the worker's program and arguments; nil: the embedded worker.
	Command []string
	// Python runs the embedded worker; "": python3, else python.
	Python string
	// Env are changes to the worker's environment: "NAME=value" sets, "NAME"
	// alone removes.
	Env []string
	// Log gets all that the worker and its engine print; nil: nowhere. The end
	// of it is kept for messages anyway.
	Log io.Writer
	// LogPath, in place of Log, is a file that all of it is added to.
	LogPath string

	HelloDeadline time.Duration // 0: 2 minutes; a cold Python on a slow disk
	BootDeadline  time.Duration // 0: 20 minutes; a first boot compiles kernels
	ShotDeadline  time.Duration // where a Measure says none; 0: 2 minutes
	// StopPatience is how long a worker may take to end by itself; 0: 3 s.
	StopPatience time.Duration
}

// Driver is a profile.Driver over a worker process. Each Boot has a fresh one.
type Driver struct {
	options Options
	name    string // "vllm" or "exec"
	command []string
	env     []string
	record  map[string]string
	hash    string // of the embedded worker's sources
	log     *os.File

	mu     sync.Mutex // guards client and closed
	client *client
	closed bool

	// busy: the engine is booting or measuring.
	busy atomic.Bool

	hello    *Hello
	spec     *profile.EngineSpec // of the running engine
	serving  bool                // it was booted to serve requests
	limits   bootLimits
	expected []string // layers of the catalog
	calls    int64
}

// New makes a driver; it starts nothing yet.
func New(options Options) (*Driver, error) {
	options.HelloDeadline = cmp.Or(options.HelloDeadline, 2*time.Minute)
	options.BootDeadline = cmp.Or(options.BootDeadline, 20*time.Minute)
	options.ShotDeadline = cmp.Or(options.ShotDeadline, 2*time.Minute)
	options.StopPatience = cmp.Or(options.StopPatience, 3*time.Second)
	for _, kv := range options.Env {
		if strings.HasPrefix(kv, "=") || kv == "" {
			return nil, fmt.Errorf("env: found %q, expected NAME=value or NAME", kv)
		}
	}
	d := &Driver{name: "exec", command: slices.Clone(options.Command)}
	own := map[string]string{}
	if len(options.Command) == 0 {
		python, err := findPython(options.Python)
		if err != nil {
			return nil, err
		}
		if d.hash, err = workerHash(); err != nil {
			return nil, err
		}
		d.name = "vllm"
		d.command = []string{python}
		own = vllmEnvironment()
	}
	if options.LogPath != "" {
		log, err := os.OpenFile(options.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, fmt.Errorf("engine log: %w", err)
		}
		d.log, options.Log = log, log
	}
	d.options = options
	d.env, d.record = environment(os.Environ(), own, options.Env)
	return d, nil
}

// findPython finds the interpreter.
func findPython(python string) (string, error) {
	if python != "" {
		path, err := exec.LookPath(python)
		if err != nil {
			return "", fmt.Errorf("python: %s: no such program; --python says which to use: %w", python, err)
		}
		return path, nil
	}
	for _, name := range []string{"python3", "python"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("python: neither python3 nor python is on the PATH; --python says which to use: %w", exec.ErrNotFound)
}

// start starts a worker and greets it, if none runs.
func (d *Driver) start(ctx context.Context) (*client, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, errClosed
	}
	if c := d.client; c != nil {
		select {
		case <-c.process.done: // it died while it was idle
			_ = c.kill()
			d.client = nil
		default:
			d.mu.Unlock()
			return c, nil
		}
	}
	c, err := startClient(d.processSpec())
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	d.client = c
	d.mu.Unlock()
	hello := new(Hello)
	err = c.call(ctx, &helloRequest{request: request{Op: "hello"}, Protocol: ProtocolVersion}, d.options.HelloDeadline, hello)
	if err == nil {
		err = hello.check()
	}
	if err != nil {
		return nil, d.refused(c, err)
	}
	d.hello = hello
	return c, nil
}

func (d *Driver) processSpec() processSpec {
	return processSpec{Command: d.command, Embedded: d.name == "vllm", Env: d.env, Log: d.options.Log}
}

// refused ends a worker that could not do what it is for, and adds what it said.
func (d *Driver) refused(c *client, err error) error {
	if d.isClosed() {
		err = errClosed
	}
	// A worker that refused for good is about to say why in its log.
	var refusal *WorkerError
	var killErr error
	if errors.As(err, &refusal) {
		killErr = d.drop(c, d.options.StopPatience)
	} else {
		killErr = d.drop(c, 0)
	}
	out := &StartError{Err: errors.Join(d.advise(err), killErr), LastWords: c.process.tail.String()}
	return out
}

// advise adds what the user can do.
func (d *Driver) advise(err error) error {
	var refusal *WorkerError
	if d.name != "vllm" || !errors.As(err, &refusal) {
		return err
	}
	switch refusal.Code {
	case "missing":
		return fmt.Errorf("%w; --python names the interpreter of an environment that has vLLM (now %s)", err, d.command[0])
	case "import":
		return fmt.Errorf("%w; this vLLM is installed and does not load (%s -c 'import vllm' shows why)", err, d.command[0])
	}
	return err
}

// drop ends a worker, at once where patience is 0.
func (d *Driver) drop(c *client, patience time.Duration) error {
	d.mu.Lock()
	if d.client == c {
		d.client = nil
	}
	d.mu.Unlock()
	d.spec, d.serving = nil, false
	if patience > 0 {
		return c.stop(patience)
	}
	return c.kill()
}

func (d *Driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// Describe starts the worker and greets it; no engine is booted.
func (d *Driver) Describe(ctx context.Context) (profile.Description, error) {
	if _, err := d.start(ctx); err != nil {
		return profile.Description{}, err
	}
	version := d.hello.Version
	if d.name == "exec" {
		version = strings.TrimSpace(d.hello.Name + " " + version)
	}
	return profile.Description{
		Name: d.name, Version: version, Origin: d.hello.Origin, ShareRepeats: true,
		BatchShots: max(d.hello.BatchShots, 1), PaceShotsPerSecond: d.hello.PaceShotsPerSecond,
	}, nil
}

// Probe asks the worker what it can say without an engine.
func (d *Driver) Probe(ctx context.Context) (map[string]any, error) {
	c, err := d.start(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]any)
	if err := c.call(ctx, &request{Op: "probe"}, d.options.HelloDeadline, &out); err != nil {
		return nil, d.refused(c, err)
	}
	return out, nil
}

// LastWords is the end of what the running worker printed.
func (d *Driver) LastWords() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == nil {
		return ""
	}
	return d.client.process.tail.String()
}

// Close ends the worker, also one that is measuring.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	c := d.client
	d.mu.Unlock()
	var err error
	if c != nil && d.busy.Load() {
		err = c.kill()
	} else if c != nil {
		err = c.stopFromOutside(d.options.StopPatience)
	}
	if d.log != nil {
		err = errors.Join(err, d.log.Close())
	}
	return err
}
