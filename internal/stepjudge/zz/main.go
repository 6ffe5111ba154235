package main

import (
	"fmt"
	"os"

	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/traceloader"
)

func main() {
	bundle, from, mode, file, rules := os.Args[1], os.Args[2], os.Args[3], os.Args[4], traceloader.Accurate
	t, err := traceloader.Open(bundle, traceloader.Options{Rules: rules})
	if err != nil {
		panic(err)
	}
	o := stepjudge.Options{Steps: traceloader.StepOptions{Mode: traceloader.StepMode(mode)}}
	if from != "-" {
		if o.Steps.From, err = traceloader.Open(from, traceloader.Options{Rules: rules}); err != nil {
			panic(err)
		}
	}
	s, err := t.Steps(1, o.Steps)
	if err != nil {
		panic(err)
	}
	s.Dump()
	steps, err := stepjudge.ReadSteps(file)
	if err != nil {
		panic(err)
	}
	f, err := stepjudge.CompareSteps(t, o, steps)
	if err != nil {
		panic(err)
	}
	for _, x := range f {
		fmt.Printf("%-14s n %5d  %5.2f/%5.2f/%6.2f bias %+5.2f total %+5.2f  measured %7.0f predicted %7.0f  repeat %5.2f/%5.2f within1 %.2f launch %.2f host %.2f kernels-bias %+.1f\n", x.Kind, x.N, x.P50, x.P90, x.P99, x.Bias, x.Total, x.MeasuredUS, x.PredictedUS, x.RepeatP50, x.RepeatP90, x.WithinOne, x.LaunchBound, x.HostBound, x.KernelsBiasPc)
	}
}
