package replay

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

const reference = "../../../shared/reference"

// referenceBundles lists the measured bundles beside the checkout.
func referenceBundles(t testing.TB) []string {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"perf/*/*/*/*/meta.yaml", "h200/perf/*/*/*/*/meta.yaml"} {
		found, err := filepath.Glob(filepath.Join(reference, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	if len(dirs) == 0 {
		if _, err := os.Stat(reference); err == nil {
			t.Fatalf("%s holds no bundle", reference)
		}
		t.Skipf("no reference data at %s", reference)
	}
	return dirs
}

// Every row of skew.csv comes back from its unrounded times, exactly.
func TestUnroundedGivesEveryReferenceRow(t *testing.T) {
	for _, dir := range referenceBundles(t) {
		b, err := perfio.OpenBundle(dir, perfio.Only(perfio.SkewFile))
		if err != nil {
			t.Fatal(err)
		}
		for _, tp := range b.TPs {
			moved := 0
			for i := range tp.Skew {
				r := &tp.Skew[i]
				got, ok := unrounded(r)
				if !ok {
					t.Errorf("%s tp%d row %d: no times for %+v", dir, tp.Degree, i, *r)
					continue
				}
				if got != (skewTimes{r.TMeanUS, r.TMaxUS, r.TSkewUS}) {
					moved++
				}
				if perfio.RoundDecimals(got.mean, 3) != r.TMeanUS || perfio.RoundDecimals(got.max, 3) != r.TMaxUS || perfio.RoundDecimals(got.skew, 3) != r.TSkewUS {
					t.Errorf("%s tp%d row %d: %+v does not round to %+v", dir, tp.Degree, i, got, *r)
				}
				if has := got.max > got.mean; has != r.HasAlpha {
					t.Errorf("%s tp%d row %d: alpha %v, want %v (%+v)", dir, tp.Degree, i, has, r.HasAlpha, *r)
				} else if a := perfio.RoundDecimals((got.skew-got.mean)/(got.max-got.mean), 4); has && (a != r.Alpha || math.Signbit(a) != math.Signbit(r.Alpha)) {
					t.Errorf("%s tp%d row %d: alpha %v, want %v", dir, tp.Degree, i, a, r.Alpha)
				}
			}
			t.Logf("%s tp%d: %d rows, %d of them not as printed", dir, tp.Degree, len(tp.Skew), moved)
		}
	}
}

func TestUnrounded(t *testing.T) {
	// A row as a profiler makes it: alpha first, then the rounding.
	row := func(mean, max, skew float64) perfio.SkewRow {
		r := perfio.SkewRow{
			TMeanUS: perfio.RoundDecimals(mean, 3), TMaxUS: perfio.RoundDecimals(max, 3), TSkewUS: perfio.RoundDecimals(skew, 3),
		}
		if max > mean {
			r.HasAlpha, r.Alpha = true, perfio.RoundDecimals((skew-mean)/(max-mean), 4)
		}
		return r
	}
	ulps := func(x float64, n int) float64 {
		for range n {
			x = math.Nextafter(x, math.Inf(1))
		}
		return x
	}
	for _, tt := range []struct {
		name            string
		mean, max, skew float64
	}{
		{"as printed", 46.497, 50.143, 47.297},
		{"max below mean", 46.497, 46.4, 47.297},
		{"equal", 46.497, 46.497, 47.297},
		{"equal but for the rounding, falling", 46.49704, 46.49701, 47.297},
		{"close", 46.4974, 46.4983, 46.4992},
		{"equal but for the rounding, rising", 46.49701, 46.49704, 47.297},
		{"one step apart", 46.497, ulps(46.497, 1), 47.297},
		{"three steps apart", 46.497, ulps(46.497, 3), 46.123},
		{"seven steps apart, skew in the next binade", 63.9, ulps(63.9, 7), 64.8},
		{"a little below mean", 619.6512, 861.892, 619.6508},
		{"a little above mean", 619.6508, 861.892, 619.6512},
		{"steps apart, equal skew", 63.9, ulps(63.9, 7), 63.9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := row(tt.mean, tt.max, tt.skew)
			got, ok := unrounded(&r)
			if !ok || !follows(got, &r) {
				t.Errorf("%+v: %+v, %v", r, got, ok)
			}
			if again, _ := unrounded(&r); again != got {
				t.Errorf("twice: %+v and %+v", got, again)
			}
		})
	}
	// Every distance between mean and max, and both sides of a rounding limit.
	for exponent := -14.0; exponent < 1; exponent += 0.13 {
		for _, mean := range []float64{7.123, 46.497, 46.49749999, 1023.9995, 9015.48} {
			for _, skew := range []float64{mean + 0.8123, mean - 0.31, mean + 1e-5, mean * 1.3} {
				max := mean + math.Pow(10, exponent)
				if max == mean {
					continue
				}
				r := row(mean, max, skew)
				if got, ok := unrounded(&r); !ok || !follows(got, &r) {
					t.Errorf("mean %v max +%v skew %v: %+v gives %+v, %v", mean, max-mean, skew, r, got, ok)
				}
			}
		}
	}
	// An edited row: its alpha cannot follow from its times.
	for _, r := range []perfio.SkewRow{
		{TMeanUS: 10, TMaxUS: 20, TSkewUS: 15, Alpha: 0.9, HasAlpha: true},
		{TMeanUS: 10, TMaxUS: 20, TSkewUS: 15},
		{TMeanUS: 100, TMaxUS: 300, TSkewUS: 150, Alpha: 0.0001, HasAlpha: true},
		{TMeanUS: 100, TMaxUS: 300, TSkewUS: 150, HasAlpha: true},
		{TMeanUS: 100, TMaxUS: 100, TSkewUS: 150, Alpha: -1e300, HasAlpha: true},
		{TMeanUS: 20, TMaxUS: 10, TSkewUS: 15, Alpha: 0.5, HasAlpha: true},
	} {
		if got, ok := unrounded(&r); ok || got != (skewTimes{r.TMeanUS, r.TMaxUS, r.TSkewUS}) {
			t.Errorf("%+v: %+v, %v; want it as printed, and false", r, got, ok)
		}
	}
}

// The search ends, and what it finds follows, whatever a file holds.
func FuzzUnrounded(f *testing.F) {
	f.Add(46.497, 46.497, 47.297, 4.5e12, true)
	f.Add(619.651, 861.892, 619.651, math.Copysign(0, -1), true)
	f.Add(1e12, 1e-9, 3.0, -1e300, true)
	f.Fuzz(func(t *testing.T, mean, max, skew, alpha float64, has bool) {
		for _, v := range []float64{mean, max, skew} {
			if !(v > 0 && v < 1e15) {
				return // perfio refuses it
			}
		}
		if math.IsNaN(alpha) || math.IsInf(alpha, 0) {
			return
		}
		r := perfio.SkewRow{TMeanUS: mean, TMaxUS: max, TSkewUS: skew, Alpha: alpha, HasAlpha: has}
		if got, ok := unrounded(&r); ok != follows(got, &r) {
			t.Errorf("%+v: %+v, %v", r, got, ok)
		}
	})
}
