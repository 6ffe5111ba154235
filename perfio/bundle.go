package perfio

// Bundle is one measured model on one kind of hardware, as read from
// <root>/<hardware>/<model>/<variant>. Its slices are the caller's to keep.
type Bundle struct {
	Dir  string // where it was read from, for messages
	Meta *Meta
	TPs  []TP // ascending by Degree
}

// TP holds the tables of one tp<N> folder. A nil slice is an absent file.
type TP struct {
	Degree      int
	Dense       []DenseRow
	PerSequence []SequenceRow
	Attention   []AttentionRow
	MoE         []MoERow
	Skew        []SkewRow
	SkewFit     []SkewFitRow
	Batches     []BatchRow
}
