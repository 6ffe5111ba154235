// Bundled prints how long a step of Qwen3-32B takes on an H200, from a bundle
// that comes with the module.
//
//	go run ./examples/bundled
package main

import (
	"fmt"
	"log"

	"github.com/layerprof/layerprof/perf/bundles"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func main() {
	bundle, err := bundles.Open("H200", "Qwen/Qwen3-32B", "bf16")
	if err != nil {
		log.Fatal(err)
	}
	table, err := traceloader.New(bundle, traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		log.Fatal(err)
	}
	attention, _ := table.Attention(1) // tensor-parallel degree
	estimate, ok := attention.EstimateBatch([]perfio.Request{{NewTokens: 1, KVHistory: 900}, {NewTokens: 512}})
	fmt.Println(estimate.LatencyNS, "ns, one sigma", estimate.Sigma, ok)
}
