package sim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// batches runs requests with steps of one millisecond and notes each batch.
func batches(t *testing.T, requests []*Request, limits Limits) ([][]perfio.Request, Outcome) {
	t.Helper()
	var seen [][]perfio.Request
	outcome, err := Serve(requests, limits, StepTime(func(batch []perfio.Request) (int64, bool) {
		seen = append(seen, append([]perfio.Request(nil), batch...))
		return 1e6, true
	}))
	if err != nil {
		t.Fatal(err)
	}
	return seen, outcome
}

func TestChunkedPrefill(t *testing.T) {
	requests := []*Request{
		{ID: "a", InputTokens: 25, OutputTokens: 3},
		{ID: "b", InputTokens: 4, OutputTokens: 1, ArrivalNS: 1},
	}
	got, _ := batches(t, requests, Limits{MaxNumBatchedTokens: 10, MaxNumSeqs: 4, BlockSize: 16})
	want := [][]perfio.Request{
		{{NewTokens: 10}},
		{{NewTokens: 10, KVHistory: 10}},
		{{NewTokens: 5, KVHistory: 20}, {NewTokens: 4}}, // what is left of the step's tokens goes to the next
		{{NewTokens: 1, KVHistory: 25}},
		{{NewTokens: 1, KVHistory: 26}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	if requests[0].FirstTokenNS != 3e6 || requests[0].DoneNS != 5e6 || requests[1].DoneNS != 3e6 {
		t.Errorf("times: %+v, %+v", requests[0], requests[1])
	}
}

func TestPreemption(t *testing.T) {
	// Two requests of 2 blocks each grow to 3; the cache has 5.
	requests := []*Request{
		{ID: "first", InputTokens: 8, OutputTokens: 4},
		{ID: "last", InputTokens: 8, OutputTokens: 4},
	}
	_, outcome := batches(t, requests, Limits{MaxNumBatchedTokens: 100, MaxNumSeqs: 4, BlockSize: 4, KVBlocks: 5})
	if outcome.Preemptions == 0 {
		t.Error("nothing was preempted, though the blocks do not suffice for both")
	}
	if requests[0].DoneNS >= requests[1].DoneNS {
		t.Errorf("the first was done at %d, the last at %d: the one that came last is to give way", requests[0].DoneNS, requests[1].DoneNS)
	}
	for _, r := range requests {
		if r.generated != r.OutputTokens {
			t.Errorf("%s: %d tokens generated, want %d", r.ID, r.generated, r.OutputTokens)
		}
	}
}

func TestRequestBeyondTheCache(t *testing.T) {
	_, err := Serve([]*Request{{ID: "big", InputTokens: 100, OutputTokens: 1}}, Limits{MaxNumBatchedTokens: 200, MaxNumSeqs: 1, BlockSize: 4, KVBlocks: 5},
		StepTime(func([]perfio.Request) (int64, bool) { return 1, true }))
	if err == nil || !strings.Contains(err.Error(), "big") {
		t.Errorf("got %v", err)
	}
}

func TestPrefixCaching(t *testing.T) {
	requests := []*Request{
		{ID: "a", InputTokens: 20, OutputTokens: 1, Prefix: "system", PrefixTokens: 17},
		{ID: "b", InputTokens: 20, OutputTokens: 1, Prefix: "system", PrefixTokens: 17, ArrivalNS: 5e6},
	}
	limits := Limits{MaxNumBatchedTokens: 100, MaxNumSeqs: 4, BlockSize: 4, KVBlocks: 10, PrefixCaching: true}
	got, _ := batches(t, requests, limits)
	want := [][]perfio.Request{{{NewTokens: 20}}, {{NewTokens: 4, KVHistory: 16}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

func TestBadRequests(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "list.csv:1: header"},
		{"request,input_tokens\n", "list.csv:1: output_tokens: found no such column"},
		{"request,input_tokens,output_tokens,arrival_ns\na,0,1,0\n", `list.csv:2: input_tokens: found "0"`},
		{"request,input_tokens,output_tokens,arrival_ns\na,1,x,0\n", `list.csv:2: output_tokens: found "x"`},
		{"request,input_tokens,output_tokens,arrival_ns\n", "list.csv: found no requests"},
		{"request,input_tokens,output_tokens,arrival_ns\na,,1,0\n", `list.csv:2: input_tokens: found ""`},
		{"request,input_tokens,output_tokens,arrival_ns\na,1,1,9223372036854775807\n", `list.csv:2: arrival_ns: found "9223372036854775807"`},
		{"request,input_tokens,output_tokens,arrival_ns\na,99999999999,1,0\n", `list.csv:2: input_tokens: found "99999999999"`},
		{"request,input_tokens,output_tokens,arrival_ns\na,1,1,0\nb,1,1,0\na,2,2,5\n", `list.csv:4: request: found "a" again, first in line 2`},
		{"request,input_tokens,output_tokens,arrival_ns,measured_ttft_s\na,1,1,0,inf\n", `list.csv:2: measured_ttft_s: found "inf"`},
	} {
		if _, err := ReadRequests("list.csv", strings.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %q", test.text, err, test.want)
		}
	}
}

func TestBadLimits(t *testing.T) {
	for _, limits := range []Limits{
		{MaxNumSeqs: 1, BlockSize: 1}, {MaxNumBatchedTokens: 1, BlockSize: 1}, {MaxNumBatchedTokens: 1, MaxNumSeqs: 1},
		{MaxNumBatchedTokens: 1, MaxNumSeqs: 1, BlockSize: 1, KVBlocks: -5},
	} {
		requests := []*Request{{InputTokens: 1, OutputTokens: 1}}
		if _, err := Serve(requests, limits, StepTime(func([]perfio.Request) (int64, bool) { return 1e6, true })); err == nil {
			t.Errorf("%+v: no error", limits)
		}
	}
}

func BenchmarkServe(b *testing.B) {
	var requests []*Request
	for i := range 300 {
		requests = append(requests, &Request{InputTokens: 200 + 7*i, OutputTokens: 100 + i, ArrivalNS: int64(i) * 1e8})
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range requests {
			r.generated, r.DoneNS, r.FirstTokenNS = 0, 0, 0
		}
		if _, err := Serve(requests, Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16}, StepTime(func([]perfio.Request) (int64, bool) { return 1e7, true })); err != nil {
			b.Fatal(err)
		}
	}
}

// ahead is an engine with asynchronous scheduling whose steps take a
// millisecond: a step's results come with the submission of the next.
type ahead struct {
	seen   [][]perfio.Request
	flying bool
	now    int64
}

func (a *ahead) Submit(b traceloader.Batch, earliestNS int64) (traceloader.StepSpan, bool) {
	a.seen = append(a.seen, append([]perfio.Request(nil), b.Requests...))
	start := max(earliestNS, a.now)
	span := traceloader.StepSpan{StartNS: start, ReadyNS: start + 1e6}
	if a.flying {
		span.Done = 1
	}
	a.flying, a.now = true, span.ReadyNS
	return span, true
}

func (a *ahead) Drain() traceloader.StepSpan {
	span := traceloader.StepSpan{ReadyNS: a.now + 1e6}
	if a.flying {
		span.Done = 1
	}
	a.flying, a.now = false, span.ReadyNS
	return span
}

func TestAsynchronousScheduling(t *testing.T) {
	requests := []*Request{
		{ID: "a", InputTokens: 12, OutputTokens: 3},
		{ID: "b", InputTokens: 4, OutputTokens: 1, ArrivalNS: 1},
	}
	engine := new(ahead)
	outcome, err := Serve(requests, Limits{MaxNumBatchedTokens: 10, MaxNumSeqs: 4, BlockSize: 16}, engine)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]perfio.Request{
		{{NewTokens: 10}},
		{{NewTokens: 2, KVHistory: 10}, {NewTokens: 4}},
		{{NewTokens: 1, KVHistory: 12}}, // a goes on before its first token is known; b, whose only token is on its way, does not
		{{NewTokens: 1, KVHistory: 13}},
	}
	if diff := cmp.Diff(want, engine.seen); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	// Results come one step later than with synchronous scheduling.
	if a, b := requests[0], requests[1]; a.FirstTokenNS != 3e6 || b.DoneNS != 3e6 || a.DoneNS != 5e6 || outcome.EndNS != 5e6 {
		t.Errorf("a %+v, b %+v, end %d", a, b, outcome.EndNS)
	}
}

func TestAsynchronousPreemption(t *testing.T) {
	requests := []*Request{
		{ID: "first", InputTokens: 8, OutputTokens: 4},
		{ID: "last", InputTokens: 8, OutputTokens: 4},
	}
	outcome, err := Serve(requests, Limits{MaxNumBatchedTokens: 100, MaxNumSeqs: 4, BlockSize: 4, KVBlocks: 5}, new(ahead))
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Preemptions == 0 {
		t.Error("nothing was preempted, though the blocks do not suffice for both")
	}
	for _, r := range requests {
		if r.generated != r.OutputTokens || r.DoneNS == 0 {
			t.Errorf("%s: %d tokens generated, want %d, done at %d", r.ID, r.generated, r.OutputTokens, r.DoneNS)
		}
	}
}
