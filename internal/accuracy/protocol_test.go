package accuracy

import (
	"math"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// folder is small made-up data with every kind of row.
func folder() Data {
	var d Data
	us := func(pc, kp, n, kd int) float64 {
		return 5 + 0.01*float64(pc) + 1e-5*float64(pc*kp) + 1e-3*float64(n*kd)
	}
	for _, pc := range []int{0, 16, 24, 32, 64} {
		for _, kp := range []int{0, 512} {
			for _, n := range []int{0, 1, 2, 4} {
				for _, kd := range []int{0, 16, 32, 768} {
					if pc == 0 && kp > 0 || n == 0 && kd > 0 || n > 0 && kd == 0 || pc+n == 0 {
						continue
					}
					d.Attention = append(d.Attention, perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: n, KVDecode: kd, TimeUS: us(pc, kp, n, kd)})
				}
			}
		}
	}
	for _, pc := range []int{0, 16, 32, 64} {
		for _, n := range []int{2, 4, 8} {
			for _, kvs := range []int{4, 8, 16} {
				mean := (n/2*kvs*4 + n/2*kvs) / n
				r := perfio.SkewRow{Regime: "mixed", N: n, NB: n / 2, Ratio: 0.5, Skew: 4, PC: pc, KVS: kvs, KVBig: 4 * kvs, KVMean: mean}
				r.TMeanUS, r.TMaxUS = 3*us(pc, 0, n, mean), 3*us(pc, 0, n, 4*kvs)
				r.TSkewUS = r.TMeanUS + 0.3*(r.TMaxUS-r.TMeanUS)
				r.Alpha, r.HasAlpha = 0.3, true
				d.Skew = append(d.Skew, r)
			}
		}
	}
	return d
}

func TestNormalize(t *testing.T) {
	d, s := Normalize(nil, folder())
	if math.Abs(s.Mixed-3) > 1e-9 || math.Abs(s.Pure-3) > 1e-9 || s.Factor != 3 || s.Shared == 0 {
		t.Errorf("ratios %+v, want 3 from shared shapes", s)
	}
	if got, want := d.Skew[0].TMeanUS, folder().Skew[0].TMeanUS/3; math.Abs(got-want) > 1e-9 {
		t.Errorf("t_mean %g, want %g", got, want)
	}
}

// recorder answers 1 us and checks that no row it is asked for was shown.
type recorder struct{ t *testing.T }

func (recorder) Name() string { return "recorder" }
func (r recorder) Train(d Data) (Predictor, error) {
	shown := map[Query]bool{}
	for _, a := range d.Attention {
		shown[Uniform(a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode)] = true
	}
	for _, s := range d.Skew {
		shown[Query{PC: s.PC, KP: s.KP, N: s.N, NB: s.NB, KVBig: s.KVBig, KVSmall: s.KVS, KVMean: s.KVMean}] = true
	}
	return shownPredictor{r.t, shown}, nil
}

type shownPredictor struct {
	t     *testing.T
	shown map[Query]bool
}

func (p shownPredictor) AttentionUS(q Query) (float64, bool) {
	if p.shown[q] {
		p.t.Errorf("asked for %+v, which was shown", q)
	}
	return 1, true
}

func TestHeldOutRowsAreNotShown(t *testing.T) {
	d, _ := Normalize(nil, folder())
	// The made-up kv_mean of T1 may fall on the grid, as real ones do: its
	// t_mean comes from another file.
	results, err := Run(d, recorder{t}, Options{Tests: []string{"T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T3-points", "T4-points"}, TP: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 10 {
		t.Errorf("%d tests ran, want 10: %+v", len(results), results)
	}
	for _, r := range results {
		if r.N == 0 || r.TP != 2 || r.Rules != "recorder" {
			t.Errorf("result %+v", r)
		}
	}
}

// lookup predicts the time of any row it knows, from the data it was made of
// or, when honest, from what it is shown.
type lookup struct {
	known  Data
	honest bool
}

func (lookup) Name() string { return "lookup" }
func (l lookup) Train(d Data) (Predictor, error) {
	if l.honest {
		return lookup{known: d}, nil
	}
	return l, nil
}

func (l lookup) AttentionUS(q Query) (float64, bool) {
	for _, a := range l.known.Attention {
		if q == Uniform(a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode) {
			return a.TimeUS, true
		}
	}
	for _, s := range l.known.Skew {
		if s.PC == q.PC && s.KP == q.KP && s.N == q.N && s.NB == q.NB && s.KVBig == q.KVBig && s.KVS == q.KVSmall {
			return s.TSkewUS, true
		}
	}
	return 7, true
}

// The protocol catches rules that look at held-out rows.
func TestCheckBlind(t *testing.T) {
	d, _ := Normalize(nil, folder())
	for _, test := range append(Tests()[1:], Optional()...) {
		o := Options{Tests: []string{test}}
		if err := CheckBlind(d, func(d Data) Rules { return lookup{known: d, honest: true} }, o); err != nil {
			t.Errorf("honest rules: %v", err)
		}
		err := CheckBlind(d, func(d Data) Rules { return lookup{known: d} }, o)
		if err == nil || !strings.HasPrefix(err.Error(), test+": ") {
			t.Errorf("%s: rules that peek: found %v, expected an error of %s", test, err, test)
		}
	}
}

// Each interior point of a line is asked for once, with its neighbours shown.
func TestPointsKeepTheirNeighbours(t *testing.T) {
	d, _ := Normalize(nil, folder())
	for _, test := range Optional() {
		axis := axisOf(test)
		asked := map[Query]int{}
		where := map[Query]int{}
		units := splits(d, test)
		for f, s := range units {
			for _, q := range s.ask {
				asked[q.query]++
				where[q.query] = f
			}
		}
		interior := 0
		for _, l := range linesOf(d.Attention, axis) {
			last := -1
			for i, r := range l {
				q := Uniform(r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode)
				if i == 0 || i == len(l)-1 {
					if asked[q] != 0 {
						t.Errorf("%s: an end of a line is held out: %+v", test, q)
					}
					continue
				}
				interior++
				if asked[q] != 1 || where[q] == last {
					t.Errorf("%s: %+v: asked for %d times, in fold %d, the point before it in %d", test, q, asked[q], where[q], last)
				}
				last = where[q]
			}
		}
		if interior == 0 || interior != len(asked) {
			t.Errorf("%s: %d of %d interior points are asked for", test, len(asked), interior)
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values  []float64
		q, want float64
	}{
		{[]float64{3}, 0.9, 3}, {[]float64{1, 2}, 0.5, 1.5}, {[]float64{0, 10, 20}, 0.25, 5}, {[]float64{0, 1}, 1, 1},
	} {
		if got := Quantile(test.values, test.q); got != test.want {
			t.Errorf("Quantile(%v, %g): %g, want %g", test.values, test.q, got, test.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing: %g, want NaN", got)
	}
}
