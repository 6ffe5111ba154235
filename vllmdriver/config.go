package vllmdriver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"

	"github.com/layerprof/layerprof/perfio"
)

// depthKey is the config's number of decoder blocks.
const depthKey = "num_hidden_layers"

// engineConfig is the config.json to boot: one rank's share of the model, cut to
// the first blocks decoder blocks, lists by block included.
func engineConfig(model *perfio.ModelConfig, tp, blocks int) (map[string]any, error) {
	divided, err := model.Divide(tp)
	if err != nil {
		return nil, err
	}
	doc := maps.Clone(divided.Document)
	cutDepth(doc, model.NumHiddenLayers, blocks)
	if nested, ok := doc["text_config"].(map[string]any); ok {
		nested = maps.Clone(nested)
		cutDepth(nested, model.NumHiddenLayers, blocks)
		doc["text_config"] = nested
	}
	return doc, nil
}

func cutDepth(doc map[string]any, depth, blocks int) {
	if _, ok := doc[depthKey]; !ok {
		return
	}
	for key, value := range doc {
		if list, ok := value.([]any); ok && len(list) == depth && depth > blocks && byBlock[key] {
			doc[key] = list[:blocks]
		}
	}
	// Windowed attention may begin at a depth that is cut away.
	if n, ok := doc["max_window_layers"].(int); ok && n > blocks {
		doc["max_window_layers"] = blocks
	}
	doc[depthKey] = blocks
}

// byBlock are the config's lists with one entry a block. Other lists may be as
// long as a model is deep by chance.
var byBlock = map[string]bool{
	"layer_types": true, "layers_block_type": true, "mlp_layer_types": true, "no_rope_layers": true,
	"attention_chunk_sizes": true, "sliding_window_pattern": true,
}

// configHash identifies a config whatever the order of its keys.
func configHash(doc map[string]any) (string, error) {
	text, err := json.Marshal(doc) // sorts keys
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
