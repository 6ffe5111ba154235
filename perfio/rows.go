package perfio

// DenseRow is one row of dense.csv: the latency of one call of a layer in a
// step that computes Tokens tokens.
type DenseRow struct {
	Layer  string
	Tokens int
	TimeUS float64
}

// SequenceRow is one row of per_sequence.csv: a layer whose work goes by the
// number of sequences that are sampled in the step.
type SequenceRow struct {
	Layer     string
	Sequences int
	TimeUS    float64
}

// AttentionRow is one row of attention.csv: a prefill chunk of PrefillChunk
// tokens over KVPrefill tokens of history, beside NDecode decodes that all
// have KVDecode tokens of history. PrefillChunk 0 is a pure decode batch,
// NDecode 0 a pure prefill.
type AttentionRow struct {
	PrefillChunk int
	KVPrefill    int
	NDecode      int
	KVDecode     int
	TimeUS       float64
}

// MoERow is one row of moe.csv; both keys are one rank's own.
type MoERow struct {
	Tokens           int
	ActivatedExperts int
	TimeUS           float64
}

// SkewRow is one row of skew.csv: three batches of N decodes beside a prefill
// chunk of PC tokens over KP tokens of history. In the first all decodes have
// KVMean tokens of history, in the second KVBig, in the third NB of them have
// KVBig and the others KVS. The times are as the file has them: older files
// hold the sum of the timed runs, ours their mean (Meta.SkewStatistic).
type SkewRow struct {
	Regime  string // "pure" (PC = 0) or "mixed"
	N       int
	NB      int
	Ratio   float64
	Skew    float64
	PC      int
	KP      int
	KVS     int
	KVBig   int
	KVMean  int
	TMeanUS float64
	TMaxUS  float64
	TSkewUS float64
	// Alpha is (TSkewUS - TMeanUS)/(TMaxUS - TMeanUS) of the unrounded times;
	// it has no value (HasAlpha false, an empty field) where TMaxUS <= TMeanUS.
	Alpha    float64
	HasAlpha bool
}

// CollectiveRow is one row of collectives.csv: what Ranks ranks exchange at the
// end of a layer. The layer's own row has none of it: a step of an engine of
// several ranks takes its layers and Calls collectives for each of their calls.
type CollectiveRow struct {
	Layer      string
	Collective string // all_reduce, all_gather, ...
	Tokens     int    // sequences where the layer is a per_sequence one
	Ranks      int
	Bytes      int // of the tensor that each rank gives
	Calls      int // in one call of the layer
	// TimeUS is the transfer: how long the rank that comes last, and waits for
	// nobody, is in the collective. WaitUS is how much longer the first one is.
	TimeUS float64
	WaitUS float64
}

// SkewFitRow is one bucket of skew_fit.csv.
type SkewFitRow struct {
	PC            int
	NLabel        string
	SkewRateLabel string
	KVBigLabel    string
	KPLabel       string
	Alpha         float64
	NSamples      int
	RawKey        string // optional column: overrides the key made of the labels
}
