package profile

import (
	"cmp"
	"container/heap"
	"slices"
)

// splitRuns is the number of runs that shards are balanced for. It is no option,
// so that a split does not change with how carefully it is measured.
const splitRuns = 4

// splitTasks divides tasks, as planTasks lists them, among count shards: the
// shard of each, and the seconds of each shard without its boots. What belongs
// together (a skew case's batches) stays together. The split depends on the list, the count and the
// costs alone.
//
// Phase by phase, the longest first, each goes to the shard that has the least:
// so every shard has its part of every phase, and one that is cut short has
// what tells most.
func splitTasks(tasks []*task, count int, costs Costs) (shards []int, seconds []float64) {
	type unit struct {
		phase, first, last int // tasks[first:last]; a unit's stand side by side
		seconds            float64
	}
	var units []unit
	for i, t := range tasks {
		s := costs.Shot(&t.shot, splitRuns)
		if n := len(units); n > 0 && i > 0 && tasks[i-1].phase == t.phase && tasks[i-1].group == t.group && tasks[i-1].category == t.category {
			units[n-1].last, units[n-1].seconds = i+1, units[n-1].seconds+s
			continue
		}
		units = append(units, unit{t.phase, i, i + 1, s})
	}
	slices.SortStableFunc(units, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.phase, b.phase), cmp.Compare(b.seconds, a.seconds))
	})
	loads := make(shardLoads, count)
	for i := range loads {
		loads[i].shard = i
	}
	shards = make([]int, len(tasks))
	for _, u := range units {
		least := &loads[0]
		for i := u.first; i < u.last; i++ {
			shards[i] = least.shard
		}
		least.seconds += u.seconds
		heap.Fix(&loads, 0)
	}
	seconds = make([]float64, count)
	for _, l := range loads {
		seconds[l.shard] = l.seconds
	}
	return shards, seconds
}

// shardLoads is a heap of what each shard has, the least first.
type shardLoads []struct {
	shard   int
	seconds float64
}

func (l shardLoads) Len() int { return len(l) }

func (l shardLoads) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(l[i].seconds, l[j].seconds), cmp.Compare(l[i].shard, l[j].shard)) < 0
}

func (l shardLoads) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l shardLoads) Push(any)      { panic("profile: the number of shards is fixed") }
func (l shardLoads) Pop() any      { panic("profile: the number of shards is fixed") }

// ofShard are the tasks of one shard.
func ofShard(tasks []*task, shard Shard, costs Costs) []*task {
	shards, _ := splitTasks(tasks, shard.Count, costs)
	own := []*task{} // not nil: the plan stands
	for i, t := range tasks {
		if shards[i] == shard.Index {
			own = append(own, t)
		}
	}
	return own
}
