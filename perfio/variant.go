package perfio

import "strings"

var shortTypes = map[string]string{
	"bfloat16": "bf16",
	"float16":  "fp16", "half": "fp16",
	"float32": "fp32", "float": "fp32",
	"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8e5m2",
	"int8": "int8", "int4": "int4",
}

func shortType(name string) string {
	if s, ok := shortTypes[name]; ok {
		return s
	}
	return name
}

// RealTPSuffix ends the name of a variant whose tensor-parallel degrees were had
// with an engine of that many ranks: nobody takes it for one whose degrees are
// emulated, as LLMServingSim's all are.
const RealTPSuffix = "-realtp"

// VariantName is the name of the folder for a data type of the weights and one
// of the KV cache: bf16, bf16-kvfp8. With no dtype ("" or auto) the model
// config's decides; with neither the weights are "default". cfg may be nil.
func VariantName(dtype, kvDType string, cfg *ModelConfig) string {
	if dtype == "" || dtype == "auto" {
		dtype = ""
		if cfg != nil {
			dtype = cfg.TorchDType
		}
	}
	name := "default"
	if dtype != "" {
		name = shortType(strings.TrimPrefix(dtype, "torch."))
	}
	switch kvDType {
	case "", "auto", "none", "None":
		return name
	}
	return name + "-kv" + shortType(kvDType)
}
