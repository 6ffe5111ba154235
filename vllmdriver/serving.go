package vllmdriver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// capabilityServe is what a worker that serves requests says in its hello.
const capabilityServe = "serve"

// serveDeadline is how long a worker that serves may say nothing: a step may
// compile kernels first.
const serveDeadline = 5 * time.Minute

var _ profile.StepDriver = (*Driver)(nil)

// defaultStepModes are measured where a worker does not say which are worth it.
var defaultStepModes = []string{perfio.ModeGraphSync, perfio.ModeGraphAsync, perfio.ModeEagerSync}

// StepModes implements profile.StepDriver: what the worker's probe says, none
// where the worker does not serve.
func (d *Driver) StepModes(ctx context.Context) ([]string, error) {
	if _, err := d.start(ctx); err != nil {
		return nil, err
	}
	if !slices.Contains(d.hello.Capabilities, capabilityServe) {
		return nil, nil
	}
	found, err := d.Probe(ctx)
	if err != nil {
		return nil, err
	}
	said, ok := found["step_modes"].([]any)
	if !ok {
		return slices.Clone(defaultStepModes), nil
	}
	var modes []string
	for _, v := range said {
		mode, _ := v.(string)
		if !slices.Contains(perfio.StepModes(), mode) {
			return nil, fmt.Errorf("%w: probe: step_modes: found %v, expected some of %v", ErrProtocol, v, perfio.StepModes())
		}
		modes = append(modes, mode)
	}
	return modes, nil
}

type servingRequest struct {
	request
	Model               string            `json:"model"`
	Config              map[string]any    `json:"config"`
	DType               string            `json:"dtype"`
	KVCacheDType        string            `json:"kv_cache_dtype"`
	MaxNumBatchedTokens int               `json:"max_num_batched_tokens"`
	MaxNumSeqs          int               `json:"max_num_seqs"`
	MaxModelLen         int               `json:"max_model_len"`
	EngineArgs          map[string]string `json:"engine_args"`
	Seed                int64             `json:"seed"`
	EnforceEager        bool              `json:"enforce_eager"`
	AsyncScheduling     bool              `json:"async_scheduling"`
}

type servingResult struct {
	bootResult
	AsyncScheduling *bool `json:"async_scheduling"`
}

func newServingRequest(spec profile.ServingSpec) (*servingRequest, error) {
	if spec.Model == nil || spec.MaxNumBatchedTokens < 1 || spec.MaxNumSeqs < 1 || !slices.Contains(perfio.StepModes(), spec.Mode) {
		return nil, fmt.Errorf("boot_serving: found max_num_batched_tokens %d, max_num_seqs %d, mode %q, expected a model, at least 1 and one of %v",
			spec.MaxNumBatchedTokens, spec.MaxNumSeqs, spec.Mode, perfio.StepModes())
	}
	op := &servingRequest{
		request: request{Op: "boot_serving"},
		Model:   spec.Model.ID, DType: spec.DType, KVCacheDType: cmp.Or(spec.KVCacheDType, "auto"),
		MaxNumBatchedTokens: spec.MaxNumBatchedTokens, MaxNumSeqs: spec.MaxNumSeqs,
		MaxModelLen: cmp.Or(spec.MaxModelLen, spec.Model.MaxPositionEmbeddings),
		EngineArgs:  spec.EngineArgs, Seed: spec.Seed, EnforceEager: spec.Eager(), AsyncScheduling: spec.Async(),
	}
	if op.EngineArgs == nil {
		op.EngineArgs = map[string]string{}
	}
	var err error
	op.Config, err = engineConfig(spec.Model, 1, cmp.Or(spec.Layers, spec.Model.NumHiddenLayers))
	return op, err
}

// BootServing implements profile.StepDriver, in a worker that never had an engine.
func (d *Driver) BootServing(ctx context.Context, spec profile.ServingSpec) (*profile.ServingEngine, error) {
	op, err := newServingRequest(spec)
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
	if !slices.Contains(d.hello.Capabilities, capabilityServe) {
		return nil, fmt.Errorf("boot_serving: worker %s does not serve requests", d.hello.Name)
	}
	d.busy.Store(true)
	defer d.busy.Store(false)
	began := time.Now()
	var result servingResult
	err = c.call(ctx, op, d.options.BootDeadline, &result)
	if err == nil {
		err = result.check()
	}
	if err != nil {
		refused := d.refused(c, err)
		var refusal *WorkerError
		if errors.As(err, &refusal) && refusal.Code == "out_of_memory" {
			return nil, fmt.Errorf("%w: %w", profile.ErrOutOfMemory, refused)
		}
		return nil, refused
	}
	c.process.note()
	d.spec, d.serving = &spec.EngineSpec, true
	// engine has the limits of an engine that was booted with more tokens.
	boot := &bootRequest{DType: op.DType, KVCacheDType: op.KVCacheDType, MaxModelLen: op.MaxModelLen, EngineArgs: op.EngineArgs}
	took := time.Since(began)
	e := &profile.ServingEngine{Engine: *d.engine(&result.bootResult, boot, hash, took), BootSeconds: took.Seconds()}
	if n := result.Limits.MaxNumBatchedTokens; n > 0 {
		e.Limits.MaxNumBatchedTokens = n
	}
	delete(e.Fingerprint, "blocks")
	e.AsyncScheduling = *result.AsyncScheduling
	e.CaptureSizes = integersIn(result.Provenance["capture_sizes"])
	e.GraphMode, _ = result.Provenance["graph_mode"].(string)
	e.CPU, _ = result.Provenance["cpu"].(string)
	if n, ok := result.Provenance["layers"].(float64); ok {
		e.Layers = int(n)
	}
	return e, nil
}

func (r *servingResult) check() error {
	if err := r.Limits.check(); err != nil {
		return err
	}
	if r.AsyncScheduling == nil {
		return fmt.Errorf("%w: boot_serving: async_scheduling: found none", ErrProtocol)
	}
	if n, ok := r.Provenance["layers"].(float64); !ok || n < 1 {
		return fmt.Errorf("%w: boot_serving: provenance.layers: found %v, expected the depth", ErrProtocol, r.Provenance["layers"])
	}
	return nil
}

// integersIn are the whole numbers of a decoded JSON list.
func integersIn(value any) []int {
	list, _ := value.([]any)
	var out []int
	for _, v := range list {
		if n, ok := v.(float64); ok && n == math.Trunc(n) {
			out = append(out, int(n))
		}
	}
	return out
}

// startAnew gives a worker that never booted: one engine a process, whose memory
// is then surely given back.
func (d *Driver) startAnew(ctx context.Context) (*client, error) {
	if d.spec != nil {
		d.mu.Lock()
		c := d.client
		d.mu.Unlock()
		if c != nil {
			if err := d.drop(c, d.options.StopPatience); err != nil {
				return nil, err
			}
		}
	}
	return d.start(ctx)
}

type serveRequest struct {
	request
	Requests [][4]any `json:"requests"` // prompt_tokens, output_tokens, arrival_us, at_step
	Steps    int      `json:"steps"`
	Seed     int64    `json:"seed"`
}

type serveResult struct {
	// number, arrival_us, added_us, first_token_us, done_us, output_tokens
	Requests [][]*float64 `json:"requests"`
	Steps    *int         `json:"steps"`
}

// Serve implements profile.StepDriver.
func (d *Driver) Serve(ctx context.Context, w profile.Workload, progress func(served int)) (*profile.Served, error) {
	d.mu.Lock()
	c := d.client
	closed := d.closed
	d.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case c == nil || d.spec == nil || !d.serving:
		return nil, errors.New("serve: no serving engine is booted")
	}
	op := &serveRequest{Steps: w.Steps, Seed: w.Seed, Requests: make([][4]any, len(w.Requests))}
	for i, q := range w.Requests {
		op.Requests[i] = [4]any{q.PromptTokens, q.OutputTokens, q.ArrivalUS, nil}
		if q.AtStep != nil {
			op.Requests[i][3] = *q.AtStep
		}
	}
	d.busy.Store(true)
	defer d.busy.Store(false)
	served, err := c.serve(ctx, op, progress)
	if err == nil {
		return served, nil
	}
	words := c.process.tail.String()
	dropErr := d.drop(c, 0)
	switch {
	case d.isClosed():
		return nil, errClosed
	case ctx.Err() != nil:
		return nil, errors.Join(ctx.Err(), dropErr)
	}
	return nil, &profile.EngineLostError{Index: -1, LastWords: words, Err: errors.Join(err, dropErr)}
}

// serve sends the request and gathers its steps.
func (c *client) serve(ctx context.Context, op *serveRequest, progress func(int)) (*profile.Served, error) {
	c.lastID++
	op.ID, op.Op, op.DeadlineS = c.lastID, "serve", serveDeadline.Seconds()
	timer := time.NewTimer(serveDeadline)
	defer timer.Stop()
	if err := c.send(ctx, op, serveDeadline); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	out := new(profile.Served)
	for {
		r, err := c.receive(ctx, op.ID, timer)
		switch {
		case err != nil:
			return nil, fmt.Errorf("serve: %w", err)
		case r.Result != nil:
			if err := profile.CheckSteps(out.Steps); err != nil {
				return nil, fmt.Errorf("serve: %w: %w", ErrProtocol, err)
			}
			if err := finishServed(out, r.Result, len(op.Requests)); err != nil {
				return nil, fmt.Errorf("serve: %w: result: %w", ErrProtocol, err)
			}
			return out, nil
		case r.Served != nil:
			if progress != nil {
				progress(*r.Served)
			}
		case r.Steps != nil:
			out.Steps = append(out.Steps, r.Steps...)
		default:
			return nil, fmt.Errorf("serve: %w: found a shot, expected served, steps or a result", ErrProtocol)
		}
		timer.Reset(serveDeadline)
	}
}

// finishServed takes the end of a serve in: the requests' times.
func finishServed(out *profile.Served, text json.RawMessage, n int) error {
	var result serveResult
	if err := json.Unmarshal(text, &result); err != nil {
		return err
	}
	if result.Steps == nil || *result.Steps != len(out.Steps) {
		return fmt.Errorf("steps: found %v, expected the %d that were sent", result.Steps, len(out.Steps))
	}
	seen := make([]bool, n)
	for _, row := range result.Requests {
		const fields = 6
		if len(row) != fields || row[0] == nil || row[1] == nil || row[2] == nil || row[5] == nil {
			return fmt.Errorf("requests: found %d fields, or none where there must be one, expected %d", len(row), fields)
		}
		q := profile.ServedRequest{
			Number: int(*row[0]), ArrivalUS: *row[1], AddedUS: *row[2], FirstTokenUS: math.NaN(), DoneUS: math.NaN(), OutputTokens: int(*row[5]),
		}
		if float64(q.Number) != *row[0] || q.Number < 0 || q.Number >= n || seen[q.Number] {
			return fmt.Errorf("requests: found number %v of %d, or a second time", *row[0], n)
		}
		seen[q.Number] = true
		if row[3] != nil {
			q.FirstTokenUS = *row[3]
		}
		if row[4] != nil {
			q.DoneUS = *row[4]
		}
		if q.OutputTokens < 0 || q.FirstTokenUS < q.AddedUS || q.DoneUS < q.FirstTokenUS {
			return fmt.Errorf("requests: number %d: found times %v, %v, %v, expected them in order", q.Number, q.AddedUS, q.FirstTokenUS, q.DoneUS)
		}
		out.Requests = append(out.Requests, q)
	}
	return nil
}
