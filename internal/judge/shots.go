package judge

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// ShotsReport is what independent measurements say.
type ShotsReport struct {
	Shots []ShotResult `json:"shots"`
}

// ShotResult is one layer of one kind of batch.
type ShotResult struct {
	Layer string `json:"layer"`
	Kind  string `json:"kind"` // or all
	TP    int    `json:"tp"`
	Rules string `json:"rules"`
	accuracy.Stats
}

// kinds in the order of reports.
var kinds = []string{"decode", "decode_skew", "prefill", "mixed", "mixed_skew", "multi", "all"}

// Shots judges a bundle by batches that were measured apart from it: at one
// tp, the first that the options want. Layers that the bundle does not hold
// are left out.
func Shots(b *perfio.Bundle, shots []perfio.BatchRow, o Options) (ShotsReport, error) {
	r := ShotsReport{Shots: []ShotResult{}}
	degree := 0
	for _, tp := range b.TPs {
		if o.wantsTP(tp.Degree) {
			degree = tp.Degree
			break
		}
	}
	if degree == 0 {
		return r, fmt.Errorf("judge: tp: found no folder tp%v", o.TPs)
	}
	layers := map[string]bool{}
	for _, s := range shots {
		for l := range s.MeasuredUS {
			layers[l] = true
		}
	}
	for _, name := range o.rules() {
		options := traceloader.Options{Lenient: true, Rules: traceloader.Parity}
		if name != "parity" {
			options.Rules = traceloader.Accurate
		}
		t, err := traceloader.New(b, options)
		if err != nil {
			return r, err
		}
		for _, layer := range slices.Sorted(maps.Keys(layers)) {
			ask := asker(t, degree, layer, name)
			if ask == nil {
				continue
			}
			by := map[string]*accuracy.Errors{}
			for _, s := range shots {
				us := s.MeasuredUS[layer]
				if !(us > 0) || math.IsInf(us, 0) {
					continue
				}
				kind := s.Kind
				if kind == "" {
					kind = perfio.KindOf(s.Requests)
				}
				e, ok := ask(s.Requests)
				for _, k := range []string{kind, "all"} {
					if by[k] == nil {
						by[k] = new(accuracy.Errors)
					}
					by[k].Add(float64(e.LatencyNS)/1000, e.Sigma, ok, us)
				}
			}
			for _, k := range kinds {
				if by[k] != nil {
					r.Shots = append(r.Shots, ShotResult{Layer: layer, Kind: k, TP: degree, Rules: name, Stats: by[k].Stats()})
				}
			}
		}
	}
	return r, nil
}

// asker finds a layer's handle; nil where the bundle does not hold it.
func asker(t *traceloader.Table, degree int, layer, rules string) func([]perfio.Request) (traceloader.Estimate, bool) {
	if layer == "attention" {
		h, ok := t.Attention(degree)
		switch {
		case !ok:
			return nil
		case rules == numbersName:
			return func(r []perfio.Request) (traceloader.Estimate, bool) {
				b := traceloader.NewBatch(r)
				return h.EstimateSkew(b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecodeMean, b.KVDecodeMax, b.KVDecodeMin)
			}
		}
		return h.EstimateBatch
	}
	if c, ok := t.Dense(degree, layer); ok {
		return func(r []perfio.Request) (traceloader.Estimate, bool) {
			return c.Estimate(traceloader.NewBatch(r).Tokens)
		}
	}
	if c, ok := t.PerSequence(degree, layer); ok {
		return func(r []perfio.Request) (traceloader.Estimate, bool) {
			return c.Estimate(traceloader.NewBatch(r).Sequences)
		}
	}
	return nil
}
