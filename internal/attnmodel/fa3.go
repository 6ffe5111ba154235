package attnmodel

import (
	"math"
	"sync"
)

// FA3Class are the constants of one of FlashAttention-3's kernels. Only A, Tau
// and F0 come near a physical meaning; the four of the memory term trade
// against each other.
type FA3Class struct {
	A   float64 `json:"a_us"`   // start and end of a tile
	Tau float64 `json:"tau_us"` // one key block of 128
	F0  float64 `json:"f0_us"`  // launch
	Phi float64 `json:"phi"`    // share of a block that a partial one saves
	BW  float64 `json:"bw_tbps"`
	P   float64 `json:"p"` // how sharply memory takes over
	L2  float64 `json:"l2_mb"`
	G2  float64 `json:"g2"` // cost of a byte that comes from L2
	// Ad and Taud are A and Tau of a request with one new token, as shares.
	Ad   float64 `json:"a_decode"`
	Taud float64 `json:"tau_decode"`
}

// FA3Kernel numbers the kernels that FlashAttention-3 chooses between.
type FA3Kernel int

// The kernels: one token a request; 64 query rows a tile; 128 query rows a
// tile; each with and without the KV split over tiles.
const (
	FA3Decode FA3Kernel = iota
	FA3DecodeSplit
	FA3Small
	FA3SmallSplit
	FA3Large
	FA3LargeSplit
	fa3Kernels
)

// FA3Params are the constants of all kernels. The two decode kernels differ in
// F0 only.
type FA3Params [fa3Kernels]FA3Class

// FA3Defaults are values measured once on an H200 (132 multiprocessors, head
// size 128, bf16): where a fit starts, and what stands in for a kernel of
// which a bundle holds no rows.
func FA3Defaults() FA3Params {
	return FA3Params{
		{2.580, 0.627, 6.217, 0.089, 6.259, 1.067, 117.95, 1.306, 1, 1},
		{2.580, 0.627, 6.460, 0.089, 6.259, 1.067, 117.95, 1.306, 1, 1},
		{2.737, 0.844, 5.998, 0.095, 5.970, 1.379, 61.144, 1.461, 0.8, 0.95},
		{2.399, 1.077, 7.090, 0.087, 7.857, 1.228, 111.353, 1.326, 0.8, 0.95},
		{3.648, 1.565, 6.323, 0.107, 4.798, 4.272, 325.116, 1.385, 0.8, 0.95},
		{3.371, 1.610, 7.896, 0.101, 8.741, 1.635, 59.770, 0.825, 0.8, 0.95},
	}
}

// FA3 predicts attention times under FlashAttention-3.
type FA3 struct {
	Geometry Geometry
	Params   FA3Params
	soft     [fa3Kernels]softMax
}

// NewFA3 bakes what does not depend on the batch.
func NewFA3(g Geometry, p FA3Params) *FA3 {
	m := &FA3{Geometry: g, Params: p}
	for i := range p {
		m.soft[i].bake(p[i].P)
	}
	return m
}

// TimeUS is the attention layer's time for a batch in executed order: cache
// write, attention kernel and combine or fill. An empty batch takes 0.
func (m *FA3) TimeUS(runs []Run) float64 {
	us, _ := m.timeUS(runs)
	return us
}

func (m *FA3) timeUS(runs []Run) (us float64, class int) {
	sh := m.Geometry.fa3Shape(runs)
	if sh.requests == 0 {
		return 0, 0
	}
	sc := scratchPool.Get().(*scratch)
	c := &m.Params[sh.kernel]
	m.Geometry.fa3Schedule(runs, &sh, c, sc)
	us = sh.timeUS(c, &m.soft[sh.kernel], sc.makespan, &sc.demand)
	scratchPool.Put(sc)
	return us, sh.class(runs)
}

func (m *FA3) class(runs []Run) int {
	sh := m.Geometry.fa3Shape(runs)
	return sh.class(runs)
}

func (sh *fa3Shape) class(runs []Run) int { return int(sh.kernel)*2 + decodes(runs) }

// Kernel says which kernel the batch runs.
func (m *FA3) Kernel(runs []Run) FA3Kernel { return m.Geometry.fa3Shape(runs).kernel }

// scratch is the working memory of one evaluation.
type scratch struct {
	levels   levels
	spans    []span
	demand   [demandBins]float64
	wheel    wheel
	heads    []int
	tiles    []fa2Tile
	skipped  float64
	from     float64
	busy     float64
	reads    reads
	makespan float64
}

var scratchPool = sync.Pool{New: func() any {
	return &scratch{levels: levels{buf: make([]level, 0, 1024)}, spans: make([]span, 0, 1024)}
}}

// fa3Shape is what a batch's lengths alone decide.
type fa3Shape struct {
	kernel    FA3Kernel
	rows      int // query rows of a tile
	keys      int // keys of a block
	splits    int // upper bound; 1 is no split
	perSplit  int // key blocks that a split should hold
	tokens    int
	requests  int
	sumK      float64
	splitRows float64 // sum of q*s over split requests
	splitQ    float64 // sum of q over split requests
	heads     float64
	kvHeads   float64
	keyBytes  float64 // of a key and its value, of one head
}

func (g Geometry) fa3Shape(runs []Run) fa3Shape {
	group := g.Group()
	sh := fa3Shape{heads: float64(g.QueryHeads), kvHeads: float64(g.KVHeads), keyBytes: 512}
	if g.ByteCache {
		sh.keyBytes = 256
	}
	maxQ, maxK := 0, 0
	for _, r := range runs {
		k := r.New + r.History
		maxQ, maxK = max(maxQ, r.New), max(maxK, k)
		sh.tokens += r.New * r.Count
		sh.requests += r.Count
		sh.sumK += float64(k) * float64(r.Count)
	}
	sh.rows = 128
	if maxQ*group <= 64 {
		sh.rows = 64
	}
	sh.keys = g.fa3Keys(maxQ)
	sh.splits = g.fa3Splits(maxQ, maxK)
	blocks := 0
	for _, r := range runs {
		blocks += r.Count * ceilDiv(r.New*group, sh.rows) * ceilDiv(r.New+r.History, sh.keys)
	}
	sh.perSplit = max(1, int(math.Ceil(float64(blocks)*1.1*float64(g.KVHeads)/float64(g.SMs))))
	if sh.splits > 1 {
		for _, r := range runs {
			if s := sh.splitsOf(r); s > 1 {
				sh.splitRows += float64(r.New * s * r.Count)
				sh.splitQ += float64(r.New * r.Count)
			}
		}
	}
	switch {
	case maxQ <= 1:
		sh.kernel = FA3Decode
	case sh.rows == 64:
		sh.kernel = FA3Small
	default:
		sh.kernel = FA3Large
	}
	if sh.splits > 1 {
		sh.kernel++
	}
	return sh
}

// splitsOf is the number of splits of each request of a run.
func (sh *fa3Shape) splitsOf(r Run) int {
	if sh.splits <= 1 {
		return 1
	}
	return max(1, min(ceilDiv(ceilDiv(r.New+r.History, sh.keys), sh.perSplit), sh.splits))
}

// fa3Keys is the number of keys of a block. With a cache of single bytes the
// kernel is another, with other tiles where no mask is needed.
func (g Geometry) fa3Keys(maxQ int) int {
	switch {
	case !g.ByteCache:
		return 128
	case maxQ <= 1:
		return 96
	}
	return 192
}

// fa3Splits is the kernel's upper bound of splits for the longest chunk and
// the longest sequence of a batch: the smallest number whose last wave of
// tiles is at least 85% as full as the fullest.
func (g Geometry) fa3Splits(maxQ, maxK int) int {
	tiles := float64(g.KVHeads * ceilDiv(maxQ*g.Group(), 128))
	blocks := ceilDiv(maxK, g.fa3Keys(maxQ))
	sms := float64(g.SMs)
	if tiles >= 0.8*sms || blocks <= 4 {
		return 1
	}
	fill := func(s int) float64 {
		w := tiles * float64(s) / sms
		return w / math.Ceil(w)
	}
	limit := min(128, g.SMs, blocks)
	best := 0.0
	for s := 1; s <= limit; s++ {
		best = max(best, fill(s))
	}
	for s := 1; s <= limit; s++ {
		if fill(s) >= 0.85*best {
			return s
		}
	}
	return 1
}

// Where more runs than these are unlike, times that differ by a small part of
// a tile are taken as one.
const (
	unlikeRuns = 12
	nearTile   = 0.02
)

// fa3EmptyUS is the cost of a split that has no key block left.
const fa3EmptyUS = 0.2

// fa3Schedule places all tiles and leaves the makespan and the demand on
// memory, both before contention, in sc.
func (g Geometry) fa3Schedule(runs []Run, sh *fa3Shape, c *FA3Class, sc *scratch) {
	sc.levels.reset(g.SMs)
	sc.spans = sc.spans[:0]
	if len(runs) > unlikeRuns {
		sc.levels.near = nearTile * (c.A + c.Tau*sh.sumK/float64(sh.keys*sh.requests))
	}
	group := g.Group()
	for _, r := range runs {
		k := r.New + r.History
		nm, nb := ceilDiv(r.New*group, sh.rows), ceilDiv(k, sh.keys)
		s := sh.splitsOf(r)
		section := 1
		if sh.kernel > FA3DecodeSplit {
			per := ceilDiv(nb, s)
			for _, z := range [...]int{8, 4, 2} {
				if z*per <= 128 {
					section = z
					break
				}
			}
			section = min(section, g.KVHeads)
		}
		t := fa3Tiles{a: c.A, tau: c.Tau, phi: c.Phi, ref: c.Tau, nm: nm, splits: s, keys: sh.keys}
		if r.New == 1 {
			t.a, t.tau = c.A*c.Ad, c.Tau*c.Taud
		}
		if nm == 1 && s == 1 {
			// All tiles of the run are alike, whatever the order of heads.
			t.set(k, nb)
			cost, dem := t.split(0)
			sc.levels.place(r.Count*g.KVHeads, cost, dem, &sc.spans)
			continue
		}
		for range r.Count {
			for h0 := 0; h0 < g.KVHeads; h0 += section {
				heads := min(section, g.KVHeads-h0)
				for mi := nm - 1; mi >= 0; mi-- {
					t.set(min(r.New, ceilDiv((mi+1)*sh.rows, group))+r.History, nb)
					if s == 1 {
						cost, dem := t.split(0)
						sc.levels.place(heads, cost, dem, &sc.spans)
						continue
					}
					for range heads {
						t.place(sc)
					}
				}
			}
		}
	}
	sc.makespan = sc.levels.last
	demand(sc.spans, sc.makespan, &sc.demand)
}

// fa3Tiles are the tiles of one block of query rows: one a split.
type fa3Tiles struct {
	a, tau float64 // as in FA3Class, of these tiles
	phi    float64
	ref    float64 // Tau of the class, which demand on memory is relative to
	nm     int
	splits int
	keys   int     // of a block
	blocks int     // key blocks that the rows see
	per    int     // blocks of a split
	part   float64 // how much of the last block they see
}

// set moves to the rows whose last one sees kk keys, of nb blocks in all.
func (t *fa3Tiles) set(kk, nb int) {
	t.blocks = min(nb, ceilDiv(kk, t.keys))
	t.per = ceilDiv(t.blocks, t.splits)
	t.part = float64(kk)/float64(t.keys) - float64(t.blocks-1)
}

// split gives cost and demand of the j-th split.
func (t *fa3Tiles) split(j int) (cost, dem float64) {
	lo := j * t.per
	hi := min(t.blocks, lo+t.per)
	if hi <= lo {
		return fa3EmptyUS, 0
	}
	b := float64(hi - lo)
	y := b
	if hi == t.blocks {
		b -= t.phi * (1 - t.part)
		y -= 1 - t.part
	}
	cost = t.a + t.tau*b
	return cost, t.ref * y / (float64(t.nm) * cost)
}

// place puts all splits on the schedule, equal ones together.
func (t *fa3Tiles) place(sc *scratch) {
	full := 0 // splits before the one with the last block
	if t.per > 0 {
		full = (t.blocks - 1) / t.per
	}
	if full > 0 {
		b := float64(t.per)
		cost := t.a + t.tau*b
		sc.levels.place(full, cost, t.ref*b/(float64(t.nm)*cost), &sc.spans)
	}
	cost, dem := t.split(full)
	sc.levels.place(1, cost, dem, &sc.spans)
	if rest := t.splits - full - 1; rest > 0 {
		sc.levels.place(rest, fa3EmptyUS, 0, &sc.spans)
	}
}

// timeUS adds contention for memory, launch, cache write and combine to a
// schedule.
func (sh *fa3Shape) timeUS(c *FA3Class, soft *softMax, makespan float64, dem *[demandBins]float64) float64 {
	l2 := c.L2 * 1e6 / (sh.keyBytes * sh.kvHeads * sh.sumK)
	g := c.G2 + (1-c.G2)/(1+l2*l2*l2)
	x := g * sh.keyBytes * float64(sh.keys) / (c.BW * 1e6 * c.Tau)
	sum := 0.0
	for _, d := range dem {
		sum += soft.at(d * x)
	}
	return c.F0 + makespan/demandBins*sum + sh.aroundUS()
}

// aroundUS is what runs beside the attention kernel: the cache write, and the
// combine of splits or the fill of the scheduler's counter.
func (sh *fa3Shape) aroundUS() float64 {
	t := float64(sh.tokens)
	us := 2.05 + 0.0031*t + math.Ceil(t/264) - 1
	if sh.splits <= 1 {
		return us + 0.7
	}
	h := sh.heads / 32
	return us + max(2.4, 2.56+(0.0055*t+0.0039*sh.splitRows)*h+0.159*math.Sqrt(sh.splitQ*h)+0.006*float64(sh.requests))
}

// softMax is (1 + z^p)^(1/p), from a table over 0 to 1: beyond it, it is
// z times its value at 1/z.
type softMax struct {
	p float64
	y [softMaxPoints + 2]float64
}

const softMaxPoints = 256

func (s *softMax) bake(p float64) {
	s.p = p
	for i := range s.y {
		// log1p and exp are twice as fast as two powers.
		z := float64(i) / softMaxPoints
		s.y[i] = math.Exp(math.Log1p(math.Exp(p*math.Log(max(z, 1e-300)))) / p)
	}
}

func (s *softMax) at(z float64) float64 {
	scale := 1.0
	if z > 1 {
		scale, z = z, 1/z
	}
	u := max(z, 0) * softMaxPoints
	i := int(u)
	return scale * (s.y[i] + (u-float64(i))*(s.y[i+1]-s.y[i]))
}
