package attnmodel_test

import (
	"math"
	"testing"

	"github.com/layerprof/layerprof/internal/attnmodel"
)

// The vectors of the study behind the model, made by another implementation.
func TestFA3Vectors(t *testing.T) {
	type run = attnmodel.Run
	for _, test := range []struct {
		name  string
		heads int
		runs  []run
		want  float64
	}{
		{"one short decode", 32, []run{{1, 52, 1}}, 12.176},
		{"64 decodes", 32, []run{{1, 1024, 64}}, 85.421},
		{"256 long decodes", 32, []run{{1, 16384, 256}}, 3937.073},
		{"prefill", 32, []run{{2048, 0, 1}}, 89.805},
		{"prefill with history", 32, []run{{512, 1024, 1}}, 34.088},
		{"prefill first", 32, []run{{512, 0, 1}, {1, 16384, 1}}, 222.12},
		{"decode first", 32, []run{{1, 16384, 1}, {512, 0, 1}}, 217.032},
		{"split", 32, []run{{64, 512, 1}, {1, 512, 8}}, 30.066},
		{"small tiles", 32, []run{{16, 0, 1}, {1, 300, 1}}, 14.097},
		{"last chunk that splits", 32, []run{{411, 600, 1}}, 41.504},
		{"first chunk that does not", 32, []run{{417, 600, 1}}, 27.525},
		{"64 heads", 64, []run{{200, 1000, 1}, {1, 3000, 1}, {1, 50, 1}}, 35.209},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := attnmodel.Geometry{QueryHeads: test.heads, KVHeads: 8, SMs: 132}
			params := attnmodel.FA3Defaults()
			for i := range params {
				// The study knows one kind of tile.
				params[i].Ad, params[i].Taud = 1, 1
			}
			got := attnmodel.NewFA3(g, params).TimeUS(test.runs)
			// The constants are given to three decimals.
			if math.Abs(got-test.want) > 2e-3*test.want {
				t.Errorf("%v: %.3f us, want %.3f", test.runs, got, test.want)
			}
		})
	}
}
