package perfio

// ModelConfig is a Hugging Face config.json: the fields that matter here, and
// the whole document, which is what an engine is booted with.
type ModelConfig struct {
	ID                    string // the model's name, for folders and messages
	ModelType             string
	Architectures         []string
	HiddenSize            int
	IntermediateSize      int
	MoEIntermediateSize   int
	NumHiddenLayers       int
	NumAttentionHeads     int
	NumKeyValueHeads      int
	HeadDim               int
	VocabSize             int
	MaxPositionEmbeddings int
	NumExperts            int
	NumExpertsPerToken    int
	TorchDType            string
	TieWordEmbeddings     bool
	// Document is the whole file (the nested text_config, where that is what
	// the fields were read from, stays nested).
	Document map[string]any
}
