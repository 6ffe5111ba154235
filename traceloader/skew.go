package traceloader

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxBuckets bounds the memory of one alpha table.
const maxBuckets = 1 << 24

// alphaTable holds the skew correction of one tp. The rules look an alpha up
// by a text made of the coordinates' labels; every such text that can come
// about is looked up when the table is built, and what it found stands in one
// array.
type alphaTable struct {
	fixed bool    // one alpha, a default, for all buckets
	value float64 // that alpha

	pcs          []int // chunks that buckets have
	missing      int   // place of all other chunks
	n, kvBig, kp intBins
	rate         rateBins
	strideP      int
	strideN      int
	strideRate   int
	strideKVBig  int
	alpha        []float64
	found        []bool
}

// intBins counts the ends of bins that a value lies beyond.
type intBins struct{ ends []int }

func (b *intBins) of(v int) int {
	n := 0
	for _, e := range b.ends {
		if e < v { // a conditional move, not a branch
			n++
		}
	}
	return n
}

// rateBins is the same over floats of at least 0, whose bits order as the
// floats do; a negative end has the sign bit and is less than any.
type rateBins struct{ ends []int64 }

func (b *rateBins) of(v float64) int {
	bits, n := int64(math.Float64bits(v)), 0
	for _, e := range b.ends {
		if e < bits {
			n++
		}
	}
	return n
}

// effective returns the ends of bins that decide, ascending, and the label of
// each count of ends that a value lies beyond. "The first label whose end is
// not below the value, else the last" makes an end that is not above all
// before it unreachable.
func (a bucketAxis) effective() (ends []float64, labels []string) {
	last := math.Inf(-1)
	for i, label := range a.labels {
		if e := a.bins[i+1]; e > last {
			ends, labels, last = append(ends, e), append(labels, label), e
		}
	}
	return ends, append(labels, a.labels[len(a.labels)-1])
}

func newIntBins(a bucketAxis) (intBins, []string) {
	ends, labels := a.effective()
	b := intBins{}
	keep := labels[:0:0]
	for i, e := range ends {
		// Integers compare with the end as with its floor. Two ends with one
		// floor leave the second bin empty.
		v := int(math.Floor(max(-maxEnd, min(maxEnd, e))))
		if len(b.ends) > 0 && b.ends[len(b.ends)-1] == v {
			continue
		}
		b.ends, keep = append(b.ends, v), append(keep, labels[i])
	}
	return b, append(keep, labels[len(labels)-1])
}

// maxEnd stands for ends that no coordinate reaches.
const maxEnd = 1 << 62

func newRateBins(a bucketAxis) (rateBins, []string) {
	ends, labels := a.effective()
	b := rateBins{}
	for _, e := range ends {
		if e == 0 {
			e = 0 // never -0, whose bits are below those of 0
		}
		b.ends = append(b.ends, int64(math.Float64bits(e)))
	}
	return b, labels
}

// keyPC returns the chunk of a bucket key. A key that no chunk makes is never
// asked for.
func keyPC(key string) (int, bool) {
	rest, ok := strings.CutPrefix(key, "pc=")
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, "|")
	if !ok {
		return 0, false
	}
	pc, err := strconv.Atoi(digits)
	return pc, err == nil && strconv.Itoa(pc) == digits
}

func bakeAlphas(byKey map[string]float64, axes bucketAxes, alphaDefault float64) (*alphaTable, error) {
	a := &alphaTable{}
	for key := range byKey {
		if pc, ok := keyPC(key); ok {
			a.pcs = append(a.pcs, pc)
		}
	}
	slices.Sort(a.pcs)
	a.pcs = slices.Compact(a.pcs)
	if len(a.pcs) == 0 {
		return &alphaTable{fixed: true, value: alphaDefault}, nil
	}
	var nLabels, rateLabels, kvLabels, kpLabels []string
	a.n, nLabels = newIntBins(axes.n)
	a.rate, rateLabels = newRateBins(axes.rate)
	a.kvBig, kvLabels = newIntBins(axes.kvBig)
	a.kp, kpLabels = newIntBins(axes.kp)
	a.strideKVBig = len(kpLabels)
	a.strideRate = a.strideKVBig * len(kvLabels)
	a.strideN = a.strideRate * len(rateLabels)
	a.strideP = a.strideN * len(nLabels)
	if float64(a.strideP)*float64(len(a.pcs)+1) > maxBuckets {
		return nil, errors.New("meta.yaml: skew_fit: the bucket axes make more than 2^24 buckets")
	}
	a.missing = len(a.pcs)
	a.alpha = make([]float64, a.strideP*(len(a.pcs)+1))
	a.found = make([]bool, len(a.alpha))
	for i := range a.alpha {
		a.alpha[i] = alphaDefault
	}
	at, key := 0, make([]byte, 0, 96)
	for _, pc := range a.pcs {
		key = strconv.AppendInt(append(key[:0], "pc="...), int64(pc), 10)
		pcEnd := len(key)
		for _, n := range nLabels {
			key = append(append(key[:pcEnd], '|'), n...)
			nEnd := len(key)
			for _, rate := range rateLabels {
				key = append(append(key[:nEnd], '|'), rate...)
				rateEnd := len(key)
				for _, kv := range kvLabels {
					key = append(append(key[:rateEnd], '|'), kv...)
					kvEnd := len(key)
					for _, kp := range kpLabels {
						key = append(append(key[:kvEnd], '|'), kp...)
						if v, ok := byKey[string(key)]; ok {
							a.alpha[at], a.found[at] = v, true
						}
						at++
					}
				}
			}
		}
	}
	return a, nil
}

// bucket returns the place of a batch's alpha.
func (a *alphaTable) bucket(pc, n int, rate float64, kvBig, kp int) int {
	p := a.missing
	if i := countAtMost(a.pcs, pc); i > 0 && a.pcs[i-1] == pc {
		p = i - 1
	}
	return p*a.strideP + a.n.of(n)*a.strideN + a.rate.of(rate)*a.strideRate + a.kvBig.of(kvBig)*a.strideKVBig + a.kp.of(kp)
}

// skewRate is where the mean lies between the shortest and the longest decode,
// clipped to [0, 1].
func skewRate(mean, longest, shortest int) float64 {
	gap := longest - shortest
	if gap <= 0 {
		return 0.5
	}
	return max(0, min(1, float64(mean-shortest)/float64(gap)))
}

// lookup returns the alpha of a batch and where it stood.
func (a *alphaTable) lookup(pc, kp, n, mean, longest, shortest int) (float64, Status) {
	if a.fixed {
		return a.value, Fallback
	}
	i := a.bucket(pc, n, skewRate(mean, longest, shortest), longest, kp)
	if a.found[i] {
		return a.alpha[i], Measured
	}
	return a.alpha[i], Fallback
}

// skewed is the blend of the rules for an alpha that is not 0.
func skewed(tMean, tMax int64, alpha float64) int64 {
	if tMax <= tMean {
		return tMean
	}
	v := math.RoundToEven(float64(tMean) + float64(alpha*float64(tMax-tMean)))
	return wholeNS(v)
}
