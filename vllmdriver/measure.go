package vllmdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

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
