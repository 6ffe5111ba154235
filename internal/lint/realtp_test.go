package lint

import (
	"slices"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// A real degree has collectives of its own ranks, and layers of its own.
func TestRealDegrees(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(tp *perfio.TP)
		want bool
	}{
		{"as measured", func(*perfio.TP) {}, false},
		{"without collectives", func(tp *perfio.TP) { tp.Collectives = nil }, true},
		{"of other ranks", func(tp *perfio.TP) { tp.Collectives[3].Ranks = 4 }, true},
		{"a tp_stable layer of its own", func(tp *perfio.TP) {
			for i := range tp.Dense {
				if tp.Dense[i].Layer == "layernorm" {
					tp.Dense[i].TimeUS *= 1.1
				}
			}
		}, false},
	} {
		b := bundletest.Bundle()
		set(b, perfio.TPModeReal, "tp_mode")
		b.TP(2).Collectives = bundletest.Collectives()
		test.do(b.TP(2))
		var rules []string
		for _, f := range Check(b) {
			rules = append(rules, f.Rule)
		}
		if found := slices.Contains(rules, "tp-collectives"); found != test.want || slices.Contains(rules, "tp-copies") || slices.Contains(rules, "tp-slower") {
			t.Errorf("%s: found %v, expected tp-collectives %v and no comparison of degrees", test.name, rules, test.want)
		}
	}
}
