package vllmdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/layerprof/layerprof/perfio"
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

// StartError is a worker or an engine that did not come up.
type StartError struct {
	Err error
	// LastWords is the tail of what was printed; "" if nothing was.
	LastWords string
}

func (e *StartError) Error() string {
	if e.LastWords == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "\nthe worker's last words:\n" + indent(lastLines(e.LastWords, 25))
}

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

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

// Boot starts the engine in a worker that never had one. A refusal is a
// *StartError around a *WorkerError.
func (d *Driver) Boot(ctx context.Context, spec profile.EngineSpec) (*profile.Engine, error) {
	op, err := newBootRequest(spec)
	if err != nil {
		return nil, err
	}
	hash, err := configHash(op.Config)
	if err != nil {
		return nil, err
	}
	c, err := d.startAnew(ctx)
	if err != nil {
		return nil, err
	}
	if spec.TPMode == profile.RealTP && spec.TP > 1 && !slices.Contains(d.hello.Capabilities, capabilityRealTP) {
		return nil, d.refused(c, &WorkerError{Code: "boot", Message: fmt.Sprintf(
			"tp mode real: found the capabilities %v, expected %s among them", d.hello.Capabilities, capabilityRealTP)})
	}
	d.busy.Store(true)
	defer d.busy.Store(false)
	began := time.Now()
	var result bootResult
	booted := make(chan struct{})
	go c.process.noteUntil(booted)
	err = c.call(ctx, op, d.options.BootDeadline, &result)
	close(booted)
	if err == nil {
		err = result.Limits.check()
	}
	if err == nil {
		err = checkCatalog(op.Catalog, &result)
	}
	if err != nil {
		return nil, d.refused(c, err)
	}
	c.process.note()
	d.spec, d.limits = &spec, result.Limits
	d.expected = d.expected[:0]
	for _, e := range op.Catalog {
		d.expected = append(d.expected, e.Layer)
	}
	return d.engine(&result, op, hash, time.Since(began)), nil
}

func newBootRequest(spec profile.EngineSpec) (*bootRequest, error) {
	switch {
	case spec.Model == nil || spec.Architecture == nil:
		return nil, errors.New("boot: a model and its architecture are needed")
	case spec.TP < 1 || spec.MaxNumBatchedTokens < 1 || spec.MaxNumSeqs < 1:
		return nil, fmt.Errorf("boot: found tp %d, max_num_batched_tokens %d, max_num_seqs %d, expected at least 1",
			spec.TP, spec.MaxNumBatchedTokens, spec.MaxNumSeqs)
	}
	op := &bootRequest{
		request: request{Op: "boot"},
		Model:   spec.Model.ID, TP: spec.TP, TPMode: spec.TPMode, DType: spec.DType, KVCacheDType: cmp.Or(spec.KVCacheDType, "auto"),
		MaxNumBatchedTokens: spec.MaxNumBatchedTokens + spec.MaxNumSeqs, MaxNumSeqs: spec.MaxNumSeqs,
		MaxModelLen: cmp.Or(spec.MaxModelLen, spec.Model.MaxPositionEmbeddings),
		Blocks:      max(spec.Blocks, 1), EngineArgs: spec.EngineArgs, Seed: spec.Seed,
	}
	if op.EngineArgs == nil {
		op.EngineArgs = map[string]string{}
	}
	var err error
	divisor := spec.TP
	switch spec.TPMode {
	case profile.RealTP:
		divisor = 1 // the engine divides, or says why it cannot
	case "", profile.EmulatedTP:
		op.TPMode = "" // as workers that know no other have it
	default:
		return nil, fmt.Errorf("boot: tp mode: found %q, expected %s or %s", spec.TPMode, profile.EmulatedTP, profile.RealTP)
	}
	if op.Config, err = engineConfig(spec.Model, divisor, op.Blocks); err != nil {
		return nil, err
	}
	for _, e := range spec.Architecture.Catalog {
		op.Catalog = append(op.Catalog, catalogEntry{Layer: e.Layer, Category: e.Category, VLLM: e.VLLM, Within: e.Within})
	}
	return op, nil
}

// checkCatalog: an entry without a module would have no rows.
func checkCatalog(catalog []catalogEntry, result *bootResult) error {
	modules := make(map[string]int)
	for _, m := range result.Catalog {
		modules[m.Layer] = len(m.Modules)
	}
	for _, e := range catalog {
		if modules[e.Layer] == 0 {
			return &WorkerError{Code: "catalog", Message: fmt.Sprintf("the catalog's %s (%s) matches no module of the engine",
				e.Layer, strings.Join(e.VLLM, " or "))}
		}
	}
	return nil
}

func (d *Driver) engine(result *bootResult, op *bootRequest, hash string, took time.Duration) *profile.Engine {
	spec := d.spec
	e := &profile.Engine{
		Limits: profile.Limits{
			MaxNumBatchedTokens: spec.MaxNumBatchedTokens,
			MaxNumSeqs:          spec.MaxNumSeqs,
			MaxModelLen:         cmp.Or(result.Limits.MaxModelLen, op.MaxModelLen),
			CacheTokens:         result.Limits.CacheTokens,
			BlockSize:           max(result.Limits.BlockSize, 1),
			NumExperts:          result.Limits.NumExperts,
			TopK:                result.Limits.TopK,
		},
		Origin: d.hello.Origin, GPU: result.GPU, SMCount: result.SMCount, AttentionBackend: result.AttentionBackend,
		ModelRunner: result.ModelRunner, CUDAVersion: result.CUDAVersion, UnmatchedModules: result.UnmatchedModules,
	}
	if d.hello.Name == "vllm" {
		e.VLLMVersion = result.EngineVersion
	}
	// The engine may have less than it was asked for.
	if n := result.Limits.MaxNumSeqs; n > 0 {
		e.Limits.MaxNumSeqs = min(e.Limits.MaxNumSeqs, n)
	}
	if n := result.Limits.MaxNumBatchedTokens; n > 0 {
		e.Limits.MaxNumBatchedTokens = max(1, min(e.Limits.MaxNumBatchedTokens, n-e.Limits.MaxNumSeqs))
	}
	for _, m := range result.Catalog {
		e.Catalog = append(e.Catalog, profile.CatalogMatch{Layer: m.Layer, Modules: m.Modules})
	}
	e.Fingerprint = maps.Clone(result.Fingerprint)
	if e.Fingerprint == nil {
		e.Fingerprint = make(map[string]string)
	}
	for k, v := range map[string]string{
		"driver": d.name, "worker": d.hello.Name, "engine_version": cmp.Or(result.EngineVersion, d.hello.Version),
		"gpu": result.GPU, "attention_backend": result.AttentionBackend, "model_runner": result.ModelRunner,
		"dtype": op.DType, "kv_cache_dtype": op.KVCacheDType, "blocks": fmt.Sprint(op.Blocks), "config_sha256": hash,
	} {
		if _, said := e.Fingerprint[k]; !said && v != "" {
			e.Fingerprint[k] = v
		}
	}
	for k, v := range op.EngineArgs {
		e.Fingerprint["engine_args."+k] = v
	}
	e.Provenance = maps.Clone(result.Provenance)
	if e.Provenance == nil {
		e.Provenance = make(map[string]any)
	}
	host := map[string]any{
		"name": d.hello.Name, "version": d.hello.Version, "protocol": ProtocolVersion, "boot_seconds": float64(took.Milliseconds()) / 1000,
		"config_sha256": hash,
	}
	if d.hash != "" {
		host["source_sha256"] = d.hash
	}
	env := make(map[string]any, len(d.record))
	for k, v := range d.record {
		env[k] = v
	}
	host["environment"] = env
	e.Provenance["worker"] = host
	return e
}

// Measure runs the shots. Those beyond the engine's limits are answered
// without being sent. After an error the worker is gone.
func (d *Driver) Measure(ctx context.Context, shots []profile.Shot, options profile.MeasureOptions, yield func(profile.Result) error) error {
	d.mu.Lock()
	c := d.client
	closed := d.closed
	d.mu.Unlock()
	switch {
	case closed:
		return errClosed
	case c == nil || d.spec == nil || d.serving:
		return &profile.EngineLostError{Index: -1, Err: errors.New("no engine is booted")}
	case options.Iterations < 1:
		return fmt.Errorf("measure: iterations: found %d, expected at least 1", options.Iterations)
	}
	d.calls++
	op := &measureRequest{
		Warmup: options.Warmup, Iterations: options.Iterations, FlushL2: options.FlushL2, Layers: options.Layers,
		Seed: d.spec.Seed + d.calls,
	}
	var sent []int // index in op.Shots -> index in shots
	for i, shot := range shots {
		if problem := d.limits.problem(shot); problem != "" {
			if err := yield(profile.Result{Index: i, Status: profile.Infeasible, Message: problem}); err != nil {
				return err
			}
			continue
		}
		op.Shots = append(op.Shots, shotRequest{Requests: shot.Requests(), Experts: shot.Experts, Histogram: shot.Histogram})
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return nil
	}
	d.busy.Store(true)
	defer d.busy.Store(false)
	call := &measureCall{perShot: cmp.Or(options.Deadline, d.options.ShotDeadline)}
	err := c.measure(ctx, op, call, func(i int, s *shotReply) error {
		return yield(d.result(sent[i], op, s))
	})
	if err == nil {
		return nil
	}
	patience := time.Duration(0)
	var refusal *WorkerError
	if errors.As(err, &refusal) && refusal.Fatal {
		patience = d.options.StopPatience // it exits by itself, with words in its log
	}
	dropErr := d.drop(c, patience)
	var own *yieldError
	switch {
	case d.isClosed():
		return errClosed
	case errors.As(err, &own):
		return errors.Join(own.err, dropErr)
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), dropErr)
	}
	lost := &profile.EngineLostError{Index: call.lostShot(), LastWords: c.process.tail.String(), Err: errors.Join(err, dropErr)}
	if lost.Index >= 0 {
		lost.Index = sent[lost.Index]
	}
	return lost
}

// problem says why a shot must not be fired, "" if it may.
func (l *bootLimits) problem(shot profile.Shot) string {
	tokens, sequences, slots := 0, 0, 0
	block := max(l.BlockSize, 1)
	for _, g := range shot.Groups {
		if g.Count < 1 || g.NewTokens < 1 || g.KVHistory < 0 {
			return fmt.Sprintf("found %d requests of %d new tokens after %d, expected at least 1, 1 and 0", g.Count, g.NewTokens, g.KVHistory)
		}
		tokens += g.Count * g.NewTokens
		sequences += g.Count
		slots += g.Count * ((g.NewTokens + g.KVHistory + block - 1) / block) * block
		if l.MaxModelLen > 0 && g.NewTokens+g.KVHistory+1 > l.MaxModelLen {
			return fmt.Sprintf("a sequence of %d tokens and one to come is longer than max_model_len %d", g.NewTokens+g.KVHistory, l.MaxModelLen)
		}
	}
	switch {
	case sequences == 0:
		return "a batch without requests"
	case l.MaxNumBatchedTokens > 0 && tokens > l.MaxNumBatchedTokens:
		return fmt.Sprintf("%d tokens are more than the engine's max_num_batched_tokens %d", tokens, l.MaxNumBatchedTokens)
	case l.MaxNumSeqs > 0 && sequences > l.MaxNumSeqs:
		return fmt.Sprintf("%d sequences are more than max_num_seqs %d", sequences, l.MaxNumSeqs)
	case l.CacheTokens > 0 && slots > l.CacheTokens:
		return fmt.Sprintf("%d slots of KV cache are more than the engine's %d", slots, l.CacheTokens)
	case shot.Experts > 0 && l.NumExperts > 0 && (shot.Experts > l.NumExperts || shot.Experts < l.TopK):
		return fmt.Sprintf("%d distinct experts, expected top_k %d to %d", shot.Experts, l.TopK, l.NumExperts)
	}
	return ""
}

// result converts a shot's answer; a layer that is not there makes it fail.
func (d *Driver) result(index int, op *measureRequest, s *shotReply) profile.Result {
	r := profile.Result{Index: index, Status: s.Status, Message: s.Message, Telemetry: s.Telemetry}
	if s.Status != profile.OK {
		return r
	}
	wanted := op.Layers
	if wanted == nil {
		wanted = d.expected
	}
	for _, name := range wanted {
		layer, ok := s.Layers[name]
		if !ok {
			return profile.Result{Index: index, Status: profile.Failed, Message: "the worker gave no time for layer " + name}
		}
		r.Layers = append(r.Layers, profile.LayerResult{
			Layer: name, SamplesUS: layer.US, Calls: layer.Calls, Launches: layer.Launches, KernelsUS: layer.Kernels, RanksUS: layer.RanksUS,
		})
	}
	for _, c := range s.Collectives {
		r.Collectives = append(r.Collectives, profile.CollectiveResult{
			Layer: c.Layer, Kind: c.Kind, Rows: c.Rows, Bytes: c.Bytes, Ranks: c.Ranks, Calls: c.Calls, SamplesUS: c.US, WaitUS: c.WaitUS, By: c.By,
		})
	}
	if d.spec.TPMode == profile.RealTP && d.spec.TP > 1 && len(r.Collectives) == 0 {
		return profile.Result{Index: index, Status: profile.Failed, Message: fmt.Sprintf("%d ranks, and the worker gave no collective", d.spec.TP)}
	}
	r.StepUS, r.Unaccounted = s.StepUS, s.Unaccounted
	r.Executed = groups(s.Executed)
	return r
}

// groups joins neighbours that are alike.
func groups(requests []perfio.Request) []profile.Group {
	var out []profile.Group
	for _, q := range requests {
		if n := len(out); n > 0 && out[n-1].NewTokens == q.NewTokens && out[n-1].KVHistory == q.KVHistory {
			out[n-1].Count++
			continue
		}
		out = append(out, profile.Group{Count: 1, NewTokens: q.NewTokens, KVHistory: q.KVHistory})
	}
	return out
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
