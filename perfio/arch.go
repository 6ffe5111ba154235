package perfio

// Architecture is one architecture file: which layers a decoder block runs, in
// which order, and which of the engine's modules each of them is.
type Architecture struct {
	ModelType string
	Sequence  Sequence
	// Catalog in the order of the file.
	Catalog []CatalogEntry
}

// Sequence lists layer names in the order in which a step runs them.
type Sequence struct {
	Prologue []string
	PreAttn  []string
	PostAttn []string
	MLPDense []string
	MLPMoE   []string
	Head     []string
}

// CatalogEntry is one layer: where its rows stand and which modules it is.
type CatalogEntry struct {
	Layer    string
	Category string   // dense, per_sequence, attention or moe
	VLLM     []string // class names, any of which matches
	Within   string   // class name of an ancestor, "" for any
	TPStable bool     // measured at tp1, copied to the other degrees
}
