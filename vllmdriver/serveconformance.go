package vllmdriver

import (
	"errors"
	"fmt"
	"math"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// serving tries boot_serving and serve, each on a worker of its own, where the
// worker says that it has them.
func (t *conformance) serving() error {
	const name = "boot_serving and serve"
	if !t.serves {
		t.skip(name, "the worker does not say the capability serve")
		return nil
	}
	if err := t.begin(); err != nil {
		return err
	}
	if !t.check("hello again", t.hello()) {
		return nil
	}
	serve := map[string]any{"op": "serve", "requests": []any{[]any{10, 3, 0.0, nil}}, "steps": 0, "seed": 1}
	t.check("serve before boot_serving is answered not_booted", t.refusal(serve, "not_booted"))
	if !t.check("boot_serving", t.bootServing()) {
		return nil
	}
	t.check("serve: every token of every request in its step", t.serveAll())
	t.check("serve: ends after the steps asked for", t.serveSome())
	serve["requests"] = []any{[]any{0, 3, 0.0, nil}}
	delete(serve, "id")
	t.check("serve: a request without tokens is answered bad_request", t.refusal(serve, "bad_request"))
	t.check("shutdown of a serving worker", t.shutdown())
	return nil
}

func (t *conformance) bootServing() error {
	op, err := newServingRequest(profile.ServingSpec{EngineSpec: t.spec, Mode: perfio.ModeEagerSync})
	if err != nil {
		return err
	}
	var result servingResult
	if err := t.c.call(t.ctx, op, t.d.options.BootDeadline, &result); err != nil {
		return err
	}
	if err := result.check(); err != nil {
		return err
	}
	if *result.AsyncScheduling {
		return errors.New("found async_scheduling, which was not asked for")
	}
	if l := result.Limits; l.MaxNumSeqs > op.MaxNumSeqs || l.MaxNumBatchedTokens > op.MaxNumBatchedTokens {
		return fmt.Errorf("found limits of %d tokens and %d sequences, expected at most %d and %d as asked for",
			l.MaxNumBatchedTokens, l.MaxNumSeqs, op.MaxNumBatchedTokens, op.MaxNumSeqs)
	}
	return nil
}

// serveAll serves three requests, the last after the first two.
func (t *conformance) serveAll() error {
	requests := [][2]int{{24, 4}, {7, 6}, {3, 1}}
	op := &serveRequest{Seed: 1}
	want := 0
	for i, q := range requests {
		op.Requests = append(op.Requests, [4]any{q[0], q[1], 0.0, 4 * i})
		want += q[0] + q[1] - 1
	}
	served, err := t.c.serve(t.ctx, op, nil)
	if err != nil {
		return err
	}
	if len(served.Requests) != len(requests) {
		return fmt.Errorf("found %d requests, expected %d", len(served.Requests), len(requests))
	}
	for _, q := range served.Requests {
		if q.OutputTokens != requests[q.Number][1] || math.IsNaN(q.DoneUS) || math.IsNaN(q.FirstTokenUS) {
			return fmt.Errorf("request %d: found %d tokens, done at %v, expected %d and a time", q.Number, q.OutputTokens, q.DoneUS, requests[q.Number][1])
		}
	}
	tokens, admitted := 0, 0
	for i := range served.Steps {
		admitted += served.Steps[i].Admitted
		for _, q := range served.Steps[i].Requests {
			tokens += q.NewTokens
		}
	}
	if tokens != want || admitted != len(requests) {
		return fmt.Errorf("found %d tokens and %d admissions in the steps, expected %d and %d", tokens, admitted, want, len(requests))
	}
	return nil
}

func (t *conformance) serveSome() error {
	const steps = 5
	served, err := t.c.serve(t.ctx, &serveRequest{Requests: [][4]any{{10, 100, 0.0, 0}}, Steps: steps, Seed: 1}, nil)
	if err != nil {
		return err
	}
	if n := len(served.Steps); n != steps {
		return fmt.Errorf("found %d steps, expected %d", n, steps)
	}
	if len(served.Requests) != 1 || !math.IsNaN(served.Requests[0].DoneUS) {
		return fmt.Errorf("found %+v, expected one request that is not done", served.Requests)
	}
	return nil
}
