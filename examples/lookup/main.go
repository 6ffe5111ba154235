// Lookup prints how long a batch takes on the hardware of a measured bundle:
// a prefill of 512 tokens beside 8 decodes.
//
//	go run ./examples/lookup [BUNDLE]
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func main() {
	dir := "examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	table, err := traceloader.Open(dir, traceloader.Options{})
	if err != nil {
		log.Fatal(err)
	}
	walk, err := table.Walk(1) // tensor-parallel degree
	if err != nil {
		log.Fatal(err)
	}
	batch := []perfio.Request{{NewTokens: 512}}
	for range 8 {
		batch = append(batch, perfio.Request{NewTokens: 1, KVHistory: 1000})
	}
	var step traceloader.Step
	if !walk.Step(traceloader.NewBatch(batch), &step) {
		log.Fatal("no answer for this batch")
	}
	for _, layer := range step.Block {
		fmt.Printf("%-14s %9d ns\n", layer.Layer, layer.LatencyNS)
	}
	if total, ok := step.TotalNS(); ok {
		fmt.Printf("%-14s %9d ns\n", "whole step", total)
	}
}
