package profile

import (
	"maps"
	"math"
	"slices"
)

// DefaultShardLimit is the share by which a shard's anchors may differ from the
// others' before shards are no longer put together.
const DefaultShardLimit = 0.05

// ShardReport is what a merge found in one of a journal's files.
type ShardReport struct {
	File    string `json:"file"`            // its name, without the extension
	Place   string `json:"place,omitempty"` // where it ran last
	Shots   int    `json:"shots"`           // measurements that count
	Anchors int    `json:"anchors"`
	// Ratio is how long this file's anchors took by those of the middle file,
	// 1.02 being 2% slower: the geometric mean over the anchors' shapes. 0: it
	// has none that another file has too.
	Ratio float64 `json:"ratio,omitempty"`
	// Beyond: the ratio is further from 1 than the limit.
	Beyond bool `json:"beyond,omitempty"`
}

// shardRatios sets what the anchors say of each file. anchors are those that
// count, with the file that each stands in.
func shardRatios(reports []ShardReport, anchors []*record, files []int, limit float64) {
	type cell struct {
		key  string
		file int
	}
	levels := make(map[cell][]float64)
	for i, a := range anchors {
		c := cell{tpKey(a), files[i]}
		levels[c] = append(levels[c], anchorLevel(a))
		reports[files[i]].Anchors++
	}
	byKey := make(map[string]map[int]float64) // the file's median by the anchor
	for c, values := range levels {
		if byKey[c.key] == nil {
			byKey[c.key] = make(map[int]float64)
		}
		byKey[c.key][c.file] = median(values)
	}
	sums, counts := make([]float64, len(reports)), make([]int, len(reports))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		of := byKey[key]
		if len(of) < 2 {
			continue
		}
		middle := median(slices.Collect(maps.Values(of)))
		for file, level := range of {
			if level != middle {
				sums[file] += math.Log(level / middle)
			}
			counts[file]++
		}
	}
	for i := range reports {
		if counts[i] > 0 {
			reports[i].Ratio = math.Exp(sums[i] / float64(counts[i]))
			reports[i].Beyond = math.Abs(reports[i].Ratio-1) > limit
		}
	}
}

func tpKey(a *record) string { return joinInts("tp", a.TP) + " " + anchorKey(a) }
