package perfio

import "math"

// Limits of what is read. Anything beyond them is a positioned error and costs
// no memory.
const (
	// MaxKey is the largest key of a row (tokens, sequences, KV lengths): far
	// above any context or batch, and small enough to size tables by.
	MaxKey = 1 << 26
	// MaxTimeUS is the largest time in microseconds (eleven days), so that
	// nanoseconds fit into 64 bits with room for extrapolation.
	MaxTimeUS = 1e12
	// MaxTP is the largest tensor-parallel degree.
	MaxTP = 1 << 16
	// MaxTableBytes is the largest CSV or JSON lines file.
	MaxTableBytes = 64 << 20
	// MaxRows is the most rows of a table that ReadBundle keeps, fifty times
	// those of the largest one known.
	MaxRows = 1 << 20
	// MaxLineBytes is the longest line of a CSV file.
	MaxLineBytes = 64 << 10
	// MaxBatchLineBytes is the longest line of a JSON lines file.
	MaxBatchLineBytes = 512 << 10
	// MaxDocumentBytes is the largest YAML or JSON document.
	MaxDocumentBytes = 2 << 20
	// MaxTextBytes is the longest text field (a layer's name, a label).
	MaxTextBytes = 256
)

// Names of a bundle's files.
const (
	MetaFile        = "meta.yaml"
	DenseFile       = "dense.csv"
	PerSequenceFile = "per_sequence.csv"
	AttentionFile   = "attention.csv"
	MoEFile         = "moe.csv"
	SkewFile        = "skew.csv"
	SkewFitFile     = "skew_fit.csv"
	BatchesFile     = "batches.jsonl"
	StepFile        = "step.csv"
	CollectivesFile = "collectives.csv"
	// CalibrationFile stands beside meta.yaml. It can always be made again.
	CalibrationFile = "calibration.json"
)

// Type is what a column holds.
type Type string

// The types of columns.
const (
	Text    Type = "text"    // UTF-8 without control characters
	Integer Type = "integer" // decimal digits
	Number  Type = "number"  // decimal, finite
)

// Column describes one column of a CSV file.
type Column struct {
	Name     string
	Type     Type
	Unit     string
	Min, Max float64  // inclusive, but Positive excludes 0; unused for Text
	Positive bool     // above 0
	Key      bool     // part of the row's identity
	Optional bool     // the column may be absent
	Empty    bool     // the field may be empty
	Values   []string // of a Text, all that it may be; nil: any
	Format   Format
	Doc      string
}

// Format is how a number is written.
type Format string

// The formats of numbers. Text and integers have none.
const (
	SixDigits     Format = "%.6g"
	FourDecimals  Format = "4 decimals, shortest" // rounded, then the shortest form, 4.0 where whole
	ThreeDecimals Format = "3 decimals, shortest"
	OneDecimal    Format = "1 decimal, shortest"
	Shortest      Format = "shortest"
)

// Table describes one CSV file of a tp<N> folder.
type Table struct {
	File    string
	Columns []Column
	Order   string // in which rows are written
	CRLF    bool   // line ends as written; both are read
	Unique  bool   // two rows of equal keys are refused
	// Expected marks a file that every tp folder should have: its absence is a
	// warning. The others are optional.
	Expected bool
	Doc      string
}

func key(name, unit, doc string) Column {
	return Column{Name: name, Type: Integer, Unit: unit, Max: MaxKey, Key: true, Doc: doc}
}

func timeUS(name string, format Format, doc string) Column {
	return Column{Name: name, Type: Number, Unit: "us", Positive: true, Max: MaxTimeUS, Format: format, Doc: doc}
}

func label(name, doc string) Column {
	return Column{Name: name, Type: Text, Key: true, Doc: doc}
}

func real(name, unit string, format Format, doc string) Column {
	return Column{Name: name, Type: Number, Unit: unit, Min: -math.MaxFloat64, Max: math.MaxFloat64, Format: format, Doc: doc}
}

// layer is the first column of dense.csv and per_sequence.csv.
func layer() Column {
	return label("layer", "layer's name in the architecture's catalog")
}

// tables is the schema: the order of columns is the order in which they are
// written and the index by which the decoders below name them.
var tables = []*Table{denseSchema, perSequenceSchema, attentionSchema, moeSchema, skewSchema, skewFitSchema, stepSchema, collectivesSchema}

var denseSchema = &Table{
	File: DenseFile, Expected: true, Order: "layer, tokens", CRLF: true, Unique: true,
	Doc: "layers whose work goes by the step's tokens",
	Columns: []Column{
		layer(),
		key("tokens", "tokens", "tokens that the step computes"),
		timeUS("time_us", SixDigits, "latency of one call"),
	},
}

var perSequenceSchema = &Table{
	File: PerSequenceFile, Expected: true, Order: "layer, sequences", CRLF: true, Unique: true,
	Doc: "layers whose work goes by the sequences that are sampled",
	Columns: []Column{
		layer(),
		key("sequences", "sequences", "sequences in the step"),
		timeUS("time_us", SixDigits, "latency of one call"),
	},
}

var attentionSchema = &Table{
	File: AttentionFile, Expected: true, Order: "prefill_chunk, kv_prefill, n_decode, kv_decode", CRLF: true, Unique: true,
	Doc: "attention of one prefill chunk beside decodes of equal length",
	Columns: []Column{
		key("prefill_chunk", "tokens", "tokens of the prefill chunk; 0: pure decode"),
		key("kv_prefill", "tokens", "KV history of the prefill chunk"),
		key("n_decode", "requests", "decode requests; 0: pure prefill"),
		key("kv_decode", "tokens", "KV history of each decode"),
		timeUS("time_us", SixDigits, "latency of one call"),
	},
}

var moeSchema = &Table{
	File: MoEFile, Order: "tokens, activated_experts", CRLF: true, Unique: true,
	Doc: "the whole sparse block, gate included, of one rank (tp1 only)",
	Columns: []Column{
		key("tokens", "tokens", "tokens of the rank"),
		key("activated_experts", "experts", "distinct experts that the rank's tokens activate"),
		timeUS("time_us", SixDigits, "latency of one call"),
	},
}

var skewSchema = &Table{
	File: SkewFile, Order: "the plan (as given)",
	Doc: "attention of decodes of unequal length, against their mean and their largest",
	Columns: []Column{
		{Name: "regime", Type: Text, Doc: "pure (pc is 0) or mixed"},
		key("n", "requests", "decode requests"),
		key("nb", "requests", "of these, the long ones"),
		{Name: "ratio", Type: Number, Unit: "1", Max: math.MaxFloat64, Format: FourDecimals, Doc: "nb/n"},
		{Name: "skew", Type: Number, Unit: "1", Max: math.MaxFloat64, Key: true, Format: Shortest, Doc: "kv_big/kvs as planned"},
		key("pc", "tokens", "prefill chunk; 0: none"),
		key("kp", "tokens", "KV history of the prefill chunk"),
		key("kvs", "tokens", "KV history of the short decodes"),
		{Name: "kv_big", Type: Integer, Unit: "tokens", Max: MaxKey, Doc: "KV history of the long decodes"},
		{Name: "kv_mean", Type: Integer, Unit: "tokens", Max: MaxKey, Doc: "floor of the mean KV history"},
		timeUS("t_mean_us", ThreeDecimals, "all decodes at kv_mean"),
		timeUS("t_max_us", ThreeDecimals, "all decodes at kv_big"),
		timeUS("t_skew_us", ThreeDecimals, "nb decodes at kv_big, the others at kvs"),
		{Name: "alpha", Type: Number, Unit: "1", Min: -math.MaxFloat64, Max: math.MaxFloat64, Empty: true, Format: FourDecimals,
			Doc: "(t_skew - t_mean)/(t_max - t_mean) of the unrounded times; empty where t_max <= t_mean"},
	},
}

var skewFitSchema = &Table{
	File: SkewFitFile, Order: "pc, then the labels as text", CRLF: true, Unique: true,
	Doc: "alpha by bucket, fitted to skew.csv",
	Columns: []Column{
		key("pc", "tokens", "prefill chunk"),
		label("n_label", "bucket of the number of decodes"),
		label("skew_rate_label", "bucket of (mean - min)/(max - min)"),
		label("kv_big_label", "bucket of the longest KV history"),
		label("kp_label", "bucket of the prefill chunk's KV history"),
		real("alpha", "1", FourDecimals, "weight of t_max against t_mean"),
		{Name: "n_samples", Type: Integer, Unit: "rows", Max: math.MaxInt32, Doc: "rows of skew.csv behind alpha"},
		{Name: "raw_key", Type: Text, Key: true, Optional: true, Empty: true, Doc: "takes the place of the key made of pc and the labels"},
	},
}

// maxBytes is more than any tensor that ranks exchange in a step.
const maxBytes = 1 << 32

var collectivesSchema = &Table{
	File: CollectivesFile, Order: "layer, collective, tokens, bytes", Unique: true,
	Doc: "what the ranks of a tensor-parallel engine exchange at the end of a layer, beside that layer's own time (tp_mode real only)",
	Columns: []Column{
		label("layer", "layer's name in the architecture's catalog"),
		label("collective", "all_reduce, all_gather, ..."),
		key("tokens", "tokens", "tokens that the step computes; of a per_sequence layer: its sequences"),
		{Name: "ranks", Type: Integer, Unit: "ranks", Min: 2, Max: MaxTP, Doc: "that take part"},
		{Name: "bytes", Type: Integer, Unit: "bytes", Max: maxBytes, Key: true, Doc: "of the tensor that each rank gives"},
		{Name: "calls", Type: Integer, Unit: "calls", Min: 1, Max: MaxKey, Doc: "in one call of the layer"},
		timeUS("time_us", SixDigits, "of one collective, on the rank that comes last and waits for nobody: the transfer"),
		{Name: "wait_us", Type: Number, Unit: "us", Max: MaxTimeUS, Format: SixDigits, Doc: "how much longer the rank that comes first is in it"},
	},
}

// Schema lists the CSV files of a tp<N> folder. The result is the caller's.
func Schema() []Table {
	out := make([]Table, len(tables))
	for i, t := range tables {
		out[i] = *t
		out[i].Columns = append([]Column(nil), t.Columns...)
	}
	return out
}
