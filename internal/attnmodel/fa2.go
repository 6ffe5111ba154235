package attnmodel

import "math"

// FA2Kernel numbers the kernels of FlashAttention-2 over a paged cache.
type FA2Kernel int

// The kernels: a tile is 64 query tokens of one head; in a batch of decodes
// alone the query heads that share a key head make one tile, and few tiles are
// split along the keys.
const (
	FA2Decode FA2Kernel = iota
	FA2DecodeSplit
	FA2Mixed
	fa2Kernels
)

// FA2Class are the constants of one kernel.
type FA2Class struct {
	F0  float64 `json:"f0_us"`  // launch
	Tau float64 `json:"tau_us"` // one key block of 128
	C   float64 `json:"c"`      // start and end of a prefill tile, blocks
	Cd  float64 `json:"cd"`     // start and end of a decode tile, blocks
	E   float64 `json:"e"`      // a tile without work, blocks
	Phi float64 `json:"phi"`    // share of a block that a partial one saves
	BW  float64 `json:"bw_tbps"`
	P   float64 `json:"p"` // how sharply memory takes over
	L2  float64 `json:"l2_mb"`
	G2  float64 `json:"g2"` // cost of a byte that comes from L2
	S   float64 `json:"s"`  // how sharply L2 overflows
	// Drift is how far apart heads come that start together, as a share of
	// their tiles.
	Drift float64 `json:"drift"`
	Early float64 `json:"early"`   // what tiles take longer that start at once
	Copy  float64 `json:"copy_us"` // what more than one request adds
	Join  float64 `json:"join_us"` // a split, where splits are put together
}

// FA2Params are the constants of all kernels.
type FA2Params [fa2Kernels]FA2Class

// FA2Defaults is where a fit starts.
func FA2Defaults() FA2Params {
	return FA2Params{
		{F0: 4.5, Tau: 2, C: 1, Cd: 0.4, E: 0.1, Phi: 0.3, BW: 1.5, P: 2.5, L2: 80, G2: 0.9, S: 4, Drift: 0.02, Early: 0.05, Copy: 4, Join: 0.2},
		{F0: 8.5, Tau: 1.5, C: 1, Cd: 0.4, E: 0.1, Phi: 0.6, BW: 1.5, P: 2.5, L2: 80, G2: 0.9, S: 4, Drift: 0.02, Early: 0.05, Copy: 4, Join: 0.2},
		{F0: 3.5, Tau: 2.7, C: 0.9, Cd: 0.7, E: 0.13, Phi: 0.15, BW: 1.5, P: 7, L2: 80, G2: 0.07, S: 2.5, Drift: 0.02, Early: 0.05, Copy: 0.2, Join: 0.05},
	}
}

// FA2 predicts attention times under FlashAttention-2.
type FA2 struct {
	Geometry Geometry
	Params   FA2Params
	curves   [fa2Kernels]fa2Curves
}

// NewFA2 bakes what does not depend on the batch.
func NewFA2(g Geometry, p FA2Params) *FA2 {
	m := &FA2{Geometry: g, Params: p}
	for i := range p {
		m.curves[i].bake(&p[i])
	}
	return m
}

// TimeUS is the attention layer's time for a batch in executed order. An empty
// batch takes 0.
func (m *FA2) TimeUS(runs []Run) float64 {
	us, _ := m.timeUS(runs)
	return us
}

func (m *FA2) timeUS(runs []Run) (us float64, class int) {
	sh := m.Geometry.fa2Shape(runs)
	if sh.requests == 0 {
		return 0, 0
	}
	sc := scratchPool.Get().(*scratch)
	c := &m.Params[sh.kernel]
	m.Geometry.fa2Schedule(runs, &sh, c, sc)
	us = sh.timeUS(c, &m.curves[sh.kernel], sc.plan(), &sc.reads)
	scratchPool.Put(sc)
	return us, sh.class(runs)
}

func (m *FA2) class(runs []Run) int {
	sh := m.Geometry.fa2Shape(runs)
	return sh.class(runs)
}

func (sh *fa2Shape) class(runs []Run) int { return int(sh.kernel)*2 + decodes(runs) }

// Kernel says which kernel the batch runs.
func (m *FA2) Kernel(runs []Run) FA2Kernel { return m.Geometry.fa2Shape(runs).kernel }

type fa2Shape struct {
	kernel   FA2Kernel
	tiles    int // of 64 query tokens, of the longest chunk
	columns  int // heads that have tiles of their own
	perHead  int // tiles with work of one of them
	splits   int
	requests int
	tokens   int
	sumK     float64
	heads    float64
	kvHeads  float64
}

func (g Geometry) fa2Shape(runs []Run) fa2Shape {
	sh := fa2Shape{heads: float64(g.QueryHeads), kvHeads: float64(g.KVHeads), splits: 1}
	maxQ, maxK := 0, 0
	for _, r := range runs {
		k := r.New + r.History
		maxQ, maxK = max(maxQ, r.New), max(maxK, k)
		sh.tokens += r.New * r.Count
		sh.requests += r.Count
		sh.sumK += float64(k) * float64(r.Count)
	}
	sh.tiles = ceilDiv(maxQ, 64)
	if maxQ > 1 {
		sh.kernel = FA2Mixed
		sh.columns = g.QueryHeads
		for _, r := range runs {
			sh.perHead += r.Count * ceilDiv(r.New, 64)
		}
		return sh
	}
	sh.columns, sh.perHead = g.KVHeads, sh.requests
	sh.splits = g.fa2Splits(sh.requests, maxK)
	if sh.splits > 1 {
		sh.kernel = FA2DecodeSplit
	}
	return sh
}

// fa2Splits is the kernel's number of splits of a batch of decodes: it counts
// on two tiles a multiprocessor.
func (g Geometry) fa2Splits(requests, maxK int) int {
	tiles, slots := float64(requests*g.KVHeads), float64(2*g.SMs)
	if tiles >= 0.8*slots {
		return 1
	}
	blocks := ceilDiv(maxK, 128)
	limit := min(128, 2*g.SMs, blocks)
	eligible := func(s int) bool { return s == 1 || ceilDiv(blocks, s) != ceilDiv(blocks, s-1) }
	fill := func(s int) float64 {
		w := tiles * float64(s) / slots
		return w / math.Ceil(w)
	}
	best := 0.0
	for s := 1; s <= limit; s++ {
		if eligible(s) {
			best = max(best, fill(s))
		}
	}
	for s := 1; s <= limit; s++ {
		if eligible(s) && fill(s) >= 0.85*best {
			return s
		}
	}
	return 1
}

// blocks is the work of a tile that sees k keys, in key blocks.
func (c *FA2Class) blocks(k int) float64 {
	x := float64(k) * (1.0 / 128)
	return (1-c.Phi)*math.Ceil(x) + c.Phi*x
}

// fa2Schedule places all tiles and leaves the makespan, in key blocks, and the
// demand on memory in sc.
func (g Geometry) fa2Schedule(runs []Run, sh *fa2Shape, c *FA2Class, sc *scratch) {
	sc.heads = append(sc.heads[:0], 0)
	sc.skipped, sc.busy, sc.from = 0, 0, 0
	mean := c.Cd + sh.sumK/128/float64(sh.requests)
	near := max(fa2Near, fa2NearFew*mean)
	if len(runs) > unlikeRuns {
		near = fa2NearTile * mean
	}
	if sh.splits == 1 {
		g.fa2Heads(runs, sh, c, sc, near, fa2Placed)
	} else {
		g.fa2Splitted(runs, sh, c, sc, near)
	}
	sc.makespan = sc.wheel.last
	sc.reads.gather(sc.wheel.spans, sc.heads, g.fa2Group(sh), c.Drift, sc.makespan)
}

// fa2Group is how many of the heads that have tiles of their own read the same
// keys one after another.
func (g Geometry) fa2Group(sh *fa2Shape) int {
	if sh.splits > 1 {
		return 1
	}
	return sh.columns / g.KVHeads
}

// fa2Splitted places the tiles of requests whose keys are split: request by
// request, all heads of one before the next.
func (g Geometry) fa2Splitted(runs []Run, sh *fa2Shape, c *FA2Class, sc *scratch, near float64) {
	longest := 0
	for _, r := range runs {
		longest = max(longest, r.New+r.History)
	}
	sc.wheel.reset(g.SMs, near, finite(float64(ceilDiv(ceilDiv(longest, 128), sh.splits))+c.Cd), c.Early)
	for _, r := range runs {
		k := r.New + r.History
		nb := ceilDiv(k, 128)
		per := ceilDiv(nb, sh.splits)
		full := (nb - 1) / per
		last := float64(nb-full*per) - c.Phi*(float64(nb)-float64(k)/128)
		rest := float64(sh.splits-full-1) * c.E
		cost, lastCost := float64(per)+c.Cd, last+c.Cd
		for range r.Count * g.KVHeads {
			if full > 0 {
				sc.wheel.place(full, cost, float64(per)/cost)
			}
			sc.wheel.place(1, lastCost, last/lastCost)
			if rest > 0 {
				sc.wheel.fill(rest)
			}
		}
	}
	sc.heads = append(sc.heads, len(sc.wheel.spans))
}

// Where heads are many, those in the middle are as the others: so many tiles
// are placed one by one, or the heads of so many waves of tiles, in whole groups.
const (
	fa2Placed      = 300
	fa2Waves       = 6
	fa2UnlikeWaves = 2 // where many requests are unlike, which mixes tiles sooner
	// Times that differ by less are taken as one: in key blocks, as a share of
	// the mean tile, and as a share of it where many requests are unlike.
	fa2Near     = 0.2
	fa2NearFew  = 0.02
	fa2NearTile = 0.05
	// Tiles of a chunk count as equal within so much of that.
	fa2Alike = 0.5
	// fa2Blur is the share of a part of the schedule within which equal tiles
	// count as starting together when memory is shared out.
	fa2Blur = 0.25
)

// fa2Heads places the tiles head by head, request by request, first query
// tokens first, at most about so many of them one by one.
func (g Geometry) fa2Heads(runs []Run, sh *fa2Shape, c *FA2Class, sc *scratch, near float64, most int) {
	sc.tiles = sh.appendTiles(sc.tiles[:0], runs, c, fa2Alike*near)
	group := g.fa2Group(sh)
	placed := sh.columns
	if events := sc.events(g.SMs); len(sc.tiles) > 1 && events*placed > most {
		waves, whole := float64(fa2Waves), math.Ceil
		if len(runs) > unlikeRuns {
			waves, whole = fa2UnlikeWaves, math.Round
		}
		groups := max(float64(most)/float64(events), waves*float64(g.SMs)/float64(sh.perHead)) / float64(group)
		placed = min(placed, max(int(whole(groups)), 1)*group)
	}
	work, longest := 0.0, 0.0
	for i := range sc.tiles {
		t := &sc.tiles[i]
		work += float64(t.count)*t.cost + t.empty
		longest = max(longest, t.cost)
	}
	w := &sc.wheel
	least := work * float64(placed) / float64(g.SMs) // of the makespan
	w.reset(g.SMs, near, finite(longest), c.Early)
	w.blur = fa2Blur / readBins * least
	for range placed {
		for i := range sc.tiles {
			t := &sc.tiles[i]
			w.place(t.count, t.cost, t.weight)
			if t.empty > 0 {
				w.fill(t.empty)
			}
		}
		sc.heads = append(sc.heads, len(w.spans))
	}
	if placed < sh.columns {
		sc.skipped = float64(sh.columns-placed) * work / float64(g.SMs)
		sc.busy = w.earliest()
		// What goes on like this is the later half, of which whole groups: the
		// first head of each finds nothing in the cache. Of one group, it is as
		// much of the first head as of the others.
		period := float64(group) * work / float64(g.SMs)
		switch {
		case group == 1:
			sc.from = sc.busy / 2
		case sc.busy >= period:
			sc.from = sc.busy - max(1, math.Floor(sc.busy/period/2))*period
		default:
			sc.from = max(0, period-sc.busy) / float64(group-1)
		}
	}
}

// events are how many placements a head takes at most.
func (sc *scratch) events(sms int) int {
	n := 0
	for i := range sc.tiles {
		n += min(sc.tiles[i].count, sms)
	}
	return n
}

// finite is x, or 0 for what no kernel has.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// fa2Tile is equal tiles of one head that follow one another, and the work of
// empty ones behind them.
type fa2Tile struct {
	count        int
	cost, weight float64
	empty        float64
}

// fa2EmptyWork of empty tiles, in key blocks, is put down at once where the
// tiles are all unlike.
const fa2EmptyWork = 8

// appendTiles appends the tiles of one head. Tiles of a chunk that follow one
// another and differ by no more than alike in cost are one, with their mean.
func (sh *fa2Shape) appendTiles(dst []fa2Tile, runs []Run, c *FA2Class, alike float64) []fa2Tile {
	empty := 0.0
	for i, r := range runs {
		m := ceilDiv(r.New, 64)
		if r.New == 1 {
			k := r.History + 1
			cost := c.blocks(k) + c.Cd
			dst = append(dst, fa2Tile{r.Count, cost, float64(k) / 128 / cost, 0})
		} else {
			first, count, cost, weight := 0.0, 0.0, 0.0, 0.0
			for j := range m * r.Count {
				k := min(r.New, 64*(j%m+1)) + r.History
				this := c.blocks(k) + c.C
				if count > 0 && !(math.Abs(this-first) <= alike) {
					dst = append(dst, fa2Tile{int(count), cost / count, weight / cost, 0})
					count, cost, weight = 0, 0, 0
				}
				if count == 0 {
					first = this
				}
				count++
				cost += this
				weight += float64(k) / (128 * float64(m))
			}
			dst = append(dst, fa2Tile{int(count), cost / count, weight / cost, 0})
		}
		empty += float64(r.Count*(sh.tiles-m)) * c.E
		if len(runs) <= unlikeRuns || empty > fa2EmptyWork || i == len(runs)-1 {
			dst[len(dst)-1].empty, empty = empty, 0
		}
	}
	return dst
}

// edge is how much the answer hangs on what the cache holds: its logarithm's
// greater change where the cache is smaller or larger.
func (m *FA2) edge(runs []Run) float64 {
	sh := m.Geometry.fa2Shape(runs)
	if sh.requests == 0 {
		return 0
	}
	sc := scratchPool.Get().(*scratch)
	c := m.Params[sh.kernel]
	m.Geometry.fa2Schedule(runs, &sh, &c, sc)
	t := [3]float64{}
	l2 := c.L2
	for i, by := range [...]float64{1, 1 / edgeStep, edgeStep} {
		c.L2 = l2 * by
		t[i] = sh.timeUS(&c, &m.curves[sh.kernel], sc.plan(), &sc.reads)
	}
	scratchPool.Put(sc)
	return max(math.Abs(math.Log(t[1]/t[0])), math.Abs(math.Log(t[2]/t[0])))
}

// edgeStep is by how much the cache is made smaller or larger.
const edgeStep = 1.2

// fa2Span is the length of a schedule, in key blocks.
type fa2Span struct {
	makespan float64
	from     float64 // until busy, all multiprocessors are at work that goes on like this
	busy     float64
	skipped  float64 // of it that was left out
}

func (sc *scratch) plan() fa2Span { return fa2Span{sc.makespan, sc.from, sc.busy, sc.skipped} }

// timeUS turns a schedule into time.
func (sh *fa2Shape) timeUS(c *FA2Class, curves *fa2Curves, s fa2Span, r *reads) float64 {
	footprint := 512 * sh.sumK * sh.kvHeads
	all, busy := r.stretch(s, footprint, keyBlockBytes/(c.BW*1e6*c.Tau), c, curves)
	f0, copied, join := sh.addedUS(c)
	return c.Tau*(s.makespan*all+s.skipped*busy) + f0 + copied + join
}

// addedUS are the times that are added to a schedule's.
func (sh *fa2Shape) addedUS(c *FA2Class) (f0, copied, join float64) {
	if sh.requests > 1 {
		copied = c.Copy
	}
	if sh.splits > 1 {
		join = c.Join * float64(sh.splits)
	}
	return c.F0, copied, join
}
