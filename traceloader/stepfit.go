package traceloader

import (
	"fmt"
	"math"

	"github.com/layerprof/layerprof/internal/stepmodel"
	"github.com/layerprof/layerprof/perfio"
)

func stepRows(file *tpTable, mode StepMode) (rows []perfio.StepRow) {
	for _, r := range file.steps {
		if StepMode(r.Mode) == mode {
			rows = append(rows, r)
		}
	}
	return rows
}

// findSteps finds the rows of a mode at a tp, or what stands in for them, which is
// not its own: those of the synchronous mode; at any degree, those of another,
// since a host does the same for a rank of each.
func (t *Table) findSteps(tp int, mode StepMode, anyDegree bool) (file *tpTable, rows []perfio.StepRow, own bool) {
	for _, m := range []StepMode{mode, mode.sync()} {
		degrees := []int{tp}
		if anyDegree {
			degrees = append(degrees, t.TPs()...)
		}
		for _, degree := range degrees {
			if file = t.tp(degree); file == nil {
				continue
			}
			if rows = stepRows(file, m); len(rows) > 0 {
				return file, rows, m == mode && degree == tp
			}
		}
	}
	return nil, nil, false
}

// fitSteps fits the terms of one mode, depth by depth. An asynchronous mode may
// be given the rows of its synchronous one.
func fitSteps(walk Walk, mode StepMode, rows []perfio.StepRow) ([]stepmodel.Terms, error) {
	byDepth := make(map[int][]stepmodel.Row)
	var depths []int
	var step Step
	for i := range rows {
		r := &rows[i]
		b := stepBatch(r)
		if !walk.Step(b, &step) {
			continue
		}
		if len(byDepth[r.Layers]) == 0 {
			depths = append(depths, r.Layers)
		}
		byDepth[r.Layers] = append(byDepth[r.Layers], stepModelRow(r, &step))
	}
	if len(depths) == 0 {
		return nil, fmt.Errorf("traceloader: steps: mode %s: none of the %d rows of step.csv can be looked up in the tables", mode, len(rows))
	}
	var all []stepmodel.Terms
	for _, d := range depths {
		fitted := byDepth[d]
		switch {
		case !mode.Async():
			all = append(all, stepmodel.FitSync(fitted))
		case StepMode(rows[0].Mode) != mode:
			all = append(all, stepmodel.FitSync(fitted).Ahead(fitted))
		default:
			t := stepmodel.FitAsync(fitted)
			if !t.Parts {
				return nil, fmt.Errorf("traceloader: steps: mode %s: step.csv lacks the host's and the device's parts, without which asynchronous steps cannot be told apart", mode)
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// stepBatch is a row's batch as lookups see it. Several prefills are taken as
// equal.
func stepBatch(r *perfio.StepRow) Batch {
	b := Batch{
		PrefillChunk: r.PrefillChunk, KVPrefill: r.KVPrefill, NDecode: r.NDecode,
		KVDecodeMean: int(math.Round(r.KVDecodeMean)), KVDecodeMax: r.KVDecodeMax, KVDecodeMin: r.KVDecodeMin,
		Tokens: max(r.PaddedTokens, r.PrefillChunk+r.NDecode), Sequences: r.NDecode + r.NPrefill,
	}
	if r.NPrefill < 2 {
		return b
	}
	for i := range r.NDecode {
		// As many at the ends as keep the mean.
		kv := r.KVDecodeMin
		if i%2 == 0 {
			kv = min(r.KVDecodeMax, max(r.KVDecodeMin, 2*b.KVDecodeMean-r.KVDecodeMin))
		}
		b.Requests = append(b.Requests, perfio.Request{NewTokens: 1, KVHistory: kv})
	}
	for i := range r.NPrefill {
		b.Requests = append(b.Requests, perfio.Request{
			NewTokens: r.PrefillChunk*(i+1)/r.NPrefill - r.PrefillChunk*i/r.NPrefill, KVHistory: r.KVPrefill / r.NPrefill,
		})
	}
	return b
}

func stepModelRow(r *perfio.StepRow, step *Step) stepmodel.Row {
	known := func(us float64) float64 {
		if math.IsNaN(us) {
			return 0
		}
		return us
	}
	m := stepmodel.Row{
		Class: r.Graph, Requests: r.NDecode + r.NPrefill, Admitted: r.Admitted, Layers: r.Layers,
		StepUS: known(r.StepUS), BeforeUS: known(r.ScheduleUS + r.DispatchUS + r.PrepareUS), LaunchUS: known(r.LaunchUS),
		SubmitUS: known(r.AfterUS + r.SampleUS), FinishUS: known(r.UpdateUS + r.ReturnUS + r.BetweenUS),
		WaitUS: known(r.DeviceWaitUS), ForwardUS: known(r.DeviceForwardUS), TailUS: known(r.DeviceAfterUS), DeviceUS: known(r.DeviceStepUS),
		KernelsUS: float64(step.PrologueNS+int64(r.Layers)*step.BlockNS) / 1e3, HeadUS: float64(step.HeadNS) / 1e3,
	}
	if m.ForwardUS == 0 && math.IsNaN(r.DeviceWaitUS) {
		// A device without a clock of its own works while the host waits: launching is running.
		m.ForwardUS, m.LaunchUS = m.LaunchUS, 0
	}
	if !StepMode(r.Mode).Async() {
		m.DeviceUS = 0
	}
	return m
}

// largestGraph is the most tokens that a graph was captured for, or seen with.
func largestGraph(rows []perfio.StepRow, sizes []int) int {
	if len(sizes) > 0 {
		return sizes[len(sizes)-1]
	}
	largest := 0
	for _, r := range rows {
		if r.Graph == perfio.GraphFull || r.Graph == perfio.GraphPiecewise {
			largest = max(largest, r.PaddedTokens)
		}
	}
	return largest
}
