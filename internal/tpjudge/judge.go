// Package tpjudge puts tensor parallelism as it was emulated, on one device with
// a model's sizes divided, beside the same degree of a real engine: layer by
// layer, and step by step with what the ranks exchange, which the emulation
// does not have.
package tpjudge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/stat"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Result is a whole comparison.
type Result struct {
	Real     string             `json:"real"`
	Emulated string             `json:"emulated"`
	Facts    []bundlediff.Fact  `json:"facts"`  // A is the real one
	Layers   []bundlediff.Group `json:"layers"` // B/A is emulated by real
	Degrees  []Degree           `json:"degrees"`
}

// Degree is one that both bundles have.
type Degree struct {
	TP          int          `json:"tp"`
	Collectives []Collective `json:"collectives"`
	// Blocks is the number of decoder blocks in Steps: the model's, 1 where that
	// is not known.
	Blocks int    `json:"blocks"`
	Steps  []Step `json:"steps"`
	// Batches are the random batches that both measured; nil without any.
	Batches *Batches `json:"batches,omitempty"`
	// Unanswered counts batches that lookups have no answer for, as where the
	// number of experts is not known.
	Unanswered int `json:"unanswered_steps,omitempty"`
}

// Collective is a row of collectives.csv.
type Collective struct {
	Layer  string  `json:"layer"`
	Kind   string  `json:"collective"`
	Tokens int     `json:"tokens"`
	Bytes  int     `json:"bytes"`
	Ranks  int     `json:"ranks"`
	TimeUS float64 `json:"time_us"`
	WaitUS float64 `json:"wait_us"`
	// GBPerSecond is bytes by time: what each rank gives.
	GBPerSecond float64 `json:"gb_per_second"`
}

// Step is one batch, which both bundles have measured the attention of.
type Step struct {
	Kind      string `json:"kind"`    // decode or prefill
	Tokens    int    `json:"tokens"`  // of decodes: requests
	KVHistory int    `json:"history"` // of each decode
	// EmulatedUS is what a simulator adds up of the emulated rows.
	EmulatedUS float64 `json:"emulated_us"`
	// LayersUS and CollectivesUS are the real degree's.
	LayersUS      float64 `json:"layers_us"`
	CollectivesUS float64 `json:"collectives_us"`
	// Layers is emulated by real layers alone, Whole by layers and collectives:
	// what the emulation gets wrong, and what it leaves out beside that.
	Layers float64 `json:"emulated_by_layers"`
	Whole  float64 `json:"emulated_by_whole"`
}

// Batches sums up batches that both bundles measured as they are, layers by
// layers, without any lookup between.
type Batches struct {
	N int `json:"n"`
	// Layers is emulated by real, the sum of the layers that both have.
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	// CollectivesShare is the median share of the collectives in the real
	// layers and collectives.
	CollectivesShare float64 `json:"collectives_share"`
}

// Compare puts an emulated bundle beside a real one of the same model.
func Compare(real, emulated *perfio.Bundle) (*Result, error) {
	for _, b := range []struct {
		bundle *perfio.Bundle
		mode   string
	}{{real, perfio.TPModeReal}, {emulated, perfio.TPModeEmulated}} {
		if found := b.bundle.Meta.TPMode(); found != b.mode {
			return nil, fmt.Errorf("%s: tp_mode: found %s, expected %s", b.bundle.Dir, found, b.mode)
		}
	}
	if a, b := real.Meta.Model(), emulated.Meta.Model(); a != b {
		return nil, fmt.Errorf("%s: model: found %s, expected %s as in %s", emulated.Dir, b, a, real.Dir)
	}
	diff := bundlediff.Compare(real, emulated, bundlediff.Options{Largest: -1})
	out := &Result{Real: real.Dir, Emulated: emulated.Dir, Facts: diff.Facts, Layers: diff.Groups}
	tables, err := bothTables(real, emulated)
	if err != nil {
		return nil, err
	}
	for i := range real.TPs {
		a, b := &real.TPs[i], emulated.TP(real.TPs[i].Degree)
		if b == nil || a.Degree == 1 {
			continue
		}
		d := Degree{TP: a.Degree, Collectives: collectives(a.Collectives)}
		if err := d.addSteps(tables, a, b); err != nil {
			return nil, err
		}
		d.addBatches(tables[0].Architecture(), a, b)
		out.Degrees = append(out.Degrees, d)
	}
	if len(out.Degrees) == 0 {
		return nil, errors.New("the two have no degree above 1 in common")
	}
	return out, nil
}

func bothTables(real, emulated *perfio.Bundle) (tables [2]*traceloader.Table, err error) {
	for i, b := range []*perfio.Bundle{real, emulated} {
		if tables[i], err = traceloader.New(b, traceloader.Options{}); err != nil {
			return tables, fmt.Errorf("%s: %w", b.Dir, err)
		}
	}
	return tables, nil
}

func collectives(rows []perfio.CollectiveRow) []Collective {
	var out []Collective
	for _, r := range rows {
		out = append(out, Collective{
			Layer: r.Layer, Kind: r.Collective, Tokens: r.Tokens, Bytes: r.Bytes, Ranks: r.Ranks, TimeUS: r.TimeUS, WaitUS: r.WaitUS,
			GBPerSecond: float64(r.Bytes) / r.TimeUS / 1e3,
		})
	}
	return out
}

// addSteps adds the pure decodes and pure prefills whose attention both measured.
func (d *Degree) addSteps(tables [2]*traceloader.Table, a, b *perfio.TP) (err error) {
	var walks [2]traceloader.Walk
	for i, t := range tables {
		if walks[i], err = t.Walk(a.Degree); err != nil {
			return err
		}
	}
	d.Blocks = max(walks[0].Depth(), 1)
	have := make(map[perfio.AttentionRow]bool)
	for _, r := range b.Attention {
		r.TimeUS = 0
		have[r] = true
	}
	for _, r := range a.Attention {
		r.TimeUS = 0
		if !have[r] {
			continue
		}
		s := Step{}
		var requests []perfio.Request
		switch {
		case r.PrefillChunk == 0:
			s = Step{Kind: "decode", Tokens: r.NDecode, KVHistory: r.KVDecode}
			requests = slices.Repeat([]perfio.Request{{NewTokens: 1, KVHistory: r.KVDecode}}, r.NDecode)
		case r.NDecode == 0 && r.KVPrefill == 0:
			s = Step{Kind: "prefill", Tokens: r.PrefillChunk}
			requests = []perfio.Request{{NewTokens: r.PrefillChunk}}
		default:
			continue
		}
		batch := traceloader.NewBatch(requests)
		var real, emulated traceloader.Step
		if !walks[0].Step(batch, &real) || !walks[1].Step(batch, &emulated) {
			d.Unanswered++
			continue
		}
		s.LayersUS, s.CollectivesUS = sums(&real, d.Blocks)
		s.EmulatedUS, _ = sums(&emulated, d.Blocks)
		s.Layers, s.Whole = s.EmulatedUS/s.LayersUS, s.EmulatedUS/(s.LayersUS+s.CollectivesUS)
		d.Steps = append(d.Steps, s)
	}
	slices.SortFunc(d.Steps, func(x, y Step) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.KVHistory, y.KVHistory), cmp.Compare(x.Tokens, y.Tokens))
	})
	return nil
}

// addBatches sums up the random batches of both.
func (d *Degree) addBatches(arch *perfio.Architecture, a, b *perfio.TP) {
	q := &arch.Sequence
	calls := make(map[string]float64) // of each layer in a step
	for _, part := range []struct {
		layers []string
		times  int
	}{{q.Prologue, 1}, {slices.Concat(q.PreAttn, q.PostAttn, q.MLPDense, q.MLPMoE), d.Blocks}, {q.Head, 1}} {
		for _, layer := range part.layers {
			calls[layer] += float64(part.times)
		}
	}
	emulated := make(map[string]*perfio.BatchRow)
	for i := range b.Batches {
		emulated[fmt.Sprint(b.Batches[i].Requests)] = &b.Batches[i]
	}
	var ratios, shares []float64
	for i := range a.Batches {
		real := &a.Batches[i]
		other := emulated[fmt.Sprint(real.Requests)]
		if other == nil {
			continue
		}
		var realUS, emulatedUS, collectivesUS float64
		for layer, us := range real.MeasuredUS {
			if otherUS, ok := other.MeasuredUS[layer]; ok {
				realUS, emulatedUS = realUS+calls[layer]*us, emulatedUS+calls[layer]*otherUS
			}
		}
		for layer, us := range real.CollectivesUS {
			collectivesUS += calls[layer] * us
		}
		if realUS > 0 {
			ratios = append(ratios, emulatedUS/realUS)
			shares = append(shares, collectivesUS/(realUS+collectivesUS))
		}
	}
	if len(ratios) == 0 {
		return
	}
	slices.Sort(ratios)
	slices.Sort(shares)
	at := func(list []float64, q float64) float64 { return stat.Quantile(q, stat.LinInterp, list, nil) }
	d.Batches = &Batches{N: len(ratios), P10: at(ratios, 0.1), P50: at(ratios, 0.5), P90: at(ratios, 0.9), CollectivesShare: at(shares, 0.5)}
}

// sums are a step's layers and collectives, with as many blocks as said.
func sums(s *traceloader.Step, blocks int) (layersUS, collectivesUS float64) {
	for _, part := range []struct {
		entries []traceloader.LayerLatency
		times   int
	}{{s.Prologue, 1}, {s.Block, blocks}, {s.Head, 1}} {
		for _, e := range part.entries {
			us := float64(e.LatencyNS) / 1e3 * float64(part.times)
			if e.Category == traceloader.CategoryCollective {
				collectivesUS += us
			} else {
				layersUS += us
			}
		}
	}
	return layersUS, collectivesUS
}
