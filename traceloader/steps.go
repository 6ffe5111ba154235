package traceloader

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/layerprof/layerprof/internal/stepmodel"
	"github.com/layerprof/layerprof/perfio"
)

// StepOptions say whose steps are asked for. The zero value is the sum of the
// layers at the model's own depth.
type StepOptions struct {
	Mode StepMode
	// Depth is the number of decoder blocks; 0: the model config's.
	Depth int
	// From is a table whose step.csv is used, where this one has none: a bundle
	// of the same host, GPU and engine release, whatever its model and degree;
	// this table itself, for a degree without steps. Nil: this one's, of the
	// degree that is asked for.
	From *Table
	// Pauses adds to each step its share of the host's pauses. Without it a step
	// is the typical one, which most steps are near to; with it sums over many
	// steps are right, as a replay of a whole run needs.
	Pauses bool
}

// Steps answers whole steps of an engine, as a server runs them: the layers by
// the tables, and around them what step.csv says of the host, of launching, and
// of graphs. Copies are cheap; all methods are safe for concurrent use.
type Steps struct {
	walk    Walk
	mode    StepMode
	depth   int
	terms   *stepmodel.Terms // nil: the sum of the layers
	graphs  []graphClass
	padding []int // capture sizes, ascending; nil where they are not known
	largest int   // the most tokens that graphs are launched for
	status  Status
	pauses  bool
	// missingNS is about what a sum of layers in place of the mode leaves out.
	missingNS float64
}

// graphClass is one kind of graph with its terms in nanoseconds, so that a
// lookup converts nothing.
type graphClass struct {
	name  string
	class stepmodel.Class
}

// StepTime is what Steps.Time fills in. Reuse one for many batches. All parts are
// nanoseconds.
type StepTime struct {
	// Kernels are the layers, at the number of tokens that the engine pads the
	// batch to.
	Kernels      Step
	PaddedTokens int
	// Graph is how the forward is launched, by the names of step.csv.
	Graph string

	KernelsNS int64 // prologue, all blocks and head, on the device
	BeforeNS  int64 // the host, from the step's start to the forward
	LaunchNS  int64 // the host's launching of the forward
	ForwardNS int64 // prologue and blocks as the engine runs them: launching or the device, whichever is longer
	PauseNS   int64 // the step's share of the host's pauses, where they are asked for
	AfterNS   int64 // from the forward's end: sampling and, in synchronous scheduling, the host's part until the next step
	HostNS    int64 // all that the host does for the step, without waiting
	DeviceNS  int64 // all that the device does for the step, its waiting for launches included
	// TotalNS is from the step's start to the next one's. In asynchronous
	// scheduling that is the pace of steps like this one; StepClock follows
	// single steps.
	TotalNS int64
	// Bound says what sets TotalNS.
	Bound StepBound
	// KernelsOnly: TotalNS is the sum of the layers, because that was asked for or
	// no steps of the mode were measured.
	KernelsOnly bool
	// Sigma is one standard error of TotalNS, relative; 0 is not known. It leaves
	// out the layers' own errors, which Estimate has.
	Sigma float64

	deviceForwardNS int64 // ForwardNS by the device's work alone
	launchForwardNS int64 // ForwardNS by the host's launching alone
}

// StepBound is what a step waits for.
type StepBound uint8

// The device's kernels, the host's launching of the forward, or all that the
// host does for a step.
const (
	DeviceBound StepBound = iota
	LaunchBound
	HostBound
)

// String returns the lower-case name.
func (b StepBound) String() string { return [...]string{"device", "launch", "host"}[min(b, HostBound)] }

// Steps prepares whole steps at a tp. It is an error where the walk is one,
// where no depth is known, or where the mode was not measured; Options.Lenient
// makes a mode that was not measured a sum of layers, which StepTime says.
func (t *Table) Steps(tp int, o StepOptions) (Steps, error) {
	walk, err := t.Walk(tp)
	if err != nil {
		return Steps{}, err
	}
	s := Steps{walk: walk, mode: o.Mode, depth: o.Depth, status: Measured, pauses: o.Pauses}
	if s.depth <= 0 {
		s.depth = walk.depth
	}
	if s.depth <= 0 {
		return Steps{}, errors.New("traceloader: steps: depth: no model config is known, set StepOptions.Depth")
	}
	if o.Mode == KernelsOnly {
		return s, nil
	}
	from := t
	if o.From != nil {
		from, s.status = o.From, Borrowed
	}
	file, rows, own := from.findSteps(tp, o.Mode, o.From != nil)
	if !own {
		s.status = Borrowed
	}
	if len(rows) == 0 {
		if t.options.Lenient {
			s.status, s.missingNS = Fallback, 1e3*missingUS(o.Mode, s.depth)
			return s, nil
		}
		if have := from.StepModes(tp); len(have) > 0 {
			return Steps{}, fmt.Errorf("traceloader: steps: tp%d: mode %s was not measured: found %v in step.csv", tp, o.Mode, have)
		}
		return Steps{}, fmt.Errorf("traceloader: steps: tp%d: mode %s was not measured: found no step.csv; StepOptions.From takes that of another bundle of the same host and GPU", tp, o.Mode)
	}
	// The terms relate measured steps to the layers of the bundle they were
	// measured beside.
	beside := walk
	if o.From != nil {
		if beside, err = from.Walk(file.degree); err != nil {
			return Steps{}, fmt.Errorf("traceloader: steps: from: %w", err)
		}
	}
	terms, err := fitSteps(beside.answering(), o.Mode, rows)
	if err != nil {
		return Steps{}, err
	}
	at, measured := stepmodel.AtDepth(terms, s.depth)
	if !measured {
		s.status = worse(s.status, Extrapolated)
	}
	s.terms = &at
	for name, class := range at.Classes {
		s.graphs = append(s.graphs, graphClass{name, class})
	}
	slices.SortFunc(s.graphs, func(a, b graphClass) int { return b.class.Rows - a.class.Rows })
	if o.Mode.graphs() {
		if s.padding = file.captureSizes[o.Mode]; len(s.padding) == 0 {
			s.padding = file.captureSizes[o.Mode.sync()]
		}
		s.largest = largestGraph(rows, s.padding)
	}
	return s, nil
}

// missingUS is about what steps take beside the sum of their layers where nothing
// was measured: what two thirds of the decode steps of an H100's server
// (Llama-3.1-8B, 32 layers) are within. Its host is a slow one; an H200's was
// twice as fast.
func missingUS(mode StepMode, depth int) float64 {
	switch {
	case !mode.graphs():
		return 350 * float64(depth) // launching is by the layer
	case mode.Async():
		return 3000
	}
	return 4500
}

// KernelsOnly tells whether steps are sums of the layers: because that was asked
// for, or because no steps of the mode were measured and Options.Lenient is set.
func (s Steps) KernelsOnly() bool { return s.terms == nil }

// async tells whether steps are timed as asynchronous ones.
func (s *Steps) async() bool { return s.terms != nil && s.mode.Async() }

// Mode is the mode that was asked for.
func (s Steps) Mode() StepMode { return s.mode }

// Depth is the number of decoder blocks.
func (s Steps) Depth() int { return s.depth }

// launch tells how the engine launches a batch, and the tokens it pads it to.
func (s *Steps) launch(b *Batch) (class *graphClass, padded int) {
	name := ""
	padded = b.Tokens
	if s.mode.graphs() {
		name = perfio.GraphNone
		if b.Tokens <= s.largest {
			if i, _ := slices.BinarySearch(s.padding, b.Tokens); i < len(s.padding) {
				padded = s.padding[i]
			}
			name = perfio.GraphPiecewise
			if b.PrefillChunk == 0 && s.class(perfio.GraphFull) != nil {
				name = perfio.GraphFull
			}
		}
	}
	if class = s.class(name); class == nil {
		class = &s.graphs[0]
	}
	return class, padded
}

func (s *Steps) class(name string) *graphClass {
	for i := range s.graphs {
		if s.graphs[i].name == name {
			return &s.graphs[i]
		}
	}
	return nil
}

// Time fills out with a batch's step. False where a layer has no answer.
func (s Steps) Time(b Batch, out *StepTime) bool { return s.time(&b, out, nil) }

// time is Time with attention by a memo, where there is one.
func (s *Steps) time(batch *Batch, out *StepTime, memo *DecodeMemo) bool {
	b := *batch
	out.KernelsOnly = s.terms == nil
	out.PaddedTokens, out.Graph = b.Tokens, ""
	admitted := b.Admitted()
	if s.terms == nil {
		if !s.walk.step(b, &out.Kernels, memo) {
			return false
		}
		forward := out.Kernels.PrologueNS + int64(s.depth)*out.Kernels.BlockNS
		out.KernelsNS = forward + out.Kernels.HeadNS
		out.BeforeNS, out.LaunchNS, out.HostNS, out.PauseNS, out.ForwardNS, out.AfterNS = 0, 0, 0, 0, forward, out.Kernels.HeadNS
		out.DeviceNS, out.TotalNS, out.Bound, out.Sigma = out.KernelsNS, out.KernelsNS, DeviceBound, 0
		if s.missingNS > 0 {
			out.Sigma = s.missingNS / float64(out.TotalNS)
		}
		return true
	}
	class, padded := s.launch(&b)
	out.PaddedTokens, out.Graph = padded, class.name
	requests := b.Sequences
	b.Tokens = padded
	if !s.walk.step(b, &out.Kernels, memo) {
		return false
	}
	t := s.terms
	kernels := out.Kernels.PrologueNS + int64(s.depth)*out.Kernels.BlockNS
	out.KernelsNS = kernels + out.Kernels.HeadNS
	device, launch := class.class.ForwardUS(float64(kernels) / 1e3)
	out.deviceForwardNS, out.launchForwardNS = ns(device), ns(launch)
	out.BeforeNS, out.LaunchNS, out.ForwardNS = ns(t.Before.At(requests, admitted)), ns(class.class.LaunchUS), ns(max(device, launch))
	out.Sigma, out.PauseNS = class.class.Sigma, 0
	if s.pauses {
		out.PauseNS = ns(class.class.PauseUS)
	}
	if out.Bound = DeviceBound; launch > device {
		out.Bound = LaunchBound
	}
	if !s.mode.Async() {
		out.AfterNS = ns(t.After.At(requests, admitted))
		out.HostNS = out.BeforeNS + out.LaunchNS + max(0, out.AfterNS-out.Kernels.HeadNS)
		out.DeviceNS = out.ForwardNS + out.Kernels.HeadNS
		out.TotalNS = max(1, out.BeforeNS+out.ForwardNS+out.AfterNS+out.PauseNS)
		return true
	}
	out.AfterNS = out.Kernels.HeadNS + ns(t.TailUS)
	out.HostNS = out.BeforeNS + out.LaunchNS + ns(t.Submit.At(requests, admitted)) + ns(t.Finish.At(requests, 0))
	out.DeviceNS = ns(t.WaitUS) + out.ForwardNS + out.AfterNS
	out.TotalNS = max(1, out.HostNS, out.DeviceNS) + out.PauseNS
	if out.HostNS > out.DeviceNS {
		out.Bound = HostBound
	}
	return true
}

func ns(us float64) int64 { return int64(math.Round(us * 1e3)) }

// Estimate is Time's total with its error and the worst status of what counted;
// false where Time has no answer. It is slower than Time.
func (s Steps) Estimate(b Batch) (Estimate, bool) {
	var out StepTime
	if !s.Time(b, &out) {
		return Estimate{}, false
	}
	b.Tokens = out.PaddedTokens
	answers, status := s.walk.Explain(b, nil)
	sigma, layers := out.Sigma, layersSigma(&out.Kernels, s.depth, answers)
	if s.terms == nil {
		sigma = math.Hypot(sigma, layers)
	} else {
		// The terms' error has that of layers near the measured steps in it.
		sigma = max(sigma, layers*float64(out.KernelsNS)/float64(out.TotalNS))
	}
	return Estimate{LatencyNS: out.TotalNS, Sigma: sigma, Status: worse(status, s.status)}, true
}

// layersSigma is the relative error of a sum of layers: theirs, each by its part
// of the sum, at least what all share, how well a run repeats. 0 where one is not
// known.
func layersSigma(k *Step, depth int, answers []Answer) float64 {
	var total, squares float64
	for _, part := range [...]struct {
		layers []LayerLatency
		times  int
	}{{k.Prologue, 1}, {k.Block, depth}, {k.Head, 1}} {
		for i, l := range part.layers {
			if answers[i].Sigma == 0 {
				return 0
			}
			ns := float64(part.times) * float64(l.LatencyNS)
			total += ns
			squares += (ns * answers[i].Sigma) * (ns * answers[i].Sigma)
		}
		answers = answers[len(part.layers):]
	}
	return max(leastSigma, math.Sqrt(squares)/total)
}
