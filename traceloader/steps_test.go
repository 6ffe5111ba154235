package traceloader_test

import (
	"math"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

const stepBundle = "../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16"

// made are the terms that the rows of these tests are made by.
type made struct {
	before, after    float64 // us, of the host
	perRequest       float64 // of each
	launchPerLayer   float64
	ratio, offset    float64
	submit, finish   float64
	deviceGap, extra float64
}

var terms = made{before: 900, after: 600, perRequest: 4, launchPerLayer: 100, ratio: 0.97, offset: 120, submit: 300, finish: 200, deviceGap: 70, extra: 40}

// stepRows makes rows of one mode by the terms.
func stepRows(t *testing.T, table *traceloader.Table, mode string, layers int) (rows []perfio.StepRow) {
	t.Helper()
	walk, err := table.Walk(1)
	if err != nil {
		t.Fatal(err)
	}
	var step traceloader.Step
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		for _, chunk := range []int{0, 32, 256, 1024} {
			r := perfio.StepRow{Mode: mode, Layers: layers, NDecode: n, KVDecodeMean: 512, KVDecodeMax: 512, KVDecodeMin: 512, PrefillChunk: chunk, Steps: 1}
			if chunk > 0 {
				r.NPrefill, r.Admitted = 1, 1
			}
			r.PaddedTokens, r.Graph = n+chunk, perfio.GraphNone
			b := traceloader.Batch{NDecode: n, KVDecodeMean: 512, KVDecodeMax: 512, KVDecodeMin: 512, PrefillChunk: chunk, Tokens: n + chunk, Sequences: n + r.NPrefill}
			if !walk.Step(b, &step) {
				t.Fatal("no answer")
			}
			kernels, head := float64(step.PrologueNS+int64(layers)*step.BlockNS)/1e3, float64(step.HeadNS)/1e3
			requests := float64(n + r.NPrefill)
			r.ScheduleUS, r.DispatchUS, r.PrepareUS = terms.before/2, 0, terms.before/2+terms.perRequest*requests
			r.LaunchUS = terms.launchPerLayer * float64(layers)
			r.DeviceWaitUS = terms.before/2 + terms.perRequest*requests
			r.DeviceForwardUS = max(r.LaunchUS, terms.offset+terms.ratio*kernels)
			r.DeviceAfterUS = head + terms.extra
			r.AfterUS, r.SampleUS, r.WaitUS = 100, 100, 0
			r.UpdateUS, r.ReturnUS, r.BetweenUS = terms.after/3, terms.after/3, terms.after/3
			r.StepUS = terms.before + terms.perRequest*requests + r.DeviceForwardUS + head + terms.after
			r.DeviceStepUS = math.NaN()
			rows = append(rows, r)
		}
	}
	return rows
}

func tableWithSteps(t *testing.T, o traceloader.Options, modes map[string][]int) *traceloader.Table {
	t.Helper()
	bundle, err := perfio.OpenBundle(stepBundle)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := traceloader.New(bundle, o)
	if err != nil {
		t.Fatal(err)
	}
	for mode, depths := range modes {
		for _, layers := range depths {
			bundle.TPs[0].Steps = append(bundle.TPs[0].Steps, stepRows(t, plain, mode, layers)...)
		}
	}
	table, err := traceloader.New(bundle, o)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func decodes(n, kv int) (out []perfio.Request) {
	for range n {
		out = append(out, perfio.Request{NewTokens: 1, KVHistory: kv})
	}
	return out
}

func TestStepOfKernels(t *testing.T) {
	table := tableWithSteps(t, traceloader.Options{}, nil)
	steps, err := table.Steps(1, traceloader.StepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	walk, _ := table.Walk(1)
	var step traceloader.Step
	var got traceloader.StepTime
	b := traceloader.NewBatch(append(decodes(7, 300), perfio.Request{NewTokens: 100}))
	if !walk.Step(b, &step) || !steps.Time(b, &got) {
		t.Fatal("no answer")
	}
	want, _ := step.TotalNS()
	if got.TotalNS != want || !got.KernelsOnly || got.KernelsNS != want {
		t.Errorf("got %d (kernels only: %v), want %d and true", got.TotalNS, got.KernelsOnly, want)
	}
	// What was asked for stands as its layers do, which parity knows no errors of.
	_, status := walk.Explain(b, nil)
	if e, ok := steps.Estimate(b); !ok || e.Status != status || e.LatencyNS != want || e.Sigma != 0 || !steps.KernelsOnly() {
		t.Errorf("estimate %+v, want %s and %d", e, status, want)
	}
	if _, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.GraphSync}); err == nil {
		t.Error("a mode that was not measured gave no error")
	}
	lenient := tableWithSteps(t, traceloader.Options{Lenient: true}, nil)
	last := 0.0
	for _, mode := range []traceloader.StepMode{traceloader.GraphAsync, traceloader.GraphSync, traceloader.EagerSync} {
		if steps, err = lenient.Steps(1, traceloader.StepOptions{Mode: mode}); err != nil || !steps.Time(b, &got) || !got.KernelsOnly || !steps.KernelsOnly() {
			t.Fatalf("lenient: %v, kernels only: %v", err, got.KernelsOnly)
		}
		e, _ := steps.Estimate(b)
		if e.Status != traceloader.Fallback || e.LatencyNS != want || !(e.Sigma > last) || e.Sigma < got.Sigma {
			t.Errorf("%s: %+v: want a fallback of %d with an error above %g", mode, e, want, last)
		}
		last = e.Sigma
		// The clock takes them one after the other.
		clock := traceloader.NewStepClock(steps)
		if span, ok := clock.Submit(b, 0); !ok || span.ReadyNS != want || span.Done != 1 || clock.Drain().Done != 0 {
			t.Errorf("%s: the clock says %+v, want %d", mode, span, want)
		}
	}
}

// Sums of layers have the layers' errors; steps at least their part of them.
func TestStepSigma(t *testing.T) {
	table := tableWithSteps(t, traceloader.Options{Rules: traceloader.Accurate}, map[string][]int{"eager_sync": {32}})
	for _, mode := range []traceloader.StepMode{traceloader.KernelsOnly, traceloader.EagerSync} {
		steps, err := table.Steps(1, traceloader.StepOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		near, ok := steps.Estimate(traceloader.NewBatch(decodes(16, 512)))
		far, okFar := steps.Estimate(traceloader.NewBatch(append(decodes(16, 512), perfio.Request{NewTokens: 1 << 16})))
		if !ok || !okFar || !(near.Sigma >= 0.001 && near.Sigma < 0.1) || !(far.Sigma > 2*near.Sigma && far.Sigma < 1) {
			t.Errorf("%q: near the rows %+v, far from them %+v", mode, near, far)
		}
	}
}

// What a sum of layers in place of a mode is said to miss: two thirds of the
// decode steps of an H100 are within.
func TestMissingSteps(t *testing.T) {
	bundle, err := perfio.OpenBundle("../perf/H100/meta-llama/Llama-3.1-8B/bf16")
	if err != nil {
		t.Fatal(err)
	}
	rows := bundle.TPs[0].Steps
	bundle.TPs[0].Steps = nil
	table, err := traceloader.New(bundle, traceloader.Options{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []traceloader.StepMode{traceloader.GraphAsync, traceloader.GraphSync, traceloader.EagerSync} {
		steps, err := table.Steps(1, traceloader.StepOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		n, within := 0, 0
		var got traceloader.StepTime
		for _, r := range rows {
			if traceloader.StepMode(r.Mode) != mode || r.NPrefill > 0 {
				continue
			}
			b := traceloader.Batch{
				NDecode: r.NDecode, KVDecodeMean: int(r.KVDecodeMean), KVDecodeMax: r.KVDecodeMax, KVDecodeMin: r.KVDecodeMin, Tokens: r.NDecode, Sequences: r.NDecode,
			}
			if !steps.Time(b, &got) {
				t.Fatal("no answer")
			}
			n++
			if math.Abs(1e3*r.StepUS/float64(got.TotalNS)-1) <= got.Sigma {
				within++
			}
		}
		t.Logf("%s: %d of %d steps within one sigma of their layers", mode, within, n)
		if share := float64(within) / float64(n); !(share > 0.6 && share < 0.76) {
			t.Errorf("%s: %d of %d steps within one sigma of their layers", mode, within, n)
		}
	}
}

// What the terms of made rows say of batches between the rows.
func TestStepTerms(t *testing.T) {
	for _, rules := range []traceloader.Rules{traceloader.Parity, traceloader.Accurate} {
		for name, depths := range map[string][]int{"its own depth": {32}, "two other depths": {8, 16}} {
			t.Run(rules.String()+", "+name, func(t *testing.T) {
				table := tableWithSteps(t, traceloader.Options{Rules: rules}, map[string][]int{"eager_sync": depths})
				steps, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.EagerSync})
				if err != nil {
					t.Fatal(err)
				}
				var got traceloader.StepTime
				for _, batch := range [][]perfio.Request{decodes(24, 700), decodes(64, 4000), append(decodes(5, 90), perfio.Request{NewTokens: 700})} {
					b := traceloader.NewBatch(batch)
					if !steps.Time(b, &got) {
						t.Fatal("no answer")
					}
					kernels := float64(got.KernelsNS-got.Kernels.HeadNS) / 1e3
					launch := terms.launchPerLayer * 32
					device := terms.ratio*kernels + terms.offset
					if len(depths) > 1 {
						device = terms.ratio*kernels + terms.offset // the offset is per forward: both depths have it
					}
					want := terms.before + terms.perRequest*float64(len(batch)) + max(launch, device) + terms.after + float64(got.Kernels.HeadNS)/1e3
					if math.Abs(float64(got.TotalNS)/1e3/want-1) > 0.02 {
						t.Errorf("%d requests: got %.0f us, want %.0f: %+v", len(batch), float64(got.TotalNS)/1e3, want, got)
					}
					if bound := got.Bound == traceloader.LaunchBound; bound != (launch > device) {
						t.Errorf("%d requests: bound by %s; launch %.0f us, device %.0f", len(batch), got.Bound, launch, device)
					}
				}
				e, _ := steps.Estimate(traceloader.NewBatch(decodes(16, 512)))
				if extrapolated := e.Status >= traceloader.Extrapolated; extrapolated != (len(depths) > 1) {
					t.Errorf("status %s at depths %v", e.Status, depths)
				}
			})
		}
	}
}

func TestStepsBorrowed(t *testing.T) {
	from := tableWithSteps(t, traceloader.Options{}, map[string][]int{"eager_sync": {32}})
	table := tableWithSteps(t, traceloader.Options{}, nil)
	steps, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.EagerSync, From: from})
	if err != nil {
		t.Fatal(err)
	}
	own, err := from.Steps(1, traceloader.StepOptions{Mode: traceloader.EagerSync})
	if err != nil {
		t.Fatal(err)
	}
	b := traceloader.NewBatch(decodes(16, 512))
	x, _ := steps.Estimate(b)
	y, _ := own.Estimate(b)
	if x.LatencyNS != y.LatencyNS || x.Status != traceloader.Borrowed {
		t.Errorf("borrowed %+v, own %+v", x, y)
	}
}

// A degree without steps takes those of another one only where it is told to.
func TestStepsOfAnotherDegree(t *testing.T) {
	table, err := traceloader.Open("../perf/H200/meta-llama/Llama-3.1-8B/bf16", traceloader.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Steps(2, traceloader.StepOptions{Mode: traceloader.GraphSync}); err == nil || !strings.Contains(err.Error(), "found no step.csv") {
		t.Errorf("tp2 has no steps: %v", err)
	}
	one, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.GraphSync})
	if err != nil {
		t.Fatal(err)
	}
	two, err := table.Steps(2, traceloader.StepOptions{Mode: traceloader.GraphSync, From: table})
	if err != nil {
		t.Fatal(err)
	}
	b := traceloader.NewBatch(decodes(16, 512))
	var x, y traceloader.StepTime
	if !one.Time(b, &x) || !two.Time(b, &y) {
		t.Fatal("no answer")
	}
	if e, _ := two.Estimate(b); e.Status != traceloader.Borrowed {
		t.Errorf("status %s, want borrowed", e.Status)
	}
	if x.BeforeNS != y.BeforeNS || x.AfterNS != y.AfterNS || y.PaddedTokens != 16 || !(y.KernelsNS < x.KernelsNS) {
		t.Errorf("tp1 %+v, tp2 %+v: want the same host and shorter kernels", x, y)
	}
}

// Refusing beyond the measured range leaves the other answers as they are.
func TestStepsRefuse(t *testing.T) {
	const bundle = "../perf/H100/meta-llama/Llama-3.1-8B/bf16"
	for _, rules := range []traceloader.Rules{traceloader.Parity, traceloader.Accurate} {
		free, err := traceloader.Open(bundle, traceloader.Options{Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		refusing, err := traceloader.Open(bundle, traceloader.Options{Rules: rules, Refuse: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range free.StepModes(1) {
			want, err := free.Steps(1, traceloader.StepOptions{Mode: mode})
			if err != nil {
				t.Fatal(err)
			}
			got, err := refusing.Steps(1, traceloader.StepOptions{Mode: mode})
			if err != nil {
				t.Fatal(err)
			}
			for _, batch := range [][]perfio.Request{decodes(16, 512), append(decodes(2, 470), perfio.Request{NewTokens: 512})} {
				var x, y traceloader.StepTime
				b := traceloader.NewBatch(batch)
				if !want.Time(b, &x) || !got.Time(b, &y) || x.TotalNS != y.TotalNS || x.Sigma != y.Sigma {
					t.Errorf("%s, %s: %d requests: %d ns, refusing %d", rules, mode, len(batch), x.TotalNS, y.TotalNS)
				}
			}
			var x traceloader.StepTime
			if far := traceloader.NewBatch(decodes(2, 1<<20)); !want.Time(far, &x) || got.Time(far, &x) {
				t.Errorf("%s, %s: a history beyond the range was not refused", rules, mode)
			}
		}
	}
}

// With asynchronous scheduling a long step shows in the start of the step after
// the next, and the pace of equal steps is the slower chain's.
func TestStepClockAsync(t *testing.T) {
	table := tableWithSteps(t, traceloader.Options{}, map[string][]int{"eager_async": {32}})
	steps, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.EagerAsync})
	if err != nil {
		t.Fatal(err)
	}
	clock := traceloader.NewStepClock(steps)
	small := traceloader.NewBatch(decodes(64, 4000))
	large := traceloader.NewBatch(append(decodes(64, 4000), perfio.Request{NewTokens: 1984}))
	var smallTime, largeTime traceloader.StepTime
	if !steps.Time(small, &smallTime) || !steps.Time(large, &largeTime) {
		t.Fatal("no answer")
	}
	var now int64
	var took []int64
	done := 0
	for i := range 12 {
		b := small
		if i == 6 {
			b = large
		}
		span, ok := clock.Submit(b, now)
		if !ok {
			t.Fatal("no answer")
		}
		took = append(took, span.ReadyNS-span.StartNS)
		now = span.ReadyNS
		done += span.Done
	}
	if rest := clock.Drain(); rest.Done != 1 || done+rest.Done != 12 || rest.ReadyNS <= now {
		t.Errorf("drained %+v at %d after %d steps, want the last of 12", rest, now, done)
	}
	if again := clock.Drain(); again.Done != 0 {
		t.Errorf("drained twice: %+v", again)
	}
	if took[0] >= took[1] {
		t.Errorf("the first step took the host %d ns, the second %d: nothing is to be waited for at first", took[0], took[1])
	}
	for _, i := range []int{4, 10} {
		if math.Abs(float64(took[i])/float64(smallTime.TotalNS)-1) > 0.02 {
			t.Errorf("step %d took %d ns, want the pace of %d", i, took[i], smallTime.TotalNS)
		}
	}
	if took[7]*10 < 14*took[6] || math.Abs(float64(took[6]+took[7])/float64(smallTime.DeviceNS+largeTime.DeviceNS)-1) > 0.05 {
		t.Errorf("the long step is to show one step later: %d then %d ns, on the device %d and %d", took[6], took[7], smallTime.DeviceNS, largeTime.DeviceNS)
	}
}

func TestStepClockSync(t *testing.T) {
	table := tableWithSteps(t, traceloader.Options{}, map[string][]int{"eager_sync": {32}})
	steps, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.EagerSync})
	if err != nil {
		t.Fatal(err)
	}
	clock := traceloader.NewStepClock(steps)
	var want traceloader.StepTime
	b := traceloader.NewBatch(decodes(8, 512))
	steps.Time(b, &want)
	span, ok := clock.Submit(b, 5000)
	if !ok || span.StartNS != 5000 || span.ReadyNS != 5000+want.TotalNS || span.Done != 1 {
		t.Errorf("got %+v, want a start at 5000, %d ns and its own results", span, want.TotalNS)
	}
	if rest := clock.Drain(); rest.Done != 0 {
		t.Errorf("drained %+v", rest)
	}
}

func TestStepsAllocateNothing(t *testing.T) {
	for _, mode := range []traceloader.StepMode{traceloader.EagerSync, traceloader.EagerAsync} {
		table := tableWithSteps(t, traceloader.Options{Rules: traceloader.Accurate}, map[string][]int{string(mode): {32}})
		steps, err := table.Steps(1, traceloader.StepOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		clock := traceloader.NewStepClock(steps)
		var step traceloader.StepTime
		batch := decodes(64, 1000)
		run := func() {
			b := traceloader.NewBatch(batch)
			steps.Time(b, &step)
			clock.Submit(b, 0)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", mode, n)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	for _, rules := range []traceloader.Rules{traceloader.Parity, traceloader.Accurate} {
		bundle, err := perfio.OpenBundle("../perf/H200/meta-llama/Llama-3.1-8B/bf16")
		if err != nil {
			b.Fatal(err)
		}
		table, err := traceloader.New(bundle, traceloader.Options{Rules: rules})
		if err != nil {
			b.Fatal(err)
		}
		steps, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.GraphAsync})
		if err != nil {
			b.Fatal(err)
		}
		var requests []perfio.Request
		for i := range 64 {
			requests = append(requests, perfio.Request{NewTokens: 1, KVHistory: 300 + 37*i})
		}
		list := traceloader.NewBatch(requests)
		numbers := list
		numbers.Requests = nil
		var out traceloader.StepTime
		b.Run("rules="+rules.String()+"/form=numbers/requests=64", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				steps.Time(numbers, &out)
			}
		})
		b.Run("rules="+rules.String()+"/form=list/requests=64", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				steps.Time(list, &out)
			}
		})
		b.Run("rules="+rules.String()+"/form=clock/requests=64", func(b *testing.B) {
			clock := traceloader.NewStepClock(steps)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				// Each token of each request grows by one, as running decodes do.
				for k := range requests {
					requests[k].KVHistory = 300 + 37*k + i%2000
				}
				clock.Submit(traceloader.NewBatch(requests), 0)
			}
		})
	}
}
