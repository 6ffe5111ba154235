package main

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/hub"
	"github.com/layerprof/layerprof/perfio"
)

// loadModel gives the config of --model: a folder or a config.json, a model
// whose config ships with the program, or one of the hub's.
func loadModel(ctx context.Context, name string) (*perfio.ModelConfig, error) {
	_, err := os.Stat(name)
	if err == nil || slices.Contains(perfio.ModelConfigs(), name) || !hub.IsModelID(name) {
		return perfio.LoadModelConfig(name)
	}
	client, err := hub.FromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	text, source, err := client.Config(ctx, name)
	if err != nil {
		return nil, err
	}
	model, err := perfio.ParseModelConfig(bytes.NewReader(text), source)
	if model != nil {
		model.ID = name
	}
	return model, err
}

// loadArchitecture gives the architecture file of --architecture: a path or a
// shipped model type; "" means the model's own type.
func loadArchitecture(name string, model *perfio.ModelConfig) (*perfio.Architecture, error) {
	if name == "" {
		return perfio.LoadArchitecture(model.ModelType)
	}
	_, err := os.Stat(name)
	if slices.Contains(perfio.Architectures(), name) || (err != nil && !strings.ContainsAny(name, "./\\")) {
		return perfio.LoadArchitecture(name)
	}
	return perfio.OpenArchitecture(name)
}

// engineDType is --dtype as an engine has it: auto is the model's own.
func engineDType(flag string, model *perfio.ModelConfig) string {
	if flag != "" && flag != "auto" {
		return flag
	}
	if own := strings.TrimPrefix(model.TorchDType, "torch."); own != "" && own != "auto" {
		return own
	}
	return "bfloat16"
}
