package profile

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// Order says where a prefill chunk stands in a batch that has decodes too.
type Order string

// A real engine step has its running decodes first; LLMServingSim's profiler
// puts the prefill chunk first.
const (
	EngineOrder  Order = "engine"
	PrefillFirst Order = "prefill-first"
)

// Kind is the size of a plan.
type Kind string

// The full plan holds LLMServingSim's grids; the lean one only what
// traceloader's accurate rules need.
const (
	FullPlan Kind = "full"
	LeanPlan Kind = "lean"
)

// Kernel is the family of attention kernels that a lean plan is made for.
type Kernel string

// The zero Kernel is an unknown one, planned like FlashAttention2.
const (
	FlashAttention2 Kernel = "fa2"
	FlashAttention3 Kernel = "fa3"
)

// CategoryOrder lists the categories in plan order.
var CategoryOrder = []Category{Dense, PerSequence, Attention, MoE, Skew, Batches, Validation}

// Shares says whether shots of the category may share one measurement with
// another category's. Validation must not: what it judges would then have been
// made of the very same samples.
func (c Category) Shares() bool { return c != Validation }

// PlanOptions say what to measure. The zero value is the full plan at tp1 in
// the engine's order.
type PlanOptions struct {
	TPs    []int  // tensor-parallel degrees, ascending; nil: 1
	Kind   Kind   // "": full
	Kernel Kernel // for a lean plan
	Order  Order  // "": engine

	MaxKV         int     // longest KV history of the grids; 0: 16384
	ChunkFactor   float64 // of prefill_chunk's grid; 0: 2
	KVFactor      float64 // of kv_prefill's and kv_decode's grids; 0: 2
	SkewNFactor   float64 // likewise of the skew cases' axes; 0: 2
	SkewPCFactor  float64
	SkewKPFactor  float64
	SkewKVSFactor float64
	SkipSkew      bool
	Only          []Category // nil: all

	// RealTP: every layer is measured at every degree, since a real rank runs
	// each as an engine of that degree does. An emulated one does not.
	RealTP bool

	// ShareRepeats has shots of equal shape measured once in a tp, for all the
	// categories that hold them, but for those that do not share (see Shares).
	ShareRepeats bool
	// RandomBatches is how many random batches are measured for batches.jsonl;
	// 0: 160 in a lean plan for FlashAttention3, else none. Negative: none.
	RandomBatches int
	// ValidationBatches are drawn from another stream and kept apart.
	ValidationBatches int
	Seed              int64
}

// Plan is a list of shots: nothing else decides what is measured.
type Plan struct {
	Options PlanOptions // with its defaults filled
	Limits  Limits
	TPs     []TPPlan
}

// TPPlan is the plan of one tensor-parallel degree.
type TPPlan struct {
	TP         int
	Categories []CategoryPlan // in CategoryOrder; those without shots are left out
}

// CategoryPlan is the shots of one category in plan order.
type CategoryPlan struct {
	Category Category
	Shots    []Shot
	// Cases of the skew category; Shots[3*i:3*i+3] are case i's three batches.
	Cases []SkewCase
	// Layers is what the shots are measured for; nil: every layer of the
	// catalog (the plan was made without an architecture, or the category is
	// one of random batches).
	Layers []string
	// ShotLayers, where it is not nil, replaces Layers shot by shot.
	ShotLayers [][]string
}

// LayersOf lists the layers that shot i is measured for; nil means all.
func (c *CategoryPlan) LayersOf(i int) []string {
	if c.ShotLayers != nil {
		return c.ShotLayers[i]
	}
	return c.Layers
}

// NewPlan plans every degree of the options under the same limits. arch may be
// nil: then no layer is known, and what depends on it (which layers are
// tp_stable) is left open.
func NewPlan(limits Limits, arch *perfio.Architecture, opts PlanOptions) (*Plan, error) {
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	plan := &Plan{Options: opts, Limits: limits}
	for _, tp := range opts.TPs {
		tpPlan, err := NewTPPlan(tp, limits, arch, opts)
		if err != nil {
			return nil, err
		}
		plan.TPs = append(plan.TPs, tpPlan)
	}
	return plan, nil
}

// NewTPPlan plans one degree of those in opts.TPs, for engines whose limits
// differ by degree.
func NewTPPlan(tp int, limits Limits, arch *perfio.Architecture, opts PlanOptions) (TPPlan, error) {
	opts, err := opts.filled()
	if err != nil {
		return TPPlan{}, err
	}
	if err := limits.check(); err != nil {
		return TPPlan{}, err
	}
	p := planner{tp: tp, limits: limits, arch: arch, opts: opts}
	tpPlan := TPPlan{TP: tp}
	for _, category := range CategoryOrder {
		if !opts.wants(category) {
			continue
		}
		if c := p.category(category); len(c.Shots) > 0 {
			tpPlan.Categories = append(tpPlan.Categories, c)
		}
	}
	return tpPlan, nil
}

// Filled returns the options with their defaults in place of zeros, or an error
// that names the field that cannot be.
func (o PlanOptions) Filled() (PlanOptions, error) { return o.filled() }

func (o PlanOptions) filled() (PlanOptions, error) {
	if len(o.TPs) == 0 {
		o.TPs = []int{1}
	}
	o.TPs = slices.Clone(o.TPs)
	slices.Sort(o.TPs)
	for i, tp := range o.TPs {
		if tp < 1 {
			return o, fmt.Errorf("tp: found %d, expected at least 1", tp)
		}
		if i > 0 && tp == o.TPs[i-1] {
			return o, fmt.Errorf("tp: found %d twice", tp)
		}
	}
	setDefault(&o.Kind, FullPlan)
	setDefault(&o.Order, EngineOrder)
	setDefault(&o.MaxKV, 16384)
	factors := map[string]*float64{
		"attention-chunk-factor": &o.ChunkFactor, "attention-kv-factor": &o.KVFactor,
		"skew-n-factor": &o.SkewNFactor, "skew-pc-factor": &o.SkewPCFactor,
		"skew-kp-factor": &o.SkewKPFactor, "skew-kvs-factor": &o.SkewKVSFactor,
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(factors)) {
		setDefault(factors[name], 2)
		errs = append(errs, checkFactor(name, *factors[name]))
	}
	if o.MaxKV < 0 {
		errs = append(errs, fmt.Errorf("attention-max-kv: found %d, expected at least 1", o.MaxKV))
	}
	if o.Kind != FullPlan && o.Kind != LeanPlan {
		errs = append(errs, fmt.Errorf("plan: found %q, expected full or lean", o.Kind))
	}
	if o.Kernel != "" && o.Kernel != FlashAttention2 && o.Kernel != FlashAttention3 {
		errs = append(errs, fmt.Errorf("attention-kernel: found %q, expected fa2 or fa3", o.Kernel))
	}
	if o.Order != EngineOrder && o.Order != PrefillFirst {
		errs = append(errs, fmt.Errorf("order: found %q, expected engine or prefill-first", o.Order))
	}
	for _, c := range o.Only {
		// Steps have no shots, and stand in no plan of shots.
		if known := append(slices.Clone(CategoryOrder), Step); !slices.Contains(known, c) {
			errs = append(errs, fmt.Errorf("only: found %q, expected some of %v", c, known))
		}
	}
	if o.ValidationBatches < 0 {
		errs = append(errs, fmt.Errorf("validation: found %d, expected at least 0", o.ValidationBatches))
	}
	if o.RandomBatches == 0 && o.Kind == LeanPlan && o.Kernel == FlashAttention3 {
		o.RandomBatches = 160
	}
	return o, errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o PlanOptions) wants(c Category) bool {
	if c == Skew && o.SkipSkew {
		return false
	}
	return o.Only == nil || slices.Contains(o.Only, c)
}

// planner makes one degree's categories.
type planner struct {
	tp     int
	limits Limits
	arch   *perfio.Architecture
	opts   PlanOptions
}

func (p planner) category(category Category) CategoryPlan {
	c := CategoryPlan{Category: category}
	switch category {
	case Batches:
		c.Layers = p.ownLayers()
		if p.opts.Kind == LeanPlan && p.opts.Kernel != FlashAttention3 && !p.opts.SkipSkew {
			c.Shots = p.leanSkew()
		}
		c.Shots = append(c.Shots, p.randomBatches(Batches, max(p.opts.RandomBatches, 0))...)
		return c
	case Validation:
		c.Layers = p.ownLayers()
		c.Shots = p.randomBatches(Validation, p.opts.ValidationBatches)
		return c
	case Skew:
		if p.opts.Kind == FullPlan {
			c.setCases(skewCases(p.limits, p.opts), p.opts.Order)
		}
		c.Layers = p.categoryLayers(Skew)
		return c
	}
	c.Layers = p.categoryLayers(category)
	if p.arch != nil && len(c.Layers) == 0 {
		return c
	}
	switch category {
	case Dense:
		c.Shots = p.dense()
	case PerSequence:
		c.Shots = p.perSequence()
	case Attention:
		c.Shots = p.attention()
	case MoE:
		c.Shots = p.moe()
	}
	return c
}

func (c *CategoryPlan) setCases(cases []SkewCase, order Order) {
	c.Cases = cases
	c.Shots = make([]Shot, 0, 3*len(cases))
	for i := range cases {
		shots := cases[i].Shots(order)
		c.Shots = append(c.Shots, shots[:]...)
	}
}

// categoryLayers lists what a category's shots are measured for.
func (p planner) categoryLayers(category Category) []string {
	if category == Skew {
		category = Attention
	}
	return p.layers(category)
}

// ownLayers lists the layers whose latency is this degree's own: at degrees
// above 1 neither those that are tp_stable nor the experts, since lookups take
// both from tp1 and the emulated rank runs something else.
func (p planner) ownLayers() []string {
	if p.arch == nil {
		return nil
	}
	var names []string
	for _, e := range p.arch.Catalog {
		if p.tp == 1 || p.opts.RealTP || !e.TPStable && e.Category != string(MoE) {
			names = append(names, e.Layer)
		}
	}
	return names
}

// layers lists the catalog's layers of a category that this degree measures:
// the tp_stable ones at the lowest planned degree only.
func (p planner) layers(category Category) []string {
	if p.arch == nil {
		return nil
	}
	var names []string
	for _, e := range p.arch.Catalog {
		if e.Category == string(category) && (!e.TPStable || p.tp == p.opts.TPs[0] || p.opts.RealTP) {
			names = append(names, e.Layer)
		}
	}
	return names
}

func (p planner) dense() []Shot {
	grid := tokenGrid(p.limits.MaxNumBatchedTokens)
	if p.opts.Kind == LeanPlan {
		grid = everyCount(p.limits.MaxNumBatchedTokens)
	}
	var shots []Shot
	for _, n := range grid {
		if p.limits.feasibleDense(n) {
			shots = append(shots, denseShot(n))
		}
	}
	return shots
}

func denseShot(tokens int) Shot {
	return Shot{Category: Dense, Groups: []Group{{1, tokens, 0}}}
}

func (p planner) perSequence() []Shot {
	grid := tokenGrid(p.limits.MaxNumSeqs)
	if p.opts.Kind == LeanPlan {
		grid = everyCount(p.limits.MaxNumSeqs)
	}
	var shots []Shot
	for _, n := range grid {
		if p.limits.feasibleSequences(n) {
			shots = append(shots, sequenceShot(n))
		}
	}
	return shots
}

func sequenceShot(n int) Shot {
	return Shot{Category: PerSequence, Groups: []Group{{n, 1, 0}}}
}

func (p planner) attention() []Shot {
	points := p.gridPoints()
	if p.opts.Kind == LeanPlan {
		points = p.leanPoints()
	}
	var shots []Shot
	for _, point := range points {
		if p.limits.feasibleAttention(point) {
			shots = append(shots, attentionShot(point, p.opts.Order))
		}
	}
	return shots
}

func attentionShot(point AttentionPoint, order Order) Shot {
	var decodes []Group
	if point.NDecode > 0 {
		decodes = []Group{{point.NDecode, 1, point.KVDecode}}
	}
	return Shot{Category: Attention, Point: point, Groups: ordered(order, point.PrefillChunk, point.KVPrefill, decodes...)}
}

func (p planner) gridPoints() []AttentionPoint {
	maxKV := min(p.opts.MaxKV, limitOr(p.limits.MaxModelLen))
	chunks := geometricGrid(p.limits.MaxNumBatchedTokens, 16, p.opts.ChunkFactor)
	kvs := geometricGrid(maxKV, 16, p.opts.KVFactor)
	decodes := geometricGrid(p.limits.MaxNumSeqs, 1, 2)
	return points(chunks, kvs, decodes, kvs)
}

// points is the product of four grids less the combinations that mean nothing:
// a history without its chunk or decode, and decodes without one.
func points(chunks, kvPrefills, decodes, kvDecodes []int) []AttentionPoint {
	var out []AttentionPoint
	for _, pc := range chunks {
		for _, kp := range kvPrefills {
			if pc == 0 && kp > 0 {
				continue
			}
			for _, n := range decodes {
				for _, kd := range kvDecodes {
					if (n == 0) == (kd == 0) && (pc > 0 || n > 0) {
						out = append(out, AttentionPoint{pc, kp, n, kd})
					}
				}
			}
		}
	}
	return out
}

func (p planner) moe() []Shot {
	// Parallel degrees share tp1's rows: an expert is not divided.
	if p.tp != 1 && !p.opts.RealTP || p.limits.NumExperts < 1 || p.limits.TopK < 1 {
		return nil
	}
	var shots []Shot
	for _, tokens := range powersOfTwo(p.limits.MaxNumBatchedTokens) {
		for _, experts := range powersOfTwo(p.limits.NumExperts) {
			if p.limits.feasibleMoE(tokens, experts) {
				shots = append(shots, moeShot(tokens, experts))
			}
		}
	}
	return shots
}

func moeShot(tokens, experts int) Shot {
	return Shot{Category: MoE, Groups: []Group{{1, tokens, 0}}, Experts: experts}
}
