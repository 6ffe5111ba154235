// Package servecheck has a real engine serve a list of requests, keeps what each
// step and each request took, and holds a bundle's answers against it.
//
// It is what `profile serve-check` does. Runs of it judge: nothing is fitted.
package servecheck

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/traceloader"
)

// Run is what an engine did with a list of requests in one mode.
type Run struct {
	Mode     string
	Engine   *profile.ServingEngine
	Steps    []profile.StepRecord // in the order in which they were scheduled
	Requests []*sim.Request       // in the list's order, with measured times
}

// Boot boots the engine for the list and warms it up.
func Boot(ctx context.Context, driver profile.StepDriver, spec profile.ServingSpec, list []*sim.Request) (*profile.ServingEngine, error) {
	engine, err := driver.BootServing(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("%s: boot: %w", spec.Mode, err)
	}
	if err := engine.Check(&spec); err != nil {
		return nil, fmt.Errorf("%s: boot: %w", spec.Mode, err)
	}
	if err := fits(list, engine.Limits); err != nil {
		return nil, err
	}
	if err := profile.ServeWarmUp(ctx, driver, engine.Limits, spec.Seed); err != nil {
		return nil, fmt.Errorf("%s: warm-up: %w", spec.Mode, err)
	}
	return engine, nil
}

// Serve has the engine that Boot booted by the same spec serve the list.
func Serve(ctx context.Context, driver profile.StepDriver, engine *profile.ServingEngine, spec profile.ServingSpec, list []*sim.Request) (*Run, error) {
	w := profile.Workload{Name: "requests", Seed: spec.Seed}
	for _, q := range list {
		w.Requests = append(w.Requests, profile.WorkloadRequest{
			PromptTokens: q.InputTokens, OutputTokens: q.OutputTokens, ArrivalUS: float64(q.ArrivalNS) / 1e3,
		})
	}
	served, err := driver.Serve(ctx, w, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Mode, err)
	}
	run := &Run{Mode: spec.Mode, Engine: engine, Steps: served.Steps, Requests: make([]*sim.Request, len(list))}
	for _, q := range served.Requests {
		of := list[q.Number]
		if math.IsNaN(q.DoneUS) || math.IsNaN(q.FirstTokenUS) || q.OutputTokens != of.OutputTokens {
			return nil, fmt.Errorf("%s: request %s: found %d tokens, expected %d", spec.Mode, of.ID, q.OutputTokens, of.OutputTokens)
		}
		measured := *of
		arrivalUS := float64(of.ArrivalNS) / 1e3
		measured.MeasuredTTFT, measured.MeasuredLatency = (q.FirstTokenUS-arrivalUS)/1e6, (q.DoneUS-arrivalUS)/1e6
		run.Requests[q.Number] = &measured
	}
	for i, q := range run.Requests {
		if q == nil {
			return nil, fmt.Errorf("%s: request %s: was not served", spec.Mode, list[i].ID)
		}
	}
	for i := range run.Steps {
		if math.IsNaN(run.Steps[i].HostMarksUS[profile.MarkExecute]) {
			return nil, fmt.Errorf("%s: step %d: no time of the call that executes it", spec.Mode, i)
		}
	}
	return run, nil
}

// fits refuses a list that the engine would.
func fits(list []*sim.Request, limits profile.Limits) error {
	if len(list) == 0 {
		return errors.New("requests: found none")
	}
	for _, q := range list {
		n := q.InputTokens + q.OutputTokens
		if limits.MaxModelLen > 0 && n > limits.MaxModelLen {
			return fmt.Errorf("request %s: found %d tokens in and out, expected at most the engine's max_model_len %d", q.ID, n, limits.MaxModelLen)
		}
		if limits.CacheTokens > 0 && n > limits.CacheTokens {
			return fmt.Errorf("request %s: found %d tokens in and out, expected at most the KV cache's %d", q.ID, n, limits.CacheTokens)
		}
	}
	return nil
}

// stepLine is one step in a file of steps.
type stepLine struct {
	StartUS float64 `json:"start_us"` // of the call that executes it
	profile.StepRecord
}

// WriteSteps writes the steps as JSON lines, which stepjudge.ReadSteps reads.
func (r *Run) WriteSteps(w io.Writer) error {
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	for _, s := range r.Steps {
		if err := encoder.Encode(stepLine{s.HostMarksUS[profile.MarkExecute], s}); err != nil {
			return err
		}
	}
	return out.Flush()
}

// WriteRequests writes the requests with their measured times, in seconds from
// the arrival, which sim.ReadRequests reads.
func (r *Run) WriteRequests(w io.Writer) error {
	return writeRequests(w, r.Requests, true)
}

// WriteList writes a list of requests that nobody has served yet.
func WriteList(w io.Writer, list []*sim.Request) error { return writeRequests(w, list, false) }

func writeRequests(w io.Writer, list []*sim.Request, measured bool) error {
	out := csv.NewWriter(w)
	header := []string{"request", "input_tokens", "output_tokens", "arrival_ns"}
	if measured {
		header = append(header, "measured_ttft_s", "measured_latency_s")
	}
	if err := out.Write(header); err != nil {
		return err
	}
	for _, q := range list {
		row := []string{q.ID, strconv.Itoa(q.InputTokens), strconv.Itoa(q.OutputTokens), strconv.FormatInt(q.ArrivalNS, 10)}
		if measured {
			row = append(row, strconv.FormatFloat(q.MeasuredTTFT, 'f', 6, 64), strconv.FormatFloat(q.MeasuredLatency, 'f', 6, 64))
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// simLimits are the run's engine as the small one of examples/serving has it.
func (r *Run) simLimits() sim.Limits {
	l := r.Engine.Limits
	block := max(l.BlockSize, 1)
	return sim.Limits{MaxNumBatchedTokens: l.MaxNumBatchedTokens, MaxNumSeqs: l.MaxNumSeqs, KVBlocks: l.CacheTokens / block, BlockSize: block}
}

// Compare holds the table's answers against the run. requestsFile is what
// WriteRequests wrote.
func (r *Run) Compare(table *traceloader.Table, requestsFile string) (*stepjudge.Report, error) {
	options := stepjudge.Options{TP: 1, Steps: traceloader.StepOptions{Mode: traceloader.StepMode(r.Mode), Depth: r.Engine.Layers}}
	steps := make([]stepjudge.Step, len(r.Steps))
	for i, s := range r.Steps {
		steps[i] = stepjudge.Step{Requests: s.Requests, StartUS: s.HostMarksUS[profile.MarkExecute]}
	}
	return stepjudge.Compare(table, options, steps, r.simLimits(), requestsFile)
}

// meanGapNS is the mean time between two arrivals of RandomRequests.
const meanGapNS = 50e6

// RandomRequests makes a list sized by the limits: lengths spread evenly by their
// logarithm, arrivals at random times, enough of them for the engine to be full.
// The same limits and seed give the same list.
func RandomRequests(limits profile.Limits, seed int64) []*sim.Request {
	rng := rand.New(rand.NewPCG(uint64(seed), 11))
	modelLen, seqs := limits.MaxModelLen, limits.MaxNumSeqs
	if modelLen <= 0 {
		modelLen = 8192
	}
	if seqs <= 0 {
		seqs = 256
	}
	length := func(lo, hi int) int {
		hi = max(hi, lo)
		return min(hi, int(math.Round(float64(lo)*math.Pow(float64(hi)/float64(lo), rng.Float64()))))
	}
	var list []*sim.Request
	at := 0.0
	for i := range min(300, max(16, 4*seqs)) {
		list = append(list, &sim.Request{
			ID: strconv.Itoa(i), ArrivalNS: int64(at), InputTokens: length(min(16, modelLen/4), min(2048, modelLen/4)),
			OutputTokens: length(min(16, modelLen/4), min(768, modelLen/4)),
		})
		at += rng.ExpFloat64() * meanGapNS
	}
	return list
}

// Modes are those of the driver that the bundle can answer.
func Modes(ctx context.Context, driver profile.Driver, bundle *perfio.Bundle) ([]string, error) {
	own, err := profile.StepModesOf(ctx, driver)
	if err != nil {
		return nil, err
	}
	tp := bundle.TP(1)
	var modes []string
	for _, mode := range own {
		for i := 0; tp != nil && i < len(tp.Steps); i++ {
			if tp.Steps[i].Mode == mode {
				modes = append(modes, mode)
				break
			}
		}
	}
	return modes, nil
}
