package profile

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// stepsOf makes records of batches whose steps take 1000 us each, without async
// scheduling.
func stepsOf(batches ...StepRecord) []StepRecord {
	for i := range batches {
		s := &batches[i]
		start := float64(1000 * i)
		s.HostMarksUS = HostMarks{start, start + 50, start + 60, start + 160, start + 460, start + 470, start + 770, start + 780, start + 830, start + 930}
		s.DeviceMarksUS = []float64{start + 100, start + 200, start + 700, start + 750}
		for _, q := range s.Requests {
			s.PaddedTokens += q.NewTokens
		}
	}
	return batches
}

func batch(admitted, finished int, requests ...perfio.Request) StepRecord {
	return StepRecord{Requests: requests, Admitted: admitted, Finished: finished, Graph: perfio.GraphFull}
}

func decode(kv ...int) []perfio.Request {
	var out []perfio.Request
	for _, k := range kv {
		out = append(out, perfio.Request{NewTokens: 1, KVHistory: k})
	}
	return out
}

func TestStepRows(t *testing.T) {
	steps := stepsOf(
		batch(1, 0, perfio.Request{NewTokens: 100}), // the first two are left out
		batch(0, 0, decode(100)...),
		batch(1, 0, append(decode(101), perfio.Request{NewTokens: 300})...),                // 2: mixed
		batch(0, 0, append(decode(102), perfio.Request{NewTokens: 50, KVHistory: 300})...), // 3: mixed, a chunk
		batch(0, 0, decode(103, 350)...),                                                   // 4
		batch(0, 0, decode(104, 351)...),                                                   // 5
		batch(0, 0, decode(105, 352)...),                                                   // 6: the next one has a finish
		batch(0, 1, decode(353)...),                                                        // 7
		batch(0, 0, decode(354)...),                                                        // 8: idle after
		batch(1, 1, perfio.Request{NewTokens: 1}),                                          // 9: a prefill of one token
		batch(0, 0, decode(1)...),
		batch(0, 0, decode(2)...), // the last is left out
	)
	steps[5].HostMarksUS[MarkSampled] += 5 // spread within a row
	steps[6].HostMarksUS[MarkSchedule] -= 40
	rows := StepRows(perfio.ModeGraphSync, 32, steps)
	type figures struct {
		NDecode, NPrefill, Chunk, KVPrefill, Admitted, Finished, Steps int
		KVMean                                                         float64
		KVMin, KVMax                                                   int
	}
	var got []figures
	for _, r := range rows {
		got = append(got, figures{r.NDecode, r.NPrefill, r.PrefillChunk, r.KVPrefill, r.Admitted, r.Finished, r.Steps, r.KVDecodeMean, r.KVDecodeMin, r.KVDecodeMax})
	}
	want := []figures{
		{1, 1, 300, 0, 1, 0, 1, 101, 101, 101},
		{1, 1, 50, 300, 0, 0, 1, 102, 102, 102},
		{2, 0, 0, 0, 0, 0, 2, 227.5, 104, 351}, // steps 4 and 5
		{2, 0, 0, 0, 0, 0, 1, 228.5, 105, 352},
		{1, 0, 0, 0, 0, 1, 1, 353, 353, 353},
		{0, 1, 1, 0, 1, 1, 1, 0, 0, 0},
		{1, 0, 0, 0, 0, 0, 1, 1, 1, 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("rows (-want +got):\n%s", diff)
	}
	first := rows[0]
	parts := []float64{
		first.ScheduleUS, first.DispatchUS, first.PrepareUS, first.LaunchUS, first.AfterUS, first.SampleUS, first.WaitUS, first.UpdateUS,
		first.ReturnUS, first.BetweenUS, first.StepUS, first.DeviceWaitUS, first.DeviceForwardUS, first.DeviceAfterUS, first.DeviceStepUS, first.Spread,
	}
	if diff := cmp.Diff([]float64{50, 10, 100, 300, 10, 300, 10, 50, 100, 70, 1000, 100, 500, 50, 1000, 0}, parts); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	if r := rows[2]; math.Abs(r.Spread-40.0/980) > 1e-9 || r.StepUS != 980 || r.SampleUS != 302.5 {
		t.Errorf("the joined row: spread %v, step %v, sample %v", r.Spread, r.StepUS, r.SampleUS)
	}
	if r := rows[5]; !math.IsNaN(r.DeviceStepUS) || math.IsNaN(r.DeviceForwardUS) {
		t.Errorf("after idleness: device_step_us %v, device_forward_us %v", r.DeviceStepUS, r.DeviceForwardUS)
	}
	if r := rows[6]; r.Layers != 32 || r.Graph != perfio.GraphFull || r.Mode != perfio.ModeGraphSync {
		t.Errorf("%+v", r)
	}
}

// With asynchronous scheduling a step's period holds the update of the step
// before it; the parts still make up the step.
func TestStepRowsAsync(t *testing.T) {
	const nothing = 0
	var steps []StepRecord
	for i := range 6 {
		s := batch(0, 0, decode(10+i)...)
		s.Admitted = nothing
		start := float64(1000 * i)
		// The output of step i comes while step i+1 is on its way.
		s.HostMarksUS = HostMarks{start, start + 50, start + 60, start + 160, start + 200, start + 210, start + 250, start + 1700, start + 1750, start + 1850}
		steps = append(steps, s)
	}
	rows := StepRows(perfio.ModeGraphAsync, 32, steps)
	if len(rows) != 1 || rows[0].Steps != 3 {
		t.Fatalf("got %+v", rows)
	}
	r := rows[0]
	if r.WaitUS != 450 || r.UpdateUS != 50 || r.ReturnUS != 100 || r.BetweenUS != 150 {
		t.Errorf("wait %v, update %v, return %v, between %v", r.WaitUS, r.UpdateUS, r.ReturnUS, r.BetweenUS)
	}
	sum := r.ScheduleUS + r.DispatchUS + r.PrepareUS + r.LaunchUS + r.AfterUS + r.SampleUS + r.WaitUS + r.UpdateUS + r.ReturnUS + r.BetweenUS
	if sum != r.StepUS || r.StepUS != 1000 || !math.IsNaN(r.DeviceForwardUS) {
		t.Errorf("parts %v of %v, on the device %v", sum, r.StepUS, r.DeviceForwardUS)
	}
	// The first step after idleness takes up no output.
	first := timesOf(steps, 0)
	if !math.IsNaN(first[partWait]) || !math.IsNaN(first[partReturn]) || first[partBetween] != 750 {
		t.Errorf("without an output: %v", first)
	}
}

func TestCompactSteps(t *testing.T) {
	steps := stepsOf(
		batch(2, 0, perfio.Request{NewTokens: 100}, perfio.Request{NewTokens: 7}),
		batch(0, 0, decode(100, 7)...), batch(0, 0, decode(101, 8)...), batch(0, 1, decode(9)...),
	)
	steps[2].HostMarksUS[MarkSampled] = math.NaN()
	steps[3].DeviceMarksUS = nil
	text, err := json.Marshal(CompactSteps(steps))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"requests":null`); n != 2 {
		t.Errorf("%d of 2 continuing steps are written short:\n%s", n, text)
	}
	var read CompactSteps
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	equalNaN := cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })
	if diff := cmp.Diff(steps, []StepRecord(read), equalNaN); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
	for _, bad := range []string{
		`[{"requests":null,"host_marks_us":[1,2,3,4,5,6,7,8,9,10]}]`,
		`[{"requests":[[1,2]],"host_marks_us":[1,2]}]`,
		`[{"requests":[[1]],"host_marks_us":[1,2,3,4,5,6,7,8,9,10]}]`,
	} {
		if json.Unmarshal([]byte(bad), &read) == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

// The workloads keep to the limits of small and large engines alike, and are the
// same every time.
func TestStepWorkloads(t *testing.T) {
	for _, limits := range []Limits{
		{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, MaxModelLen: 32768, CacheTokens: 460688, BlockSize: 16},
		{MaxNumBatchedTokens: 8192, MaxNumSeqs: 1024, MaxModelLen: 131072, CacheTokens: 30000, BlockSize: 16},
		{MaxNumBatchedTokens: 64, MaxNumSeqs: 8, MaxModelLen: 1024, CacheTokens: 8192, BlockSize: 128},
		{MaxNumBatchedTokens: 16, MaxNumSeqs: 1, MaxModelLen: 64, CacheTokens: 128, BlockSize: 16},
		{},
	} {
		again := StepWorkloads(limits, 3)
		for i, w := range append(StepWorkloads(limits, 3), WarmUp(limits, 3)) {
			if err := w.check(); err != nil {
				t.Errorf("%+v: %s: %v", limits, w.Name, err)
				continue
			}
			if i < len(again) {
				if diff := cmp.Diff(again[i], w); diff != "" {
					t.Errorf("%s: made twice: %s", w.Name, diff)
				}
			}
			for _, q := range w.Requests {
				if n := q.PromptTokens + q.OutputTokens; limits.MaxModelLen > 0 && n > limits.MaxModelLen || limits.CacheTokens > 0 && n > limits.CacheTokens {
					t.Errorf("%+v: %s: a request of %d and %d tokens", limits, w.Name, q.PromptTokens, q.OutputTokens)
				}
			}
			if n := w.PlannedSteps(); n < 3 || n > 2500 {
				t.Errorf("%+v: %s: %d steps planned", limits, w.Name, n)
			}
		}
	}
	if cmp.Equal(StepWorkloads(Limits{}, 3), StepWorkloads(Limits{}, 4)) {
		t.Error("the seed changes nothing")
	}
}

func TestCheckSteps(t *testing.T) {
	steps := stepsOf(batch(1, 0, perfio.Request{NewTokens: 9}), batch(0, 0, decode(9)...), batch(0, 0, decode(10)...))
	if err := CheckSteps(steps); err != nil {
		t.Fatal(err)
	}
	steps[1], steps[2] = steps[2], steps[1]
	if err := CheckSteps(steps); err == nil || err.Error() != "step 2: host_marks_us: found a scheduler call at 1000 behind one at 2000" {
		t.Errorf("steps out of order: %v", err)
	}
	steps[0].Requests = nil
	if err := CheckSteps(steps); err == nil || err.Error() != "step 0: requests: found none" {
		t.Errorf("a step without requests: %v", err)
	}
}

// FuzzCompactSteps: what a journal or a worker gives as steps is refused or read,
// and whatever passes its checks makes rows that can be written.
func FuzzCompactSteps(f *testing.F) {
	good, err := json.Marshal(CompactSteps(stepsOf(
		batch(2, 0, perfio.Request{NewTokens: 100}, perfio.Request{NewTokens: 7}), batch(0, 0, decode(100, 7)...),
		batch(0, 0, decode(101, 8)...), batch(0, 1, decode(9)...), batch(0, 0, decode(10)...),
	)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`[{"requests":[[1,0]],"host_marks_us":[1,2,null,4,5,6,7,8,9,10],"device_marks_us":[1,2,3,4]},{}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var steps CompactSteps
		if json.Unmarshal(data, &steps) != nil {
			return
		}
		if CheckSteps(steps) != nil {
			return
		}
		text, err := json.Marshal(steps)
		if err != nil {
			t.Fatal(err)
		}
		var again CompactSteps
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for i := range steps {
			if !slices.Equal(steps[i].Requests, again[i].Requests) {
				t.Errorf("step %d: %v read again as %v", i, steps[i].Requests, again[i].Requests)
			}
		}
		if err := perfio.WriteStep(io.Discard, StepRows(perfio.ModeEagerSync, 1, steps)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	})
}
