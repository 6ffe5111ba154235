package accuracy

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// line is attention rows that differ in one coordinate only, ascending in it.
type line []perfio.AttentionRow

// linesOf returns the lines of at least three points.
func linesOf(rows []perfio.AttentionRow, axis func(perfio.AttentionRow) int) []line {
	by := map[[4]int]line{}
	for _, r := range rows {
		k := [4]int{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}
		for i, v := range k {
			// The axis' own coordinate is wiped: it is the one that changes
			// when the row's does.
			probe := r
			switch i {
			case 0:
				probe.PrefillChunk++
			case 1:
				probe.KVPrefill++
			case 2:
				probe.NDecode++
			case 3:
				probe.KVDecode++
			}
			if axis(probe) != axis(r) && v >= 0 {
				k[i] = -1
			}
		}
		by[k] = append(by[k], r)
	}
	var out []line
	for _, k := range slices.SortedFunc(maps.Keys(by), func(a, b [4]int) int { return slices.Compare(a[:], b[:]) }) {
		l := by[k]
		slices.SortFunc(l, func(a, b perfio.AttentionRow) int { return cmp.Compare(axis(a), axis(b)) })
		if len(l) >= 3 {
			out = append(out, l)
		}
	}
	return out
}

// each predicts each interior point from the others of its line.
func (l line) each(axis func(perfio.AttentionRow) int, rules LineRules, yield func(r perfio.AttentionRow, predictedUS float64)) {
	// All points but the one at i: at first without the point at 1.
	xs, ys := make([]int, 0, len(l)), make([]float64, 0, len(l))
	for j, r := range l {
		if j != 1 {
			xs, ys = append(xs, axis(r)), append(ys, r.TimeUS)
		}
	}
	for i := 1; i < len(l)-1; i++ {
		yield(l[i], rules.Line(xs, ys, axis(l[i])))
		xs[i], ys[i] = axis(l[i]), l[i].TimeUS // in place of the next one
	}
}

// LeaveOneOut hands over each row of attention.csv that test T3 or T4 leaves
// out of its line, with what line rules predict from the rest of the line.
func LeaveOneOut(rows []perfio.AttentionRow, test string, rules LineRules, yield func(r perfio.AttentionRow, predictedUS float64)) {
	axis := axisOf(test)
	for _, l := range linesOf(rows, axis) {
		l.each(axis, rules, yield)
	}
}

// lineSplits holds out one value of the axis after another, with all rows that
// have it, and asks for the interior points there.
func lineSplits(d Data, axis func(perfio.AttentionRow) int) []split {
	ask := map[int][]question{}
	for _, l := range linesOf(d.Attention, axis) {
		for _, r := range l[1 : len(l)-1] {
			ask[axis(r)] = append(ask[axis(r)], uniformQuestion(r))
		}
	}
	var out []split
	for _, v := range slices.Sorted(maps.Keys(ask)) {
		s := split{ask: ask[v]}
		for _, r := range d.Attention {
			if axis(r) != v {
				s.train.Attention = append(s.train.Attention, r)
			}
		}
		out = append(out, whole(s)...)
	}
	return out
}

// pointFolds is how many folds the interior points of lines are dealt to.
const pointFolds = 8

// pointSplits holds out single interior points of lines. In each fold, points
// of one line that are held out are pointFolds places apart, so that their
// neighbours are seen, and where a line begins has nothing to do with the lines
// beside it.
func pointSplits(d Data, axis func(perfio.AttentionRow) int) []split {
	fold := map[perfio.AttentionRow]int{} // of the rows that are held out in turn
	rnd := rand.New(rand.NewPCG(foldSeed, 1))
	for _, l := range linesOf(d.Attention, axis) {
		first := rnd.IntN(pointFolds)
		for i, r := range l[1 : len(l)-1] {
			fold[r] = (first + i) % pointFolds
		}
	}
	var out []split
	for f := range pointFolds {
		var s split
		for _, r := range d.Attention {
			if at, ok := fold[r]; ok && at == f {
				s.ask = append(s.ask, uniformQuestion(r))
			} else {
				s.train.Attention = append(s.train.Attention, r)
			}
		}
		out = append(out, whole(s)...)
	}
	return out
}

func uniformQuestion(r perfio.AttentionRow) question {
	return question{Uniform(r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode), r.TimeUS}
}
