package accuracy

import "github.com/layerprof/layerprof/perfio"

// Data is what rules are built from: one tp folder, or the part of it that a
// test shows.
type Data struct {
	Attention []perfio.AttentionRow
	// Skew in the unit of Attention: Normalize has divided the times.
	Skew []perfio.SkewRow
}

// Query is a batch to be predicted: a prefill chunk of PC tokens over KP of
// history, unless PC is 0, then N decodes. NB of them have KVBig tokens of
// history and the others KVSmall, and KVMean is the floor of their mean; where
// all are alike NB is 0 and KVMean, KVBig and KVSmall agree.
type Query struct {
	PC, KP, N              int
	NB                     int
	KVBig, KVSmall, KVMean int
}

// Uniform is the query whose decodes are all alike.
func Uniform(pc, kp, n, kd int) Query {
	return Query{PC: pc, KP: kp, N: n, KVBig: kd, KVSmall: kd, KVMean: kd}
}

// Rules are what is judged.
type Rules interface {
	Name() string
	// Train builds a predictor from these rows and no others. The slices stay
	// the caller's and do not change.
	Train(Data) (Predictor, error)
}

// Predictor predicts attention.
type Predictor interface {
	// AttentionUS is the time of one call in microseconds; false where the
	// rules have no answer.
	AttentionUS(Query) (float64, bool)
}

// LineRules are rules whose prediction of a point that was left out of its
// line (T3, T4) is defined by the line alone. Others are trained without any
// row of the point's coordinate.
type LineRules interface {
	Rules
	// Line predicts y at q from the points of the line, ascending in x.
	Line(xs []int, ys []float64, q int) float64
}
