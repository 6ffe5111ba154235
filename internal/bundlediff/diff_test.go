package bundlediff_test

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// sweep is a bundle with a dense layer of 128 rows and a decode grid, each time
// scattered by noise.
func sweep(seed uint64, noise float64) *perfio.Bundle {
	random := rand.New(rand.NewPCG(seed, 1))
	scattered := func(us float64) float64 { return us * math.Exp(noise*random.NormFloat64()) }
	tp := perfio.TP{Degree: 1}
	for _, layer := range []string{"down_proj", "qkv_proj"} {
		for tokens := 16; tokens <= 2048; tokens += 16 {
			tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: layer, Tokens: tokens, TimeUS: scattered(10 + float64(tokens)/20)})
		}
	}
	for n := 1; n <= 256; n *= 2 {
		for kv := 16; kv <= 16384; kv *= 2 {
			tp.Attention = append(tp.Attention, perfio.AttentionRow{NDecode: n, KVDecode: kv, TimeUS: scattered(5 + float64(n*kv)/1e4)})
		}
	}
	return &perfio.Bundle{Meta: bundletest.Bundle().Meta, TPs: []perfio.TP{tp}}
}

func verdicts(r *bundlediff.Result, layer string) map[string]int {
	out := map[string]int{}
	for _, g := range r.Groups {
		if g.Layer == layer {
			out[g.Verdict]++
		}
	}
	return out
}

func TestSelf(t *testing.T) {
	b := bundletest.Bundle()
	r := bundlediff.Compare(b, b, bundlediff.Options{MaxChange: 0.001})
	if r.Exceeded != 0 || len(r.Missing) != 0 || len(r.Facts) != 0 || len(r.Groups) == 0 {
		t.Errorf("a bundle against itself: %+v", r)
	}
	if len(r.Largest) != 0 {
		t.Errorf("rows that are equal are listed as changed: %+v", r.Largest)
	}
	for _, g := range r.Groups {
		if g.Ratio != 1 || g.P10 != 1 || g.P90 != 1 || g.Verdict == bundlediff.Change {
			t.Errorf("%+v", g)
		}
	}
}

// Two sweeps that differ in noise alone show none; each size of noise is told.
func TestNoiseIsNoChange(t *testing.T) {
	for _, noise := range []float64{0.001, 0.01, 0.03} {
		r := bundlediff.Compare(sweep(1, noise), sweep(2, noise), bundlediff.Options{MaxChange: 0.01})
		for _, g := range r.Groups {
			if g.Verdict != bundlediff.Noise || g.Exceeds {
				t.Errorf("noise %g: %+v", noise, g)
			}
			// Two bundles' noise; a robust estimate from a few dozen rows is rough.
			if g.N >= 64 && math.Abs(g.Noise/(noise*math.Sqrt2)-1) > 0.4 {
				t.Errorf("noise %g was taken for %g in %+v", noise, g.Noise, g)
			}
		}
	}
}

// A slowdown of one layer is found down to the floor, of that layer alone.
func TestSlowLayer(t *testing.T) {
	smallest := math.Inf(1)
	for _, change := range []float64{0.5, 0.05, 0.02, 0.013} {
		b := sweep(2, 0.003)
		for i := range b.TPs[0].Dense {
			if row := &b.TPs[0].Dense[i]; row.Layer == "qkv_proj" {
				row.TimeUS *= 1 + change
			}
		}
		r := bundlediff.Compare(sweep(1, 0.003), b, bundlediff.Options{MaxChange: change * 0.8})
		if got := verdicts(r, "qkv_proj"); got[bundlediff.Change] != 3 || r.Exceeded != 3 {
			t.Errorf("change %g: %v, %d exceeded", change, got, r.Exceeded)
		} else {
			smallest = math.Min(smallest, change)
		}
		if got := verdicts(r, "down_proj"); got[bundlediff.Noise] != 3 {
			t.Errorf("the other layer: %v", got)
		}
	}
	t.Logf("smallest slowdown found: %.1f%%", 100*smallest)
}

// Spikes do not move a median, but are listed first; a fifth of the rows is a
// change in part.
func TestRows(t *testing.T) {
	a, b := sweep(1, 0.003), sweep(2, 0.003)
	b.TPs[0].Attention[40].TimeUS *= 1.5
	r := bundlediff.Compare(a, b, bundlediff.Options{MaxChange: 0.05, Largest: 1})
	want := a.TPs[0].Attention[40]
	if r.Exceeded != 0 || len(r.Largest) != 1 || r.Largest[0].Verdict != bundlediff.Change || r.Largest[0].LineA != 42 ||
		r.Largest[0].AUS != want.TimeUS {
		t.Errorf("one spike: %d exceeded, largest %+v", r.Exceeded, r.Largest)
	}
	for i := range b.TPs[0].Dense {
		if i%5 == 0 {
			b.TPs[0].Dense[i].TimeUS *= 1.2
		}
	}
	r = bundlediff.Compare(a, b, bundlediff.Options{MaxChange: 0.05})
	if got := verdicts(r, "qkv_proj"); got[bundlediff.Part] != 3 || r.Exceeded < 6 {
		t.Errorf("a fifth of the rows: %v, %d exceeded", got, r.Exceeded)
	}
}

func TestMissing(t *testing.T) {
	a, b := bundletest.Bundle(), bundletest.Bundle()
	b.TPs[0].Dense = b.TPs[0].Dense[4:] // the first layer
	a.TPs[0].Attention = a.TPs[0].Attention[1:]
	b.TPs = b.TPs[:1] // no tp2 at all: nothing is asked of it
	r := bundlediff.Compare(a, b, bundlediff.Options{MaxChange: 0.05})
	exceeded, inB := 0, 0
	for _, m := range r.Missing {
		if m.Exceeds {
			exceeded++
			if m.Layer != "embedding" || m.TP != 1 || !m.All || m.Rows != 4 {
				t.Errorf("%+v", m)
			}
		}
		if m.In == "b" {
			inB++
		}
	}
	if exceeded != 1 || inB != 1 || r.Exceeded != 1 {
		t.Errorf("%d exceeded, %d only in b: %+v", exceeded, inB, r.Missing)
	}
}

// Sums of three runs compare with means.
func TestSumsAgainstMeans(t *testing.T) {
	a, b := bundletest.Bundle(), bundletest.Bundle()
	b.Meta.Delete("skew_statistic")
	for i := range b.TPs {
		for j := range b.TPs[i].Skew {
			row := &b.TPs[i].Skew[j]
			row.TMeanUS, row.TMaxUS, row.TSkewUS = 3*row.TMeanUS, 3*row.TMaxUS, 3*row.TSkewUS
		}
	}
	for _, g := range bundlediff.Compare(a, b, bundlediff.Options{}).Groups {
		if math.Abs(g.Ratio-1) > 1e-9 {
			t.Errorf("%+v", g)
		}
	}
}

// A measured bundle equals itself; a rank of degree 2 is no rank of degree 1.
func TestReference(t *testing.T) {
	dirs, err := filepath.Glob("../../../shared/reference/perf/RTXPRO6000/*/*/bf16")
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) == 0 {
		t.Skip("no reference data beside the repository")
	}
	for _, dir := range dirs {
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		if r := bundlediff.Compare(b, b, bundlediff.Options{MaxChange: 0.001}); r.Exceeded != 0 {
			t.Errorf("%s against itself: %d exceeded", dir, r.Exceeded)
		}
		// Layers that are copied from degree to degree are equal; qkv_proj halves.
		first, second := *b, *b
		first.TPs, second.TPs = b.TPs[:1], []perfio.TP{b.TPs[1]}
		second.TPs[0].Degree = 1
		r := bundlediff.Compare(&first, &second, bundlediff.Options{MaxChange: 0.05})
		if got := verdicts(r, "layernorm"); got[bundlediff.Noise] != 3 {
			t.Errorf("%s: layernorm: %v", dir, got)
		}
		if got := verdicts(r, "qkv_proj"); got[bundlediff.Change] == 0 {
			t.Errorf("%s: qkv_proj: %v", dir, got)
		}
	}
}

// served is a bundle of whole steps in two modes, each time scattered by noise.
func served(seed uint64, noise float64) *perfio.Bundle {
	random := rand.New(rand.NewPCG(seed, 2))
	scattered := func(us float64) float64 { return us * math.Exp(noise*random.NormFloat64()) }
	tp := perfio.TP{Degree: 1}
	for _, mode := range []string{perfio.ModeGraphSync, perfio.ModeEagerSync} {
		for n := 1; n <= 200; n++ {
			r := perfio.StepRow{Mode: mode, Layers: 32, PaddedTokens: n, NDecode: n, KVDecodeMean: 300, KVDecodeMax: 400, KVDecodeMin: 200, Steps: 1}
			if n%5 == 0 {
				r.NPrefill, r.PrefillChunk, r.Admitted = 1, 64, 1
			}
			for _, us := range []*float64{&r.ScheduleUS, &r.DispatchUS, &r.PrepareUS, &r.LaunchUS, &r.AfterUS, &r.SampleUS, &r.WaitUS, &r.UpdateUS, &r.ReturnUS, &r.BetweenUS} {
				*us = scattered(100)
			}
			r.DeviceForwardUS, r.StepUS = scattered(6000+10*float64(n)), scattered(8000+14*float64(n))
			r.DeviceWaitUS, r.DeviceAfterUS, r.DeviceStepUS = math.NaN(), math.NaN(), math.NaN()
			tp.Steps = append(tp.Steps, r)
		}
	}
	return &perfio.Bundle{Meta: bundletest.Bundle().Meta, TPs: []perfio.TP{tp}}
}

// A slower host shows in the steps of its mode and not in the device's forward,
// whether or not a host's noise is larger than any kernel's.
func TestSteps(t *testing.T) {
	for _, noise := range []float64{0.005, 0.15} {
		a, b := served(1, noise), served(2, noise)
		r := bundlediff.Compare(a, b, bundlediff.Options{MaxChange: 0.05})
		if len(r.Groups) != 2*2*4 || len(r.Missing) != 0 || r.Exceeded != 0 {
			t.Errorf("noise %g: %d groups, missing %+v, %d exceeded", noise, len(r.Groups), r.Missing, r.Exceeded)
		}
		for _, g := range r.Groups {
			if g.Verdict != bundlediff.Noise || g.Noise < noise/2 { // 0.05 at most, were it capped
				t.Errorf("noise %g: %+v", noise, g)
			}
		}
		for i := range b.TPs[0].Steps {
			if s := &b.TPs[0].Steps[i]; s.Mode == perfio.ModeEagerSync {
				s.StepUS *= 1.1 + 4*noise
			}
		}
		slower := 0
		for _, g := range bundlediff.Compare(a, b, bundlediff.Options{MaxChange: 0.05}).Groups {
			want := g.Layer == perfio.ModeEagerSync && strings.HasPrefix(g.Regime, "step, 32 layers, ")
			if g.Exceeds != want {
				t.Errorf("noise %g: %+v", noise, g)
			}
			if want {
				slower++
			}
		}
		if slower != 4 { // three sizes of decode batches, and steps with a prefill
			t.Errorf("noise %g: %d groups are slower", noise, slower)
		}
	}
	// The same batch served again is held against the same again.
	a, b := served(1, 0.005), served(1, 0.005)
	first := a.TPs[0].Steps[0]
	again := first
	again.StepUS *= 3
	a.TPs[0].Steps, b.TPs[0].Steps = append(a.TPs[0].Steps, again, first), append(b.TPs[0].Steps, again)
	r := bundlediff.Compare(a, b, bundlediff.Options{})
	if len(r.Largest) != 0 || len(r.Missing) != 1 || r.Missing[0].In != "a" || r.Missing[0].Rows != 2 {
		t.Errorf("repeated steps: largest %+v, missing %+v", r.Largest, r.Missing)
	}
}
