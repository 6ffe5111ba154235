package vllmdriver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// Check is one point of the protocol that a worker keeps or breaks.
type Check struct {
	Name string `json:"name"`
	// Problem is what was found; "" where the worker keeps the point.
	Problem string `json:"problem,omitempty"`
	// Skipped says why a point does not apply to this worker.
	Skipped string `json:"skipped,omitempty"`
}

// Conformance starts the worker several times and tries every operation of
// PROTOCOL.md on it, wrong requests included. spec is what it is to boot; its
// Model nil: a small Llama. An error means that the checks could not be run to
// their end; the checks made until then are returned with it.
func Conformance(ctx context.Context, options Options, spec profile.EngineSpec) ([]Check, error) {
	if spec.Model == nil {
		if err := smallSpec(&spec); err != nil {
			return nil, err
		}
	}
	d, err := New(options)
	if err != nil {
		return nil, err
	}
	t := &conformance{ctx: ctx, d: d, spec: spec}
	err = t.run()
	return t.checks, errors.Join(err, d.Close())
}

func smallSpec(spec *profile.EngineSpec) error {
	const config = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":256,"intermediate_size":512,
		"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"vocab_size":1024,
		"max_position_embeddings":2048,"rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_act":"silu","torch_dtype":"bfloat16",
		"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2}`
	model, err := perfio.ParseModelConfig(strings.NewReader(config), "small-llama/config.json")
	if err != nil {
		return err
	}
	if spec.Architecture == nil {
		if spec.Architecture, err = perfio.LoadArchitecture(model.ModelType); err != nil {
			return err
		}
	}
	spec.Model = model
	spec.TP = max(spec.TP, 1)
	spec.DType = cmp.Or(spec.DType, "bfloat16")
	spec.MaxNumBatchedTokens = cmp.Or(spec.MaxNumBatchedTokens, 512)
	spec.MaxNumSeqs = cmp.Or(spec.MaxNumSeqs, 256)
	spec.MaxModelLen = cmp.Or(spec.MaxModelLen, 1024)
	spec.Blocks = cmp.Or(spec.Blocks, 2)
	return nil
}

// conformance is one run of the checks over one worker after another.
type conformance struct {
	ctx    context.Context
	d      *Driver
	spec   profile.EngineSpec
	c      *client
	checks []Check
	origin profile.Origin
	serves bool
	boot   bootResult
	layers []string
}

// check records a point; the checks that need it go on only if it holds.
func (t *conformance) check(name string, err error) bool {
	c := Check{Name: name}
	if err != nil {
		c.Problem = err.Error()
	}
	t.checks = append(t.checks, c)
	return err == nil
}

func (t *conformance) skip(name, why string) {
	t.checks = append(t.checks, Check{Name: name, Skipped: why})
}

func (t *conformance) begin() error {
	var err error
	t.c, err = startClient(t.d.processSpec())
	return err
}

func (t *conformance) run() (err error) {
	if err := t.begin(); err != nil {
		return err
	}
	defer func() {
		if err != nil && t.c.process.tail.String() != "" {
			err = &StartError{Err: err, LastWords: t.c.process.tail.String()}
		}
		err = errors.Join(err, t.c.kill())
	}()
	if !t.check("hello", t.hello()) {
		return nil
	}
	t.check("unknown op is answered unknown_op", t.refusal(map[string]any{"op": "no_such_op"}, "unknown_op"))
	t.check("a line that is no JSON is answered bad_request", t.garbage())
	t.check("probe", t.probe())
	t.check("measure before boot is answered not_booted", t.refusal(measureOf(1, nil, shotOf([2]int{1, 16})), "not_booted"))
	if !t.check("boot", t.bootEngine()) {
		return nil
	}
	t.check("measure without shots is answered bad_request", t.refusal(map[string]any{"op": "measure", "iterations": 1}, "bad_request"))
	t.check("measure: every shot once, every layer, every sample", t.measure(3, nil, t.shots()...))
	t.check("measure: only the layers asked for", t.measure(2, t.layers[:1], shotOf([2]int{1, 16})))
	t.check("measure: as many requests as there may be", t.measure(1, nil, t.widest()))
	t.check("measure: unknown fields are ignored", t.unknownFields())
	for _, c := range t.beyond() {
		t.check("beyond limits is infeasible: "+c.name, t.infeasible(c.shot))
	}
	t.check("infeasible shots leave the others alone", t.among())
	t.experts()
	t.check("operations are answered in their order", t.order())
	t.check("shutdown ends the worker with status 0", t.shutdown())
	if err := t.begin(); err != nil {
		return err
	}
	t.check("the end of the requests ends the worker", t.endOfRequests())
	if err := t.serving(); err != nil {
		return err
	}
	const unmatched = "a catalog entry without a module is answered catalog"
	if t.origin != profile.Measured {
		t.skip(unmatched, "the worker's numbers are synthetic: there are no modules")
		return nil
	}
	if err := t.begin(); err != nil {
		return err
	}
	t.check(unmatched, t.unmatched())
	return nil
}

func (t *conformance) hello() error {
	hello := new(Hello)
	err := t.c.call(t.ctx, &helloRequest{request: request{Op: "hello"}, Protocol: ProtocolVersion}, t.d.options.HelloDeadline, hello)
	if err == nil {
		err = hello.check()
	}
	t.origin, t.serves = hello.Origin, slices.Contains(hello.Capabilities, capabilityServe)
	return err
}

func (t *conformance) probe() error {
	var out map[string]any
	return t.c.call(t.ctx, &request{Op: "probe"}, t.d.options.HelloDeadline, &out)
}

// free sends an object that no type of ours stands for and returns the first
// reply.
func (t *conformance) free(op map[string]any) (*reply, error) {
	t.c.lastID++
	op["id"] = t.c.lastID
	timer := time.NewTimer(t.d.options.ShotDeadline)
	defer timer.Stop()
	if err := t.c.send(t.ctx, op, t.d.options.ShotDeadline); err != nil {
		return nil, err
	}
	return t.c.receive(t.ctx, t.c.lastID, timer)
}

func (t *conformance) refusal(op map[string]any, code string) error {
	_, err := t.free(op)
	return wantCode(err, code)
}

func wantCode(err error, code string) error {
	var refusal *WorkerError
	switch {
	case err == nil:
		return fmt.Errorf("found an answer, expected the error %s", code)
	case !errors.As(err, &refusal):
		return fmt.Errorf("expected the error %s: %w", code, err)
	case refusal.Code != code:
		return fmt.Errorf("found the error %s (%s), expected %s", refusal.Code, refusal.Message, code)
	}
	return nil
}

func (t *conformance) garbage() error {
	timer := time.NewTimer(t.d.options.ShotDeadline)
	defer timer.Stop()
	if _, err := t.c.process.requests.WriteString("this is no request\n"); err != nil {
		return err
	}
	_, err := t.c.receive(t.ctx, -1, timer)
	return wantCode(err, "bad_request")
}

func (t *conformance) bootEngine() error {
	op, err := newBootRequest(t.spec)
	if err != nil {
		return err
	}
	if err := t.c.call(t.ctx, op, t.d.options.BootDeadline, &t.boot); err != nil {
		return err
	}
	for _, e := range op.Catalog {
		t.layers = append(t.layers, e.Layer)
	}
	l := &t.boot.Limits
	if err := errors.Join(l.check(), checkCatalog(op.Catalog, &t.boot)); err != nil {
		return err
	}
	if l.MaxNumSeqs > op.MaxNumSeqs || l.MaxNumBatchedTokens > op.MaxNumBatchedTokens {
		return fmt.Errorf("found limits of %d tokens and %d sequences, expected at most %d and %d as asked for",
			l.MaxNumBatchedTokens, l.MaxNumSeqs, op.MaxNumBatchedTokens, op.MaxNumSeqs)
	}
	return nil
}

func shotOf(requests ...[2]int) shotRequest {
	var s shotRequest
	for _, r := range requests {
		s.Requests = append(s.Requests, perfio.Request{NewTokens: r[0], KVHistory: r[1]})
	}
	return s
}

func measureOf(iterations int, layers []string, shots ...shotRequest) map[string]any {
	return map[string]any{"op": "measure", "shots": shots, "warmup": 1, "iterations": iterations, "flush_l2": false, "layers": layers, "seed": 1}
}

// shots are feasible under any sensible limits.
func (t *conformance) shots() []shotRequest {
	shots := []shotRequest{shotOf([2]int{1, 16}), shotOf([2]int{16, 0}), shotOf([2]int{16, 32})}
	if n := t.boot.Limits.MaxNumSeqs; n == 0 || n >= 3 {
		shots = append(shots, shotOf([2]int{1, 100}, [2]int{1, 7}, [2]int{32, 0}))
	}
	return shots
}

func (t *conformance) widest() shotRequest {
	n := 256
	if limit := t.boot.Limits.MaxNumSeqs; limit > 0 {
		n = min(n, limit)
	}
	return shotOf(slices.Repeat([][2]int{{1, 16}}, n)...)
}

// answers measures shots and returns what came of each.
func (t *conformance) answers(iterations int, layers []string, shots ...shotRequest) ([]*shotReply, error) {
	op := &measureRequest{Shots: shots, Warmup: 1, Iterations: iterations, Layers: layers, Seed: 1}
	out := make([]*shotReply, len(shots))
	call := &measureCall{perShot: t.d.options.ShotDeadline}
	err := t.c.measure(t.ctx, op, call, func(i int, s *shotReply) error {
		out[i] = s
		return nil
	})
	return out, err
}

func (t *conformance) measure(iterations int, layers []string, shots ...shotRequest) error {
	answers, err := t.answers(iterations, layers, shots...)
	if err != nil {
		return err
	}
	if layers == nil {
		layers = t.layers
	}
	for i, s := range answers {
		if s.Status != profile.OK {
			return fmt.Errorf("shot %d: found %s (%s), expected ok", i, s.Status, s.Message)
		}
		for _, name := range layers {
			if _, ok := s.Layers[name]; !ok {
				return fmt.Errorf("shot %d: no time for layer %s", i, name)
			}
		}
		for name := range s.Layers {
			if !slices.Contains(layers, name) {
				return fmt.Errorf("shot %d: found layer %s, which was not asked for", i, name)
			}
		}
		if len(s.StepUS) != iterations {
			return fmt.Errorf("shot %d: step_us: found %d samples, expected %d", i, len(s.StepUS), iterations)
		}
	}
	return nil
}

func (t *conformance) unknownFields() error {
	op := measureOf(1, nil)
	op["later_field"] = map[string]any{"a": 1}
	op["shots"] = []map[string]any{{"requests": [][2]int{{1, 16}}, "experts": 0, "later_field": true}}
	r, err := t.free(op)
	for err == nil && r.Result == nil {
		if r.Shot != nil && r.Status != profile.OK {
			err = fmt.Errorf("found %s (%s), expected ok", r.Status, r.Message)
			break
		}
		timer := time.NewTimer(t.d.options.ShotDeadline)
		r, err = t.c.receive(t.ctx, t.c.lastID, timer)
		timer.Stop()
	}
	return err
}

type beyondCase struct {
	name string
	shot shotRequest
}

func (t *conformance) beyond() []beyondCase {
	l := t.boot.Limits
	cases := []beyondCase{{"a request without new tokens", shotOf([2]int{0, 16})}, {"no requests", shotRequest{Requests: []perfio.Request{}}}}
	if l.MaxNumBatchedTokens > 0 {
		cases = append(cases, beyondCase{"tokens", shotOf([2]int{l.MaxNumBatchedTokens + 1, 0})})
	}
	if l.MaxNumSeqs > 0 {
		cases = append(cases, beyondCase{"sequences", shotOf(slices.Repeat([][2]int{{1, 16}}, l.MaxNumSeqs+1)...)})
	}
	if l.MaxModelLen > 1 {
		cases = append(cases, beyondCase{"length", shotOf([2]int{1, l.MaxModelLen - 1})})
	}
	return cases
}

func (t *conformance) infeasible(shot shotRequest) error {
	answers, err := t.answers(1, nil, shot)
	if err != nil {
		return err
	}
	if s := answers[0]; s.Status != profile.Infeasible || s.Message == "" {
		return fmt.Errorf("found %s (%q), expected infeasible with a message", s.Status, s.Message)
	}
	return nil
}

func (t *conformance) among() error {
	answers, err := t.answers(1, nil, shotOf([2]int{1, 16}), shotOf([2]int{0, 16}), shotOf([2]int{16, 0}))
	if err != nil {
		return err
	}
	for i, want := range []profile.Status{profile.OK, profile.Infeasible, profile.OK} {
		if s := answers[i]; s.Status != want {
			return fmt.Errorf("shot %d: found %s (%s), expected %s", i, s.Status, s.Message, want)
		}
	}
	return nil
}

func (t *conformance) experts() {
	const name = "measure: forced experts"
	l := t.boot.Limits
	if l.NumExperts == 0 {
		t.skip(name, "the model has no experts")
		return
	}
	shot := shotOf([2]int{64, 0})
	shot.Experts = max(l.TopK, 1)
	t.check(name, t.measure(1, nil, shot))
}

// order sends two requests before it reads a reply.
func (t *conformance) order() error {
	first, second := t.c.lastID+1, t.c.lastID+2
	t.c.lastID = second
	for _, id := range []int64{first, second} {
		if err := t.c.send(t.ctx, &request{ID: id, Op: "probe"}, t.d.options.HelloDeadline); err != nil {
			return err
		}
	}
	timer := time.NewTimer(t.d.options.HelloDeadline)
	defer timer.Stop()
	for _, id := range []int64{first, second} {
		if _, err := t.c.receive(t.ctx, id, timer); err != nil {
			return err
		}
	}
	return nil
}

func (t *conformance) shutdown() error {
	if err := t.c.call(t.ctx, &request{Op: "shutdown"}, t.d.options.HelloDeadline, nil); err != nil {
		return err
	}
	return t.ends(true)
}

func (t *conformance) endOfRequests() error {
	if err := t.hello(); err != nil {
		return err
	}
	if err := t.c.process.requests.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return t.ends(false)
}

// ends waits for the worker to end by itself.
func (t *conformance) ends(cleanly bool) error {
	select {
	case <-t.c.process.done:
	case <-time.After(10 * time.Second):
		return errors.Join(errors.New("the worker still runs after 10 s"), t.c.kill())
	}
	t.c.leave()
	if cleanly && t.c.process.waitErr != nil {
		return errors.New(t.c.process.fate())
	}
	return t.c.process.gone(killPatience)
}

func (t *conformance) unmatched() error {
	if err := t.hello(); err != nil {
		return err
	}
	op, err := newBootRequest(t.spec)
	if err != nil {
		return err
	}
	op.Catalog = append(op.Catalog, catalogEntry{Layer: "no_such_layer", Category: "dense", VLLM: []string{"NoSuchModuleClass"}})
	return wantCode(t.c.call(t.ctx, op, t.d.options.BootDeadline, nil), "catalog")
}

// Report is the checks as text, a line each.
func Report(checks []Check) string {
	var b bytes.Buffer
	for _, c := range checks {
		switch {
		case c.Skipped != "":
			fmt.Fprintf(&b, "skip  %s: %s\n", c.Name, c.Skipped)
		case c.Problem != "":
			fmt.Fprintf(&b, "FAIL  %s: %s\n", c.Name, c.Problem)
		default:
			fmt.Fprintf(&b, "ok    %s\n", c.Name)
		}
	}
	return b.String()
}
