// Steptime fills another simulator's step-time hook, StepTime(batch) ->
// microseconds, from a bundle.
//
//	go run ./examples/steptime
package main

import (
	"fmt"
	"log"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// hook is what a simulator calls for each step: (new tokens, KV history) of each
// request, in; the step's time, out.
type hook func(batch [][2]int) (microseconds float64)

// stepTime makes the hook. Mode KernelsOnly is the sum of the layers; a bundle
// with step.csv also has the engine's own modes (table.StepModes).
func stepTime(table *traceloader.Table, tp int, mode traceloader.StepMode) (hook, error) {
	steps, err := table.Steps(tp, traceloader.StepOptions{Mode: mode, Pauses: true})
	if err != nil {
		return nil, err
	}
	var requests []perfio.Request
	var step traceloader.StepTime
	return func(batch [][2]int) float64 {
		requests = requests[:0]
		for _, q := range batch {
			requests = append(requests, perfio.Request{NewTokens: q[0], KVHistory: q[1]})
		}
		if !steps.Time(traceloader.NewBatch(requests), &step) {
			log.Fatalf("no answer for %v", batch)
		}
		return float64(step.TotalNS) / 1e3
	}, nil
}

func main() {
	table, err := traceloader.Open("examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16", traceloader.Options{})
	if err != nil {
		log.Fatal(err)
	}
	hook, err := stepTime(table, 1, traceloader.KernelsOnly)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(hook([][2]int{{1, 900}, {1, 40}, {512, 0}}), "us")
}
