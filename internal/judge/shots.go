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

// Prediction is what a set of rules says of one layer of one measured batch.
type Prediction struct {
	Layer      string
	Kind       string // of the batch
	TP         int
	Rules      string
	Shot       int // index into the shots
	MeasuredUS float64
	traceloader.Estimate
	OK bool // false: the rules have no answer
}

// PredictedUS is the answer in microseconds.
func (p *Prediction) PredictedUS() float64 { return float64(p.LatencyNS) / 1000 }

// Shots judges a bundle by batches that were measured apart from it: at one
// tp, the first that the options want. Layers that the bundle does not hold
// are left out.
func Shots(b *perfio.Bundle, shots []perfio.BatchRow, o Options) (ShotsReport, error) {
	r := ShotsReport{Shots: []ShotResult{}}
	type part struct{ rules, layer string }
	var order []part
	errors := map[part]map[string]*accuracy.Errors{}
	degree := 0
	err := EachShot(b, shots, o, func(p Prediction) {
		degree = p.TP
		key := part{p.Rules, p.Layer}
		by := errors[key]
		if by == nil {
			order = append(order, key)
			by = map[string]*accuracy.Errors{}
			errors[key] = by
		}
		for _, k := range []string{p.Kind, "all"} {
			if by[k] == nil {
				by[k] = new(accuracy.Errors)
			}
			by[k].Add(p.PredictedUS(), p.Sigma, p.OK, p.MeasuredUS)
		}
	})
	for _, key := range order {
		for _, k := range kinds {
			if e := errors[key][k]; e != nil {
				r.Shots = append(r.Shots, ShotResult{Layer: key.layer, Kind: k, TP: degree, Rules: key.rules, Stats: e.Stats()})
			}
		}
	}
	return r, err
}

// EachShot hands over what Shots sums up: by rules, then by layer in order of
// their names, the batches in their order.
func EachShot(b *perfio.Bundle, shots []perfio.BatchRow, o Options, yield func(Prediction)) error {
	for _, tp := range b.TPs {
		if !o.wantsTP(tp.Degree) {
			continue
		}
		l, err := OpenLookups(b, o)
		if err == nil {
			l.EachShot(tp.Degree, shots, yield)
		}
		return err
	}
	return fmt.Errorf("judge: tp: found no folder tp%v", o.TPs)
}

// Lookups are a bundle opened by several sets of rules, for the batches of
// several degrees. They are safe for concurrent use.
type Lookups struct {
	rules  []string
	tables []*traceloader.Table // of each of the rules
}

// OpenLookups opens a bundle by the options' rules.
func OpenLookups(b *perfio.Bundle, o Options) (*Lookups, error) {
	l := &Lookups{rules: o.rules()}
	for _, name := range l.rules {
		options := traceloader.Options{Lenient: true, Rules: traceloader.Parity}
		if name != "parity" {
			options.Rules = traceloader.Accurate
		}
		t, err := traceloader.New(b, options)
		if err != nil {
			return nil, err
		}
		l.tables = append(l.tables, t)
	}
	return l, nil
}

// EachShot is the function EachShot at one degree.
func (l *Lookups) EachShot(degree int, shots []perfio.BatchRow, yield func(Prediction)) {
	layers := map[string]bool{}
	for _, s := range shots {
		for name := range s.MeasuredUS {
			layers[name] = true
		}
	}
	for n, rules := range l.rules {
		for _, layer := range slices.Sorted(maps.Keys(layers)) {
			ask := asker(l.tables[n], degree, layer, rules)
			if ask == nil {
				continue
			}
			for i, s := range shots {
				us := s.MeasuredUS[layer]
				if !(us > 0) || math.IsInf(us, 0) {
					continue
				}
				p := Prediction{Layer: layer, Kind: s.Kind, TP: degree, Rules: rules, Shot: i, MeasuredUS: us}
				if p.Kind == "" {
					p.Kind = perfio.KindOf(s.Requests)
				}
				p.Estimate, p.OK = ask(s.Requests)
				yield(p)
			}
		}
	}
}

// LeaveOneOut predicts each interior row of a degree's attention.csv by the
// straight line between its two neighbours along a test's axis (T3: the
// prefill chunk, T4: the decodes), as the parity rules would without the row.
func LeaveOneOut(tp *perfio.TP, test string, yield func(r perfio.AttentionRow, predictedUS float64)) {
	accuracy.LeaveOneOut(tp.Attention, test, parityRules{}, yield)
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
