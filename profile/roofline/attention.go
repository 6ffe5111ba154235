package roofline

import (
	"math"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/profile"
)

// family is how a line of attention kernels cuts a batch into tiles.
type family struct {
	rows, smallRows int     // query rows of a tile; smallRows where they suffice
	packMixed       bool    // the query heads of a KV head share a tile in mixed batches too
	splitMixed      bool    // KV is split in mixed batches too
	headsOutermost  bool    // all requests of one head before the next head
	emptyUS         float64 // a block of the launch grid that finds no rows
	startUS         float64 // a tile before and after its key blocks
	matrixShare     float64 // of the unit's matrix rate inside a key block
	smallShare      float64 // the same with smallRows
	occupancy       int     // unit slots for the split heuristic
}

const blockKeys = 128 // keys of one block

var families = map[hardware.AttentionKernel]family{
	hardware.FlashAttention2: {
		rows: 64, smallRows: 64, headsOutermost: true,
		emptyUS: 0.3, startUS: 2, matrixShare: 0.6, smallShare: 0.6, occupancy: 2,
	},
	hardware.FlashAttention3: {
		rows: 128, smallRows: 64, packMixed: true, splitMixed: true,
		emptyUS: 0.2, startUS: 4, matrixShare: 0.66, smallShare: 0.6, occupancy: 1,
	},
	hardware.Tiles: {
		rows: 128, smallRows: 128, packMixed: true,
		emptyUS: 0.2, startUS: 3, matrixShare: 0.6, smallShare: 0.6, occupancy: 1,
	},
}

// attentionTime is one attention call by kernel, microseconds.
type attentionTime struct{ flash, combine, cacheWrite float64 }

func (t attentionTime) total() float64 { return t.flash + t.combine + t.cacheWrite }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// attention is the time of one call over the batch. s is scratch space.
func (d *device) attention(m *dims, groups []profile.Group, s *schedule) attentionTime {
	f := &d.family
	group := m.heads / m.kvHeads
	var maxNew, maxKeys, tokens, requests int
	var keys float64
	for _, g := range groups {
		maxNew = max(maxNew, g.NewTokens)
		maxKeys = max(maxKeys, g.NewTokens+g.KVHistory)
		tokens += g.Count * g.NewTokens
		requests += g.Count
		keys += float64(g.Count) * float64(g.NewTokens+g.KVHistory)
	}
	decode := maxNew == 1
	pack, heads := 1, m.heads
	if decode || f.packMixed {
		pack, heads = group, m.kvHeads
	}
	rows, share := f.rows, f.matrixShare
	if maxNew*pack <= f.smallRows {
		rows, share = f.smallRows, f.smallShare
	}
	blockUS := 4 * float64(rows) * blockKeys * float64(m.head) / (m.peakPerUnit * share)
	gridRows := ceilDiv(maxNew*pack, rows)

	// The largest number of splits; each request gets its share of them.
	splits := 1
	maxBlocks := ceilDiv(maxKeys, blockKeys)
	if decode || f.splitMixed {
		tiles := heads * gridRows
		if f.occupancy > 1 { // the older heuristic counts all requests
			tiles *= requests
		}
		splits = splitCount(tiles, int(d.units)*f.occupancy, maxBlocks)
	}
	perSplit := 0
	if splits > 1 && f.occupancy == 1 {
		var all float64
		for _, g := range groups {
			all += float64(g.Count) * float64(ceilDiv(g.NewTokens*pack, rows)*ceilDiv(g.NewTokens+g.KVHistory, blockKeys))
		}
		perSplit = int(math.Ceil(1.1 * float64(heads) * all / d.units))
	}

	s.start(int(d.units))
	span, splitRows := 0.0, 0.0
	run := func(count int, cost float64) { span = math.Max(span, s.add(count, cost)) }
	one := func(g profile.Group, times int) {
		blocks := ceilDiv(g.NewTokens+g.KVHistory, blockKeys)
		n := splits
		if perSplit > 0 {
			n = max(1, min(ceilDiv(blocks, perSplit), splits))
		}
		m := ceilDiv(g.NewTokens*pack, rows)
		for i := m - 1; i >= 0; i-- {
			end := min(g.NewTokens, ceilDiv((i+1)*rows, pack)) + g.KVHistory
			b := min(blocks, ceilDiv(end, blockKeys))
			p := ceilDiv(b, n)
			full := b / p
			run(times*full, f.startUS+float64(p)*blockUS)
			if rest := b - full*p; rest > 0 {
				run(times, f.startUS+float64(rest)*blockUS)
				full++
			}
			if n > full {
				run(times*(n-full), f.emptyUS)
			}
		}
		if f.headsOutermost && gridRows > m {
			run(times*(gridRows-m), f.emptyUS)
		}
		if n > 1 {
			splitRows += float64(times*n*g.NewTokens) * float64(pack)
		}
	}
	if f.headsOutermost {
		for range heads {
			for _, g := range groups {
				one(g, g.Count)
			}
		}
	} else {
		for _, g := range groups {
			for range g.Count {
				one(g, heads)
			}
		}
	}

	width := float64(m.kvHeads*m.head) * m.kvBytes
	read := 2 * keys * width / d.memory // other layers have pushed the history out of the cache
	t := attentionTime{
		flash:      2*d.launch + norm(span, read),
		cacheWrite: d.elementwise(4 * float64(tokens) * width),
	}
	if splits > 1 {
		t.combine = d.elementwise(splitRows * float64(m.head) * 4)
	}
	return t
}

// splitCount is the smallest number of splits whose last wave of tiles is
// nearly as full as that of the best number.
func splitCount(tiles, slots, blocks int) int {
	if float64(tiles) >= 0.8*float64(slots) || blocks <= 1 {
		return 1
	}
	eff := func(n int) float64 {
		if n > 1 && ceilDiv(blocks, n) == ceilDiv(blocks, n-1) {
			return 0 // no shorter than with one split less
		}
		waves := float64(tiles*n) / float64(slots)
		return waves / math.Ceil(waves)
	}
	limit := min(128, slots, blocks)
	best := 0.0
	for n := 1; n <= limit; n++ {
		best = math.Max(best, eff(n))
	}
	for n := 1; n <= limit; n++ {
		if eff(n) >= 0.85*best {
			return n
		}
	}
	return 1
}
