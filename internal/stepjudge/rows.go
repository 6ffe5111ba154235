package stepjudge

import (
	"fmt"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Rows turns steps of a run, of which only batches and starts are known, into
// rows of step.csv: whole steps without parts. It is for engines whose steps
// cannot be measured apart; what the rows are made from can no longer judge.
// captureSizes are the sizes in tokens, ascending, that the engine has graphs
// for, none without graphs.
func Rows(mode string, layers int, captureSizes []int, steps []Step) ([]perfio.StepRow, error) {
	if len(captureSizes) == 0 && (mode == perfio.ModeGraphSync || mode == perfio.ModeGraphAsync) {
		return nil, fmt.Errorf("mode %s: the sizes of its graphs are needed to tell launches apart", mode)
	}
	var rows []perfio.StepRow
	for i := range steps[:max(0, len(steps)-1)] {
		if i >= defaultSkip && continues(&steps[i+1]) {
			r := Row(mode, layers, captureSizes, steps[i].Requests)
			r.StepUS = perfio.RoundDecimals(steps[i+1].StartUS-steps[i].StartUS, 1)
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// Row is a step's batch with no time.
func Row(mode string, layers int, captureSizes []int, requests []perfio.Request) perfio.StepRow {
	nan := math.NaN()
	r := perfio.StepRow{
		Mode: mode, Layers: layers, Steps: 1, Graph: perfio.GraphNone,
		ScheduleUS: nan, DispatchUS: nan, PrepareUS: nan, LaunchUS: nan, AfterUS: nan, SampleUS: nan, WaitUS: nan, UpdateUS: nan,
		ReturnUS: nan, BetweenUS: nan, StepUS: nan, DeviceWaitUS: nan, DeviceForwardUS: nan, DeviceAfterUS: nan, DeviceStepUS: nan,
	}
	b := traceloader.NewBatch(requests)
	r.PaddedTokens, r.NDecode, r.NPrefill = b.Tokens, b.NDecode, b.Sequences-b.NDecode
	r.KVDecodeMean, r.KVDecodeMax, r.KVDecodeMin = float64(b.KVDecodeMean), b.KVDecodeMax, b.KVDecodeMin
	r.PrefillChunk, r.KVPrefill, r.Admitted = b.PrefillChunk, b.KVPrefill, b.Admitted()
	if at, _ := slices.BinarySearch(captureSizes, b.Tokens); at < len(captureSizes) {
		r.PaddedTokens = captureSizes[at]
		if r.Graph = perfio.GraphPiecewise; b.PrefillChunk == 0 {
			r.Graph = perfio.GraphFull
		}
	}
	return r
}

// FirstShare splits a run at a share of its time.
func FirstShare(steps []Step, share float64) (first, rest []Step) {
	cut := steps[0].StartUS + share*(steps[len(steps)-1].StartUS-steps[0].StartUS)
	for i := range steps {
		if steps[i].StartUS >= cut {
			return steps[:i], steps[i:]
		}
	}
	return steps, nil
}
