package perfio

// Bundle is one measured model on one kind of hardware, as read from
// <root>/<hardware>/<model>/<variant>. Its slices are the caller's to keep.
type Bundle struct {
	Dir  string // where it was read from, for messages
	Meta *Meta
	TPs  []TP // ascending by Degree
	// Calibration is what CalibrationFile holds, nil where there is none. It is
	// package traceloader's, and is not written with the bundle.
	Calibration []byte
	// Warnings are what a reader tolerates but its user should know: a file
	// that meta.yaml names and that is missing, a key that stands twice and was
	// taken once (Lenient).
	Warnings []*ParseError
}

// TP holds the tables of one tp<N> folder, rows in the order of the file. A nil
// slice is an absent file or one that was not asked for (Only, Without); a file
// without rows is an empty slice.
type TP struct {
	Degree      int
	Dense       []DenseRow
	PerSequence []SequenceRow
	Attention   []AttentionRow
	MoE         []MoERow
	Skew        []SkewRow
	SkewFit     []SkewFitRow
	Batches     []BatchRow
	Steps       []StepRow
	Collectives []CollectiveRow
}

// TP is the folder of a degree, nil where there is none.
func (b *Bundle) TP(degree int) *TP {
	for i := range b.TPs {
		if b.TPs[i].Degree == degree {
			return &b.TPs[i]
		}
	}
	return nil
}
