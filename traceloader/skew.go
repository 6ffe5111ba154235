package traceloader

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/perfio"
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
// before it unreachable, and the last label's own end without effect.
func (a bucketAxis) effective() (ends []float64, labels []string) {
	highest := math.Inf(-1)
	n := len(a.labels)
	for i := range n - 1 {
		if e := a.bins[i+1]; e > highest {
			ends, labels, highest = append(ends, e), append(labels, a.labels[i]), e
		}
	}
	return ends, append(labels, a.labels[n-1])
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

// newBuckets lays out the buckets of these chunks, all at the default.
func newBuckets(pcs []int, axes bucketAxes, alphaDefault float64) (*alphaTable, [4][]string, error) {
	a := &alphaTable{pcs: pcs, missing: len(pcs)}
	var labels [4][]string
	a.n, labels[0] = newIntBins(axes.n)
	a.rate, labels[1] = newRateBins(axes.rate)
	a.kvBig, labels[2] = newIntBins(axes.kvBig)
	a.kp, labels[3] = newIntBins(axes.kp)
	size := 1
	for at, stride := range [...]*int{&a.strideKVBig, &a.strideRate, &a.strideN, &a.strideP} {
		size *= len(labels[3-at])
		if size > maxBuckets {
			break
		}
		*stride = size
	}
	if size > maxBuckets/(len(pcs)+1) {
		return nil, labels, errors.New("meta.yaml: skew_fit: bucket_axes: found more than 2^24 buckets")
	}
	a.alpha = make([]float64, a.strideP*(len(pcs)+1))
	a.found = make([]bool, len(a.alpha))
	for i := range a.alpha {
		a.alpha[i] = alphaDefault
	}
	return a, labels, nil
}

// bakeRows puts rows into their buckets by their labels. It leaves it to
// bakeKeys, and returns nil, where a label can stand for several bins or a key
// for several rows.
func bakeRows(rows []perfio.SkewFitRow, axes bucketAxes, alphaDefault float64) (*alphaTable, error) {
	pcs := make([]int, 0, 64)
	for i := range rows {
		if r := &rows[i]; r.RawKey != "" {
			return nil, nil
		} else if len(pcs) == 0 || pcs[len(pcs)-1] != r.PC {
			pcs = append(pcs, r.PC)
		}
	}
	slices.Sort(pcs)
	pcs = slices.Compact(pcs)
	a, labels, err := newBuckets(pcs, axes, alphaDefault)
	if err != nil {
		return nil, err
	}
	for _, axis := range labels {
		for i, label := range axis {
			if strings.Contains(label, "|") || slices.Contains(axis[:i], label) {
				return nil, nil
			}
		}
	}
	for i := range rows {
		r := &rows[i]
		p := countAtMost(pcs, r.PC) - 1
		n, rate := slices.Index(labels[0], r.NLabel), slices.Index(labels[1], r.SkewRateLabel)
		kv, kp := slices.Index(labels[2], r.KVBigLabel), slices.Index(labels[3], r.KPLabel)
		if min(n, rate, kv, kp) < 0 {
			continue // labels of other axes: no batch asks for them
		}
		at := p*a.strideP + n*a.strideN + rate*a.strideRate + kv*a.strideKVBig + kp
		if a.found[at] {
			return nil, nil
		}
		a.alpha[at], a.found[at] = r.Alpha, true
	}
	return a, nil
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

// bakeKeys makes every key that a batch can ask for and looks it up.
func bakeKeys(byKey map[string]float64, axes bucketAxes, alphaDefault float64) (*alphaTable, error) {
	var pcs []int
	for key := range byKey {
		if pc, ok := keyPC(key); ok {
			pcs = append(pcs, pc)
		}
	}
	slices.Sort(pcs)
	pcs = slices.Compact(pcs)
	a, labels, err := newBuckets(pcs, axes, alphaDefault)
	if err != nil {
		return nil, err
	}
	at, key := 0, make([]byte, 0, 96)
	for _, pc := range pcs {
		key = strconv.AppendInt(append(key[:0], "pc="...), int64(pc), 10)
		pcEnd := len(key)
		for _, n := range labels[0] {
			key = append(append(key[:pcEnd], '|'), n...)
			nEnd := len(key)
			for _, rate := range labels[1] {
				key = append(append(key[:nEnd], '|'), rate...)
				rateEnd := len(key)
				for _, kv := range labels[2] {
					key = append(append(key[:rateEnd], '|'), kv...)
					kvEnd := len(key)
					for _, kp := range labels[3] {
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
