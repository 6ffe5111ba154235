package attnmodel

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Kernel is an attention kernel whose schedule is modelled, or a basis that
// stands in where none is known.
type Kernel int

// The kernels and bases.
const (
	Unknown Kernel = iota
	KernelFA2
	KernelFA3
	Roofline // smooth: arithmetic, memory and a launch
	Linear   // no basis: straight lines between the grid's points
	Padded   // Roofline of a kernel whose decodes all cost as much as the longest
)

var kernelNames = [...]string{"unknown", "fa2", "fa3", "roofline", "linear", "padded"}

// String returns the lower-case name.
func (k Kernel) String() string {
	if k >= 0 && int(k) < len(kernelNames) {
		return kernelNames[k]
	}
	return fmt.Sprintf("Kernel(%d)", int(k))
}

// MarshalText writes the name.
func (k Kernel) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the name.
func (k *Kernel) UnmarshalText(text []byte) error {
	i := slices.Index(kernelNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("kernel: found %q, expected one of %s", text, strings.Join(kernelNames[:], ", "))
	}
	*k = Kernel(i)
	return nil
}

// model is what residuals are taken of.
type model interface {
	TimeUS(runs []Run) float64
	// timeUS is TimeUS with the batch's class.
	timeUS(runs []Run) (us float64, class int)
	// class numbers the kinds of batches that are never interpolated between.
	class(runs []Run) int
}

const classCount = 16

func decodes(runs []Run) int {
	for _, r := range runs {
		if r.New == 1 {
			return 1
		}
	}
	return 0
}

// Config says what a Predictor is made of.
type Config struct {
	// Geometry of the kernel; one that is not valid rules the kernels out.
	Geometry Geometry
	// Kernel that is known to run; Unknown tries all.
	Kernel  Kernel
	Samples []Sample
	// Linear answers by the grid's straight lines. Where it is set, it is one
	// of the bases that are tried.
	Linear func(runs []Run) (float64, bool)
	// Stored is an earlier Calibration of the same samples: it is used as it
	// is, nothing is fitted or tried.
	Stored *Calibration
}

// Calibration is what fitting and trying found.
type Calibration struct {
	Basis Kernel `json:"basis"`
	// Tried are the bases with the error of nodes that were left out.
	Tried []BasisScore `json:"tried,omitempty"`
	// Skew are the bases that batches of skew.csv were predicted by: first the
	// best one on the grid, and where they contradict it, others.
	Skew   []BasisScore          `json:"skew,omitempty"`
	FA2    *FA2Params            `json:"fa2,omitempty"`
	FA3    *FA3Params            `json:"fa3,omitempty"`
	Smooth *[3]rooflineParams    `json:"roofline,omitempty"`
	Fields map[int]FieldSettings `json:"fields,omitempty"`
}

// BasisScore is one basis by the error of nodes that were left out, or of
// batches of skew.csv, as |log(predicted/measured)| in percent.
type BasisScore struct {
	Basis Kernel  `json:"basis"`
	N     int     `json:"n"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
}

// Predictor predicts the time of attention by a basis and what the samples
// leave over of it. It is immutable and safe for concurrent use.
type Predictor struct {
	calibration Calibration
	model       model
	fields      [classCount]*field
	linear      func(runs []Run) (float64, bool)
}

// Samples that cannot be used are dropped; without any New returns nil.
func usable(samples []Sample) []Sample {
	ok := func(s Sample) bool { return s.TimeUS > 0 && !math.IsInf(s.TimeUS, 1) && len(s.Runs) > 0 }
	if !slices.ContainsFunc(samples, func(s Sample) bool { return !ok(s) }) {
		return samples
	}
	out := make([]Sample, 0, len(samples))
	for _, s := range samples {
		if ok(s) {
			out = append(out, s)
		}
	}
	return out
}

// New calibrates a predictor on samples. It returns nil where there are none.
func New(c Config) *Predictor {
	samples := thinSkew(usable(c.Samples))
	if len(samples) == 0 {
		return nil
	}
	if c.Stored != nil {
		if p := restore(c, samples); p != nil {
			return p
		}
	}
	var bases []Kernel
	if c.Geometry.Valid() {
		switch c.Kernel {
		case KernelFA2, KernelFA3:
			bases = append(bases, c.Kernel)
		case Unknown:
			bases = append(bases, likelier(c.Geometry, samples)...)
		}
	}
	ask := leftOut(samples)
	var best candidate
	var tried []candidate
	var scores []BasisScore
	try := func(b Kernel) candidate {
		p := fitted(b, c.Geometry, samples)
		p.linear = c.Linear
		t := candidate{p, p.score(ask, samples)}
		scores = append(scores, t.grid)
		return t
	}
	for _, b := range append(bases, Roofline) {
		if b == Roofline && best.grid.N > 0 && best.grid.sum() < goodScore {
			break // A kernel's schedule that fits like this is the kernel's.
		}
		t := try(b)
		tried = append(tried, t)
		if best.predictor == nil || t.grid.better(best.grid) {
			best = t
		}
	}
	if c.Linear != nil {
		if s := lineScore(ask, samples); s.N > 0 {
			scores = append(scores, s)
			t := candidate{&Predictor{calibration: Calibration{Basis: Linear}, linear: c.Linear}, s}
			tried = append(tried, t)
			if s.better(best.grid) {
				best = t
			}
		}
	}
	best = uncontradicted(best, tried, samples, try)
	best.predictor.calibration.Tried = scores
	return best.predictor
}

// A short fit to few samples tells kernels apart.
const (
	likelierSamples = 80
	likelierSteps   = 3
)

// likelier leaves one kernel where the other is plainly another: by the models
// alone, fitted to a part of the samples.
func likelier(g Geometry, samples []Sample) []Kernel {
	some := spread(samples, likelierSamples)
	size := func(m model) float64 {
		var errs []float64
		for _, s := range some {
			errs = append(errs, math.Abs(math.Log(s.TimeUS/m.TimeUS(s.Runs))))
		}
		slices.Sort(errs)
		return errs[len(errs)/2]
	}
	e3 := size(NewFA3(g, fitFA3(g, some, FA3Defaults(), likelierSteps)))
	e2 := size(NewFA2(g, fitFA2(g, some, FA2Defaults(), likelierSteps)))
	switch {
	case e3 < 0.7*e2:
		return []Kernel{KernelFA3}
	case e2 < 0.7*e3:
		return []Kernel{KernelFA2}
	}
	return []Kernel{KernelFA3, KernelFA2}
}

// goodScore is a sum of the median and the 90th percentile, in percent, at
// which no further basis is tried.
const goodScore = 6

func (s BasisScore) better(than BasisScore) bool {
	return s.N >= leastLeftOut && (than.N < leastLeftOut || s.sum() < than.sum())
}

// skewSamples is the most samples of skew.csv that are learned from: what more
// of them add is little.
const skewSamples = 16000

func thinSkew(samples []Sample) []Sample {
	var skew []int
	for i := range samples {
		if samples[i].Skew {
			skew = append(skew, i)
		}
	}
	if len(skew) <= skewSamples {
		return samples
	}
	keep := make([]bool, len(samples))
	for _, i := range spread(skew, skewSamples) {
		keep[i] = true
	}
	out := make([]Sample, 0, len(samples))
	for i, s := range samples {
		if keep[i] || !s.Skew {
			out = append(out, s)
		}
	}
	return out
}

// leastLeftOut is the least number of errors that a basis is chosen by: with
// fewer, a kernel that is known wins.
const leastLeftOut = 8

// Calibration says what was found.
func (p *Predictor) Calibration() Calibration { return p.calibration }

// Basis is the basis that was chosen.
func (p *Predictor) Basis() Kernel { return p.calibration.Basis }

// fitted makes a predictor on one basis.
func fitted(b Kernel, g Geometry, samples []Sample) *Predictor {
	p := &Predictor{calibration: Calibration{Basis: b, Fields: map[int]FieldSettings{}}}
	switch b {
	case KernelFA3:
		params := FitFA3(g, withoutSkew(samples), FA3Defaults())
		p.calibration.FA3, p.model = &params, NewFA3(g, params)
	case KernelFA2:
		params := FitFA2(g, samples, FA2Defaults())
		p.calibration.FA2, p.model = &params, NewFA2(g, params)
	default:
		m := fitRoofline(samples, b == Padded)
		p.calibration.Smooth, p.model = &m.regimes, m
	}
	nodes := p.residuals(samples)
	settings := make([]FieldSettings, classCount)
	parallel(2, classCount, func(i int) {
		if len(nodes[i]) > 0 {
			p.fields[i], settings[i] = tuneField(nodes[i])
		}
	})
	for i := range settings {
		if p.fields[i] != nil {
			p.calibration.Fields[i] = settings[i]
		}
	}
	return p
}

// withoutSkew leaves out samples of an unknown order, unless there are no
// others.
func withoutSkew(samples []Sample) []Sample {
	out := make([]Sample, 0, len(samples))
	for _, s := range samples {
		if !s.Skew {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return samples
	}
	return out
}

// restore makes the predictor of a stored calibration, nil where the
// calibration does not fit the configuration.
func restore(c Config, samples []Sample) *Predictor {
	p := &Predictor{calibration: *c.Stored, linear: c.Linear}
	switch s := c.Stored; {
	case s.Basis == KernelFA3 && s.FA3 != nil && c.Geometry.Valid():
		p.model = NewFA3(c.Geometry, *s.FA3)
	case s.Basis == KernelFA2 && s.FA2 != nil && c.Geometry.Valid():
		p.model = NewFA2(c.Geometry, *s.FA2)
	case (s.Basis == Roofline || s.Basis == Padded) && s.Smooth != nil:
		p.model = &roofline{*s.Smooth, s.Basis == Padded}
	case s.Basis == Linear && c.Linear != nil:
		return p
	default:
		return nil
	}
	nodes := p.residuals(samples)
	parallel(2, classCount, func(i int) {
		if s, ok := c.Stored.Fields[i]; ok && len(nodes[i]) > 0 {
			p.fields[i] = newField(nodes[i], s)
			p.fields[i].calibrate()
		}
	})
	return p
}

// residuals are the samples' logarithms of measured over modelled time, by
// class.
func (p *Predictor) residuals(samples []Sample) (nodes [classCount][]fieldNode) {
	plain := p.calibration.Basis == KernelFA3 && slices.ContainsFunc(samples, func(s Sample) bool { return !s.Skew })
	classes := make([]int8, len(samples))
	all := make([]fieldNode, len(samples))
	const chunk = 128
	parallel(2, (len(samples)+chunk-1)/chunk, func(c int) {
		for i := c * chunk; i < min(len(samples), (c+1)*chunk); i++ {
			s := &samples[i]
			if plain && s.Skew {
				classes[i] = -1
				continue
			}
			us, class := p.model.timeUS(s.Runs)
			classes[i] = int8(class)
			all[i] = fieldNode{at: featuresOf(s.Runs), y: math.Log(s.TimeUS / us), sample: int32(i)}
		}
	})
	for i, n := range all {
		if classes[i] < 0 {
			continue
		}
		nodes[classes[i]] = append(nodes[classes[i]], n)
	}
	return nodes
}

// TimeUS predicts a batch in executed order; 0 for an empty one.
func (p *Predictor) TimeUS(runs []Run) float64 {
	t, _ := p.EstimateUS(runs, false)
	return t
}

// EstimateUS is TimeUS and, where asked for, one standard error of it,
// relative.
func (p *Predictor) EstimateUS(runs []Run, withSigma bool) (us, sigma float64) {
	if len(runs) == 0 {
		return 0, 0
	}
	if p.model == nil {
		t, _ := p.linear(runs)
		return t, unknownSigma
	}
	runs, factor := bounded(runs)
	us, class := p.model.timeUS(runs)
	us *= factor
	f := p.fields[class]
	if f == nil {
		return us, unknownSigma
	}
	q := featuresOf(runs)
	mean, variance := f.at(q)
	us *= math.Exp(mean)
	if withSigma {
		sigma = f.sigma(q, variance, rough(p.calibration.Basis))
		if m, ok := p.model.(*FA2); ok {
			sigma = math.Hypot(sigma, edgeShare*m.edge(runs))
		}
	}
	return us, sigma
}

// Beyond all that engines run: longer chunks and histories, and more equal
// requests, are not placed tile by tile.
const (
	maxChunk   = 1 << 18
	maxHistory = 1 << 30
	maxCount   = 1 << 16
)

func unbounded(r Run) bool { return r.New > maxChunk || r.History > maxHistory || r.Count > maxCount }

// bounded shortens what is beyond: what is cut off counts by its arithmetic.
func bounded(runs []Run) ([]Run, float64) {
	if !slices.ContainsFunc(runs, unbounded) {
		return runs, 1
	}
	cut := slices.Clone(runs)
	for i := range cut {
		r := &cut[i]
		r.New, r.History, r.Count = min(r.New, maxChunk), min(r.History, maxHistory), min(r.Count, maxCount)
	}
	_, all, _ := work(runs)
	_, left, _ := work(cut)
	return cut, all / left
}

// rough is the share of what a basis leaves over that the nodes of a grid do
// not tell of batches of random lengths: all of it of FlashAttention-3's model,
// nothing of FlashAttention-2's.
func rough(k Kernel) float64 {
	switch k {
	case KernelFA3:
		return 1
	case KernelFA2:
		return 0
	}
	return 0.2
}

// edgeShare is the part of edge that counts as one standard error.
const edgeShare = 0.5

// unknownSigma is the standard error of an answer that nothing was left out
// for: a kernel without samples, straight lines.
const unknownSigma = 0.15
