package accuracy

import (
	"fmt"
	"math"

	"github.com/layerprof/layerprof/perfio"
)

// CheckBlind finds out whether rules that were made with the whole folder in
// reach look at rows that a test holds out. It makes them twice, from the
// folder and from a copy in which the times of all rows that a test does not
// show are wrong; the predictions of both must be the same to the last bit.
// The error names the first test that they fail.
//
// Rules may well be made from a folder: a stored calibration, say, or a file
// that they read again. That is what this is for.
func CheckBlind(d Data, rules func(Data) Rules, o Options) error {
	for _, test := range o.named() {
		for _, s := range splits(d, test) {
			open, err := rules(d).Train(s.train)
			if err != nil {
				return err
			}
			spoilt, err := rules(spoil(d, s.train)).Train(s.train)
			if err != nil {
				return err
			}
			for _, q := range s.ask {
				a, okA := open.AttentionUS(q.query)
				b, okB := spoilt.AttentionUS(q.query)
				if okA != okB || math.Float64bits(a) != math.Float64bits(b) {
					return fmt.Errorf("%s: %+v: the prediction changes from %g to %g us with rows that are held out", test, q.query, a, b)
				}
			}
		}
	}
	return nil
}

// spoil is d with wrong times in all rows that are not in shown.
func spoil(d, shown Data) Data {
	seen := make(map[perfio.AttentionRow]bool, len(shown.Attention))
	for _, r := range shown.Attention {
		seen[r] = true
	}
	seenSkew := make(map[perfio.SkewRow]bool, len(shown.Skew))
	for _, r := range shown.Skew {
		seenSkew[r] = true
	}
	var out Data
	for i, r := range d.Attention {
		if !seen[r] {
			r.TimeUS *= wrong(i)
		}
		out.Attention = append(out.Attention, r)
	}
	for i, r := range d.Skew {
		if !seenSkew[r] {
			r.TMeanUS *= wrong(i)
			r.TMaxUS *= wrong(i + 1)
			r.TSkewUS *= wrong(i + 2)
		}
		out.Skew = append(out.Skew, r)
	}
	return out
}

func wrong(i int) float64 { return []float64{1.7, 0.6, 2.3}[i%3] }
