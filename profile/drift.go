package profile

import (
	"math"
	"slices"
)

// driftModel turns a journal's anchors into the factors by which shots were
// slower than on the undisturbed device.
type driftModel struct {
	threshold  float64
	references map[string]float64 // by the anchor's shape
	index      *journalIndex
	Anchors    int
	// Low and High are the fastest and slowest anchor over their reference.
	Low, High float64
	Corrected int // shots whose times were divided by a factor
	factors   map[*blockState]float64
	// Noise is the standard deviation of an anchor about its state, as a share:
	// a factor within it would only carry the anchors' noise into the shots.
	Noise float64
}

// newDriftModel reads a degree's anchors. The reference is the fast state of the device: the
// median of the anchors within 2% of their fastest twentieth. Where the device
// stays in one state, that is all of them.
func newDriftModel(x *journalIndex, envs []string, tp int, threshold float64) *driftModel {
	m := &driftModel{
		threshold: threshold, references: make(map[string]float64), index: x,
		Low: 1, High: 1, factors: make(map[*blockState]float64),
	}
	levels := make(map[string][]float64)
	for _, a := range x.anchors {
		if a.TP == tp && slices.Contains(envs, a.Env) {
			levels[anchorKey(a)] = append(levels[anchorKey(a)], anchorLevel(a))
			m.Anchors++
		}
	}
	m.Noise = anchorNoise(levels)
	for key, values := range levels {
		slices.Sort(values)
		fast := values[len(values)/20]
		near, _ := slices.BinarySearch(values, fast*1.02)
		m.references[key] = median(slices.Clone(values[:max(near, 1)]))
		m.Low = min(m.Low, values[0]/m.references[key])
		m.High = max(m.High, values[len(values)-1]/m.references[key])
	}
	return m
}

func anchorKey(a *record) string { return a.Scope + " " + a.Shape }

// anchorLevel is one figure for an anchor: the geometric mean over its layers.
func anchorLevel(a *record) float64 {
	if len(a.Layers) == 1 {
		return median(slices.Clone(a.Layers[0].US))
	}
	sum := 0.0
	for _, l := range a.Layers {
		sum += math.Log(median(slices.Clone(l.US)))
	}
	return math.Exp(sum / float64(max(len(a.Layers), 1)))
}

// anchorNoise is estimated from the steps between neighbours, which a change of
// state moves seldom enough for the median not to see it.
func anchorNoise(levels map[string][]float64) float64 {
	var steps []float64
	for _, values := range levels {
		for i := 1; i < len(values); i++ {
			steps = append(steps, math.Abs(math.Log(values[i]/values[i-1])))
		}
	}
	if len(steps) == 0 {
		return 0
	}
	return 1.4826 * median(steps) / math.Sqrt2
}

// factor is how much slower than the reference a block's shots ran: 1 unless
// its anchors say more than half the threshold, and more than three standard
// errors of theirs.
func (m *driftModel) factor(k blockKey) float64 {
	b := m.index.blocks[k]
	if b == nil {
		return 1
	}
	if f, ok := m.factors[b]; ok {
		return f
	}
	sum, n := 0.0, 0
	for _, a := range []*record{b.before, b.after} {
		if a != nil && m.references[anchorKey(a)] > 0 {
			sum += anchorLevel(a) / m.references[anchorKey(a)]
			n++
		}
	}
	f := 1.0
	if n > 0 && math.Abs(sum/float64(n)-1) > max(m.threshold/2, 3*m.Noise/math.Sqrt(float64(n))) {
		f = sum / float64(n)
	}
	m.factors[b] = f
	return f
}
