package accuracy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// Result is one test of one set of rules on one tp folder.
type Result struct {
	Test  string `json:"test"`
	TP    int    `json:"tp"`
	Rules string `json:"rules"`
	Stats
}

// Options of Run. The zero value runs all tests.
type Options struct {
	Tests []string // nil is all
	TP    int      // copied to the results
}

// Tests are the names of the tests in order.
func Tests() []string { return []string{"T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9"} }

// Optional are the names of tests that run only where they are asked for: T3
// and T4 with single points of lines held out rather than all rows of a
// coordinate.
func Optional() []string { return []string{"T3-points", "T4-points"} }

// named are the tests that are asked for, in order.
func (o Options) named() []string {
	if o.Tests == nil {
		return Tests()
	}
	return slices.DeleteFunc(append(Tests(), Optional()...), func(test string) bool { return !slices.Contains(o.Tests, test) })
}

// split is a test's unit: what the rules may see, and what they are asked.
type split struct {
	train Data
	ask   []question
}

type question struct {
	query    Query
	measured float64
}

// Run judges rules by each test that the data allows; a test without a row to
// ask for is left out. d.Skew must be normalized.
func Run(d Data, rules Rules, o Options) ([]Result, error) {
	var out []Result
	for _, test := range o.named() {
		e, err := run(d, rules, test)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", test, rules.Name(), err)
		}
		if len(e.signed)+e.unanswered == 0 {
			continue
		}
		out = append(out, Result{Test: test, TP: o.TP, Rules: rules.Name(), Stats: e.Stats()})
	}
	return out, nil
}

func run(d Data, rules Rules, test string) (*Errors, error) {
	e := new(Errors)
	if axis := axisOf(test); axis != nil {
		if lr, ok := rules.(LineRules); ok {
			LeaveOneOut(d.Attention, test, lr, func(r perfio.AttentionRow, us float64) { e.add(us, true, r.TimeUS) })
			return e, nil
		}
	}
	return e, judge(splits(d, test), rules, e)
}

// axisOf is the coordinate along which T3 or T4 leave points out; nil for other
// tests.
func axisOf(test string) func(perfio.AttentionRow) int {
	switch test {
	case "T3", "T3-points":
		return func(r perfio.AttentionRow) int { return r.PrefillChunk }
	case "T4", "T4-points":
		return func(r perfio.AttentionRow) int { return r.NDecode }
	}
	return nil
}

func judge(splits []split, rules Rules, e *Errors) error {
	for _, s := range splits {
		p, err := rules.Train(s.train)
		if err != nil {
			return err
		}
		estimator, _ := p.(Estimator)
		for _, q := range s.ask {
			if estimator != nil {
				t, sigma, ok := estimator.EstimateUS(q.query)
				e.Add(t, sigma, ok, q.measured)
				continue
			}
			t, ok := p.AttentionUS(q.query)
			e.add(t, ok, q.measured)
		}
	}
	return nil
}

// Estimator is a Predictor that knows how sure it is.
type Estimator interface {
	Predictor
	// EstimateUS is AttentionUS with one standard error, relative.
	EstimateUS(Query) (us, sigma float64, ok bool)
}

// splits are a test's units.
func splits(d Data, test string) []split {
	switch test {
	case "T3", "T4":
		return lineSplits(d, axisOf(test))
	case "T3-points", "T4-points":
		return pointSplits(d, axisOf(test))
	case "T1", "T2":
		var doubled, others []perfio.AttentionRow
		for _, r := range d.Attention {
			if doubling(r.PrefillChunk) && doubling(r.KVPrefill) && doubling(r.KVDecode) {
				doubled = append(doubled, r)
			} else {
				others = append(others, r)
			}
		}
		s := split{train: Data{Attention: doubled}}
		if test == "T2" {
			for _, r := range others {
				s.ask = append(s.ask, uniformQuestion(r))
			}
		} else {
			for _, r := range d.Skew {
				if r.PC > 0 {
					s.ask = append(s.ask, question{Uniform(r.PC, r.KP, r.N, r.KVMean), r.TMeanUS})
				}
			}
		}
		return whole(s)
	case "T5", "T8":
		return folds(d, test == "T8")
	case "T6":
		return heldOut(d, func(r perfio.SkewRow) bool { return r.PC > 0 }, func(r perfio.SkewRow) int { return r.PC }, true)
	case "T7":
		return heldOut(d, func(r perfio.SkewRow) bool { return r.PC > 0 }, func(r perfio.SkewRow) int { return r.N }, false)
	case "T9":
		return heldOut(d, func(r perfio.SkewRow) bool { return r.PC == 0 }, func(r perfio.SkewRow) int { return r.KVS }, false)
	}
	return nil
}

// whole is a test of one split, or of none where there is nothing to ask or to
// learn from.
func whole(s split) []split {
	if len(s.ask) == 0 || len(s.train.Attention) == 0 {
		return nil
	}
	return []split{s}
}

// doubling holds for 0 and 16 times a power of two.
func doubling(x int) bool {
	if x == 0 {
		return true
	}
	return x >= 16 && x%16 == 0 && (x/16)&(x/16-1) == 0
}

// nFolds of T5 and T8, and the seed of who is in which.
const (
	nFolds   = 5
	foldSeed = 6
)

// folds holds out each fifth of the mixed skew rows in turn. Without skew the
// rules see attention.csv only.
func folds(d Data, without bool) []split {
	fold := make([]int, len(d.Skew))
	rnd := rand.New(rand.NewPCG(foldSeed, 0))
	for i := range fold {
		fold[i] = rnd.IntN(nFolds)
	}
	if without {
		s := split{train: Data{Attention: d.Attention}}
		for _, r := range d.Skew {
			if r.PC > 0 {
				s.ask = append(s.ask, skewQuestion(r))
			}
		}
		return whole(s)
	}
	var out []split
	for f := range nFolds {
		s := split{train: Data{Attention: d.Attention}}
		for i, r := range d.Skew {
			switch {
			case r.PC == 0 || fold[i] != f:
				s.train.Skew = append(s.train.Skew, r)
			default:
				s.ask = append(s.ask, skewQuestion(r))
			}
		}
		out = append(out, whole(s)...)
	}
	return out
}

func skewQuestion(r perfio.SkewRow) question {
	return question{Query{PC: r.PC, KP: r.KP, N: r.N, NB: r.NB, KVBig: r.KVBig, KVSmall: r.KVS, KVMean: r.KVMean}, r.TSkewUS}
}

// heldOut holds out each value of key but the smallest and the largest, among
// the rows that count; where both, attention.csv loses its rows of that
// prefill chunk too.
func heldOut(d Data, counts func(perfio.SkewRow) bool, key func(perfio.SkewRow) int, both bool) []split {
	values := map[int]bool{}
	for _, r := range d.Skew {
		if counts(r) {
			values[key(r)] = true
		}
	}
	var out []split
	for i, v := range slices.Sorted(maps.Keys(values)) {
		if i == 0 || i == len(values)-1 {
			continue
		}
		s := split{train: Data{Attention: d.Attention}}
		if both {
			s.train.Attention = nil
			for _, r := range d.Attention {
				if r.PrefillChunk != v {
					s.train.Attention = append(s.train.Attention, r)
				}
			}
		}
		for _, r := range d.Skew {
			switch {
			case counts(r) && key(r) == v:
				s.ask = append(s.ask, skewQuestion(r))
			default:
				s.train.Skew = append(s.train.Skew, r)
			}
		}
		out = append(out, whole(s)...)
	}
	return out
}
