package traceloader

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// plain is LOOKUPS.md written down with maps and slices, sharing no code with
// the package: what lookups are held against, and the yardstick of benchmarks.
type plain struct {
	tps map[int]*plainTP
	fit *perfio.SkewFit
}

type plainTP struct {
	dense, perSequence map[string]plainCurve
	slices             map[[2]int]plainSlice
	order              [][2]int
	pcs, nds           []int
	moe                map[int]plainCurve
	experts            []int
	alpha              map[string]float64
}

type plainCurve struct{ xs, ys []int }

type plainSlice struct {
	kps  []int
	rows map[int]plainCurve
}

func plainNS(us float64) int { return max(1, int(math.RoundToEven(us*1000))) }

// plainCurveOf sorts points, the first of equal keys kept.
func plainCurveOf(points [][2]int) plainCurve {
	sort.SliceStable(points, func(i, j int) bool { return points[i][0] < points[j][0] })
	var c plainCurve
	for i, p := range points {
		if i > 0 && points[i-1][0] == p[0] {
			continue
		}
		c.xs, c.ys = append(c.xs, p[0]), append(c.ys, p[1])
	}
	return c
}

func newPlain(b *perfio.Bundle) *plain {
	p := &plain{tps: map[int]*plainTP{}}
	if b.Meta != nil {
		p.fit = b.Meta.SkewFit()
	}
	for i := range b.TPs {
		p.tps[b.TPs[i].Degree] = newPlainTP(&b.TPs[i])
	}
	return p
}

func newPlainTP(tp *perfio.TP) *plainTP {
	t := &plainTP{dense: map[string]plainCurve{}, perSequence: map[string]plainCurve{},
		slices: map[[2]int]plainSlice{}, moe: map[int]plainCurve{}, alpha: map[string]float64{}}
	points := map[string][][2]int{}
	for _, r := range tp.Dense {
		points[r.Layer] = append(points[r.Layer], [2]int{r.Tokens, plainNS(r.TimeUS)})
	}
	for layer, ps := range points {
		t.dense[layer] = plainCurveOf(ps)
	}
	points = map[string][][2]int{}
	for _, r := range tp.PerSequence {
		points[r.Layer] = append(points[r.Layer], [2]int{r.Sequences, plainNS(r.TimeUS)})
	}
	for layer, ps := range points {
		t.perSequence[layer] = plainCurveOf(ps)
	}
	byExperts := map[int][][2]int{}
	for _, r := range tp.MoE {
		byExperts[r.ActivatedExperts] = append(byExperts[r.ActivatedExperts], [2]int{r.Tokens, plainNS(r.TimeUS)})
	}
	for e, ps := range byExperts {
		t.moe[e] = plainCurveOf(ps)
		t.experts = append(t.experts, e)
	}
	sort.Ints(t.experts)

	cells := map[[2]int]map[int][][2]int{}
	pcs, nds := map[int]bool{}, map[int]bool{}
	for _, r := range tp.Attention {
		key := [2]int{r.PrefillChunk, r.NDecode}
		if cells[key] == nil {
			cells[key] = map[int][][2]int{}
		}
		cells[key][r.KVPrefill] = append(cells[key][r.KVPrefill], [2]int{r.KVDecode, plainNS(r.TimeUS)})
		pcs[r.PrefillChunk], nds[r.NDecode] = true, true
	}
	for key, rows := range cells {
		s := plainSlice{rows: map[int]plainCurve{}}
		for kp, ps := range rows {
			s.kps = append(s.kps, kp)
			s.rows[kp] = plainCurveOf(ps)
		}
		sort.Ints(s.kps)
		t.slices[key] = s
		t.order = append(t.order, key)
	}
	sort.Slice(t.order, func(i, j int) bool {
		a, b := t.order[i], t.order[j]
		return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
	})
	for v := range pcs {
		t.pcs = append(t.pcs, v)
	}
	for v := range nds {
		t.nds = append(t.nds, v)
	}
	sort.Ints(t.pcs)
	sort.Ints(t.nds)
	for _, r := range tp.SkewFit {
		key := "pc=" + strconv.Itoa(r.PC) + "|" + r.NLabel + "|" + r.SkewRateLabel + "|" + r.KVBigLabel + "|" + r.KPLabel
		if r.RawKey != "" {
			key = r.RawKey
		}
		if _, seen := t.alpha[key]; !seen {
			t.alpha[key] = r.Alpha
		}
	}
	return t
}

func plainTrunc(v float64) int64 { return max(1, int64(math.Trunc(v))) }

// at is the 1-D lookup.
func (c plainCurve) at(q int) float64 {
	i := sort.SearchInts(c.xs, q+1)
	if i == 0 || len(c.xs) == 1 {
		return float64(c.ys[0])
	}
	if i == len(c.xs) {
		i--
	}
	x0, x1, y0, y1 := c.xs[i-1], c.xs[i], c.ys[i-1], c.ys[i]
	return float64(y0) + float64(float64(q-x0)/float64(x1-x0)*float64(y1-y0))
}

func plainBracket(v []int, q int) (lo, hi int, t float64) {
	if len(v) == 1 || q <= v[0] {
		return 0, 0, 0
	}
	i := min(sort.SearchInts(v, q+1), len(v)-1)
	return i - 1, i, float64(q-v[i-1]) / float64(v[i]-v[i-1])
}

func (c plainCurve) bracketed(q int) float64 {
	if len(c.xs) == 1 {
		return float64(c.ys[0])
	}
	lo, hi, t := plainBracket(c.xs, q)
	return float64(c.ys[lo]) + float64(t*float64(c.ys[hi]-c.ys[lo]))
}

func (s plainSlice) at(kp, kd int) float64 {
	lo, hi, t := plainBracket(s.kps, kp)
	a, b := s.rows[s.kps[lo]].bracketed(kd), s.rows[s.kps[hi]].bracketed(kd)
	return a + float64(t*(b-a))
}

func (t *plainTP) corner(pc, nd, kp, kd int) float64 {
	if s, ok := t.slices[[2]int{pc, nd}]; ok {
		return s.at(kp, kd)
	}
	best := slices.MinFunc(t.order, func(a, b [2]int) int {
		return plainDistance(a, pc, nd) - plainDistance(b, pc, nd)
	})
	return t.slices[best].at(kp, kd)
}

func plainDistance(k [2]int, pc, nd int) int {
	return (k[0]-pc)*(k[0]-pc) + (k[1]-nd)*(k[1]-nd)
}

func (t *plainTP) attention(pc, kp, nd, kd int) int64 {
	pc, kp, nd, kd = max(pc, 0), max(kp, 0), max(nd, 0), max(kd, 0)
	p0, p1, tp := plainBracket(t.pcs, pc)
	n0, n1, tn := plainBracket(t.nds, nd)
	c00, c01 := t.corner(t.pcs[p0], t.nds[n0], kp, kd), t.corner(t.pcs[p0], t.nds[n1], kp, kd)
	c10, c11 := t.corner(t.pcs[p1], t.nds[n0], kp, kd), t.corner(t.pcs[p1], t.nds[n1], kp, kd)
	v0 := c00 + float64(tn*(c01-c00))
	v1 := c10 + float64(tn*(c11-c10))
	return plainTrunc(v0 + float64(tp*(v1-v0)))
}

func plainLabel(bins []float64, labels []string, v float64) string {
	for i, label := range labels {
		if v <= bins[i+1] {
			return label
		}
	}
	return labels[len(labels)-1]
}

func (p *plain) alphaOf(tp, pc, kp, n, mean, longest, shortest int) float64 {
	if p.fit == nil || !p.fit.Enabled {
		return 0
	}
	rate := 0.5
	if gap := longest - shortest; gap > 0 {
		rate = float64(mean-shortest) / float64(gap)
	}
	rate = math.Max(0, math.Min(1, rate))
	e := p.fit.Entry(tp)
	if e == nil {
		return p.fit.AlphaDefault
	}
	a := p.fit.AxesFor(tp)
	key := "pc=" + strconv.Itoa(pc) + "|" + plainLabel(a.NBins, a.NLabels, float64(n)) +
		"|" + plainLabel(a.SkewRateBins, a.SkewRateLabels, rate) +
		"|" + plainLabel(a.KVBigBins, a.KVBigLabels, float64(longest)) +
		"|" + plainLabel(a.KPBins, a.KPLabels, float64(kp))
	table := e.AlphaByBucket
	if len(table) == 0 && e.BucketTable != "" {
		table = p.tps[tp].alpha
	}
	if v, ok := table[key]; ok {
		return v
	}
	return e.AlphaDefault
}

func (p *plain) skew(tp, pc, kp, n, mean, longest, shortest int) int64 {
	t := p.tps[tp]
	tMean := t.attention(pc, kp, n, mean)
	if n <= 1 || longest == mean {
		return tMean
	}
	alpha := p.alphaOf(tp, pc, kp, n, mean, longest, shortest)
	if alpha == 0 {
		return tMean
	}
	tMax := t.attention(pc, kp, n, longest)
	if tMax <= tMean {
		return tMean
	}
	return max(1, int64(math.RoundToEven(float64(tMean)+float64(alpha*float64(tMax-tMean)))))
}

func (p *plain) smallest() *plainTP {
	least := 1 << 30
	for tp := range p.tps {
		least = min(least, tp)
	}
	return p.tps[least]
}

func (p *plain) moe(tokens, experts int) int64 {
	t := p.smallest()
	tokens, experts = max(tokens, 1), max(experts, 1)
	i := sort.SearchInts(t.experts, experts+1)
	if i == 0 || len(t.experts) == 1 {
		return plainTrunc(t.moe[t.experts[0]].at(tokens))
	}
	i = min(i, len(t.experts)-1)
	x0, x1 := t.experts[i-1], t.experts[i]
	y0, y1 := t.moe[x0].at(tokens), t.moe[x1].at(tokens)
	return plainTrunc(y0 + float64(float64(experts-x0)/float64(x1-x0)*(y1-y0)))
}
