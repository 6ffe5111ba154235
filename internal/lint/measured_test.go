package lint

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// Faults planted at random places of a measured sweep, on its own noise and
// steps: the share that is found, by size.
func TestPlantedInMeasured(t *testing.T) {
	if os.Getenv("LAYERPROF_LONG") == "" {
		t.Skip("takes half a minute: set LAYERPROF_LONG=1")
	}
	const dir = "../../../shared/reference/h200/perf/H200/meta-llama/Llama-3.1-8B/bf16"
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Skip("no reference data beside the repository")
	}
	clean := b.TPs[0]
	for _, fault := range []struct {
		rule  string
		sizes [3]float64
		least [3]float64 // share that must be found
		plant func(tp *perfio.TP, size float64, random *rand.Rand)
	}{
		{"spike", [3]float64{5, 3, 2.5}, [3]float64{1, 0.95, 0.8}, func(tp *perfio.TP, size float64, random *rand.Rand) {
			i := 2 + random.IntN(148) // of 152 rows a layer
			tp.Dense[152*random.IntN(len(tp.Dense)/152)+i].TimeUS *= size
		}},
		{"spike", [3]float64{5, 3, 2.5}, [3]float64{1, 0.95, 0.8}, func(tp *perfio.TP, size float64, random *rand.Rand) {
			i := 2 + random.IntN(148)
			tp.Dense[152*random.IntN(len(tp.Dense)/152)+i].TimeUS /= size
		}},
		{"attention-spike", [3]float64{10, 4, 3}, [3]float64{0.9, 0.75, 0.5}, func(tp *perfio.TP, size float64, random *rand.Rand) {
			for { // inside the grid along two keys at least
				r := &tp.Attention[random.IntN(len(tp.Attention))]
				if r.NDecode > 1 && r.NDecode < 256 && r.KVDecode > 16 && r.KVDecode < 16384 {
					r.TimeUS *= size
					return
				}
			}
		}},
		{"too-fast", [3]float64{100, 10, 5}, [3]float64{1, 1, 1}, func(tp *perfio.TP, size float64, random *rand.Rand) {
			for { // work enough to tell
				if r := &tp.Attention[random.IntN(len(tp.Attention))]; r.NDecode*r.KVDecode > 1<<18 {
					r.TimeUS /= size
					return
				}
			}
		}},
	} {
		for i, size := range fault.sizes {
			random := rand.New(rand.NewPCG(uint64(size*10), 3))
			const trials = 20
			found := 0
			for range trials {
				tp := clean
				tp.Dense, tp.Attention = slices.Clone(clean.Dense), slices.Clone(clean.Attention)
				fault.plant(&tp, size, random)
				b.TPs[0] = tp
				if slices.Contains(rulesOf(Check(b)), fault.rule) {
					found++
				}
			}
			t.Logf("%-16s of size %-4g: %d of %d found", fault.rule, size, found, trials)
			if float64(found) < fault.least[i]*trials {
				t.Errorf("%s of size %g: %d of %d found, want a share of %g", fault.rule, size, found, trials, fault.least[i])
			}
		}
	}
}
