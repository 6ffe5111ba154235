package chart

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// StepTimes are whole steps of so many decodes and nothing else, in
// microseconds; NaN is what was not measured.
type StepTimes struct {
	NDecode             int
	US, P10, P90        float64 // the median step, and the spread around it
	ForwardUS           float64 // the median of the device's forward
	Rows                []int   // indices of the rows of step.csv
	Steps               int     // behind them
	steps, forwardSteps []weighted
}

// DecodeSteps groups the rows of step.csv of one mode and depth that hold
// decodes alone by how many, ascending.
func DecodeSteps(rows []perfio.StepRow, mode string, depth int) []StepTimes {
	by := map[int]*StepTimes{}
	for i := range rows {
		r := &rows[i]
		if r.Mode != mode || r.Layers != depth || r.NPrefill > 0 {
			continue
		}
		s := by[r.NDecode]
		if s == nil {
			s = &StepTimes{NDecode: r.NDecode}
			by[r.NDecode] = s
		}
		s.Rows, s.Steps = append(s.Rows, i), s.Steps+r.Steps
		s.steps, s.forwardSteps = append(s.steps, weighted{r.StepUS, r.Steps}), append(s.forwardSteps, weighted{r.DeviceForwardUS, r.Steps})
	}
	out := make([]StepTimes, 0, len(by))
	for _, n := range slices.Sorted(maps.Keys(by)) {
		s := by[n]
		s.US, s.P10, s.P90 = quantile(s.steps, 0.5), quantile(s.steps, 0.1), quantile(s.steps, 0.9)
		s.ForwardUS = quantile(s.forwardSteps, 0.5)
		s.steps, s.forwardSteps = nil, nil
		out = append(out, *s)
	}
	return out
}

// weighted is a value that stands for so many.
type weighted struct {
	value float64
	n     int
}

// quantile is the least value that a share q of all does not exceed; NaN, which
// values that are absent are too, where there is none.
func quantile(list []weighted, q float64) float64 {
	list = slices.DeleteFunc(list, func(w weighted) bool { return math.IsNaN(w.value) })
	slices.SortFunc(list, func(a, b weighted) int { return cmp.Compare(a.value, b.value) })
	all, below := 0.0, 0.0
	for _, w := range list {
		all += float64(w.n)
	}
	for _, w := range list {
		if below += float64(w.n); below >= q*all {
			return w.value
		}
	}
	return math.NaN()
}

// Steps is the median whole step of decodes alone over their number, in one mode
// and of the deepest model that was measured.
func Steps(b *perfio.Bundle, tp *perfio.TP, mode string) (*Curve, error) {
	depth := 0
	modes := map[string]bool{}
	for _, r := range tp.Steps {
		if modes[r.Mode] = true; r.Mode == mode {
			depth = max(depth, r.Layers)
		}
	}
	c := &Curve{Title: title(b, tp.Degree, fmt.Sprintf("%s steps of decodes, %d layers", mode, depth)), XLabel: "n_decode", YLabel: "median step, us"}
	for _, s := range DecodeSteps(tp.Steps, mode, depth) {
		if !math.IsNaN(s.US) {
			c.X, c.Y = append(c.X, float64(s.NDecode)), append(c.Y, s.US)
		}
	}
	if len(c.X) == 0 {
		return nil, fmt.Errorf("%s: tp%d: found no steps of decodes in mode %q, step.csv has %s", b.Dir, tp.Degree, mode, few(slices.Sorted(maps.Keys(modes))))
	}
	return c, nil
}
