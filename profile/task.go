package profile

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// runOrder is the order in which categories are measured: what tells most for
// its shots comes first, so that a run that is cut short has it.
var runOrder = []Category{Dense, PerSequence, MoE, Attention, Batches, Validation, Skew, Step}

// task is one measurement to make: a shot, for all that need it.
type task struct {
	category Category // the first that needs it
	phase    int      // within the category, measured in ascending order
	group    int      // tasks of equal group stay together
	shot     Shot
	scope    string // "" where the measurement is shared
	shape    string
	layers   []string // sorted
	layerSet string   // layers as one text

	have     int  // samples
	wide     bool // the median is not known well enough yet
	attempts int  // that failed
	redos    int
	alone    bool // measured by itself, to see whether it is what kills the engine
	retrying bool // waits for a fresh driver
	aside    bool // failed for good
	// infeasible: beyond the engine's limits, as the engine itself said.
	infeasible bool
	failure    Result
}

// shotScope names the only need that a measurement serves where repeats are not
// shared.
func shotScope(s *Shot) string {
	switch s.Category {
	case Attention:
		p := s.Point
		return joinInts("attention:", p.PrefillChunk, p.KVPrefill, p.NDecode, p.KVDecode)
	case Skew:
		c := s.Case
		return joinInts("skew:"+string(s.Role)+":", c.N, c.NB, c.PC, c.KP, c.KVS) + "," + strconv.FormatFloat(c.Skew, 'g', -1, 64)
	}
	return string(s.Category)
}

func joinInts(prefix string, values ...int) string {
	b := []byte(prefix)
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(v), 10)
	}
	return string(b)
}

// planTasks lists the measurements that a degree's plan asks for, each once, in
// the order of runOrder. left gives the layers of a shot that are still wanted;
// a shot without any is no task.
func planTasks(plan *TPPlan, share bool, left func(c *CategoryPlan, i int) []string) []*task {
	type key struct{ scope, shape string }
	byKey := make(map[key]*task)
	tasks := []*task{}
	for order, category := range runOrder {
		c := plan.category(category)
		if c == nil {
			continue
		}
		for i := range c.Shots {
			shot := &c.Shots[i]
			layers := left(c, i)
			if len(layers) == 0 {
				continue
			}
			k := key{shape: shot.Shape()}
			if !share || !category.Shares() {
				k.scope = shotScope(shot)
			}
			t := byKey[k]
			if t == nil {
				t = &task{category: category, phase: order<<8 | shotPhase(shot), group: i, shot: *shot, scope: k.scope, shape: k.shape}
				if category == Skew {
					t.group = i / 3 // a case's three batches follow one another
				}
				byKey[k] = t
				tasks = append(tasks, t)
			}
			t.layers = union(t.layers, layers)
		}
	}
	return tasks
}

// wantedTasks are the plan's tasks but for what an earlier table answers.
func (r *runner) wantedTasks() []*task {
	d := r.degree
	d.imported = make(map[Category]int)
	return planTasks(&d.plan, r.PlanOptions.ShareRepeats, func(c *CategoryPlan, i int) []string {
		layers := r.notImported(&c.Shots[i], plannedLayers(c, i, r.Spec.Architecture))
		if len(layers) == 0 {
			d.imported[c.Category]++
		}
		return layers
	})
}

// makeTasks lists what the plan wants, or this run's shard of it, with what the
// journal holds of it, in the order in which it is measured.
func (r *runner) makeTasks() {
	d := r.degree
	d.tasks = r.wantedTasks()
	r.chooseAnchor() // the same for every shard
	if r.Shard.Count > 0 {
		d.tasks = ofShard(d.tasks, r.Shard, r.Costs)
		clear(d.imported) // no shard's own
	}
	sets := make(map[string]string)
	for _, t := range d.tasks {
		set := strings.Join(t.layers, ",")
		if s, ok := sets[set]; ok {
			set = s
		} else {
			sets[set] = set
		}
		t.layerSet = set
		r.count(t)
	}
	r.shuffle()
}

// notImported are the layers that no earlier table answers for this very shot.
func (r *runner) notImported(shot *Shot, layers []string) []string {
	d, x := r.degree, &r.journal.index
	if !x.imports {
		return layers
	}
	left := layers
	x.each(d.envs, d.tp, shotScope(shot), shot.Shape(), r.PlanOptions.ShareRepeats, func(s stored) {
		if s.Imported {
			left = slices.DeleteFunc(slices.Clone(left), func(name string) bool {
				return slices.ContainsFunc(s.Layers, func(l layerRecord) bool { return l.Layer == name })
			})
		}
	})
	return left
}

// category finds a category's plan; nil where the plan lacks it.
func (p *TPPlan) category(name Category) *CategoryPlan {
	for i := range p.Categories {
		if p.Categories[i].Category == name {
			return &p.Categories[i]
		}
	}
	return nil
}

func union(a, b []string) []string {
	if a == nil {
		a = slices.Sorted(slices.Values(b))
		return slices.Compact(a)
	}
	for _, v := range b {
		if i, ok := slices.BinarySearch(a, v); !ok {
			a = slices.Insert(slices.Clone(a), i, v)
		}
	}
	return a
}

// shotPhase sorts a category's shots: pure decode, pure prefill, then the rest.
func shotPhase(s *Shot) int {
	if s.Category != Attention {
		return 0
	}
	switch {
	case s.Point.PrefillChunk == 0:
		return 0
	case s.Point.NDecode == 0:
		return 1
	}
	return 2
}

// shuffle orders the tasks by phase, and within one at random, so that a drift
// of the device does not follow the shapes. The order depends on the seed and
// on the plan alone, not on what is measured already.
func (r *runner) shuffle() {
	d := r.degree
	rank := make([]uint64, len(d.tasks))
	position := make(map[*task]int, len(d.tasks))
	for i, t := range d.tasks {
		g := rand.NewPCG(uint64(r.Seed), uint64(t.phase)<<32|uint64(t.group))
		rank[i] = g.Uint64()
		position[t] = i
	}
	slices.SortStableFunc(d.tasks, func(a, b *task) int {
		switch i, j := position[a], position[b]; {
		case a.phase != b.phase:
			return a.phase - b.phase
		case rank[i] < rank[j]:
			return -1
		case rank[i] > rank[j]:
			return 1
		}
		return 0
	})
}

// count sees how much of the task the journal holds.
func (r *runner) count(t *task) {
	d, x := r.degree, &r.journal.index
	share := r.PlanOptions.ShareRepeats && t.category.Shares()
	samples := make([][]float64, len(t.layers))
	scope := t.scope
	if scope == "" {
		scope = shotScope(&t.shot)
	}
	x.each(d.envs, d.tp, scope, t.shape, share, func(s stored) {
		for i := range s.Layers {
			l := &s.Layers[i]
			if at, ok := slices.BinarySearch(t.layers, l.Layer); ok {
				samples[at] = append(samples[at], l.US...)
			}
		}
	})
	for _, env := range d.envs {
		f := x.failed[measureKey{env, d.tp, t.scope, t.shape}]
		t.infeasible = t.infeasible || f != nil && f.Status == Infeasible
	}
	t.have, t.wide = math.MaxInt, false
	for _, us := range samples {
		t.have = min(t.have, len(us))
		t.wide = t.wide || r.TargetError > 0 && wantsMore(us, r.TargetError)
	}
	if len(samples) == 0 {
		t.have = 0
	}
}

// missing is how many samples of the task to take next; 0: it is done.
func (r *runner) missing(t *task) int {
	switch {
	case t.aside || t.infeasible:
		return 0
	case t.have < r.Iterations:
		return r.Iterations - t.have
	case t.wide && t.have < r.MaxIterations:
		return min(r.Iterations, r.MaxIterations-t.have)
	}
	return 0
}

// chooseAnchor picks the shot that is repeated to see the device drift: one of
// the plan's own, so that every driver can answer it, of middling size.
func (r *runner) chooseAnchor() {
	d := r.degree
	if r.AnchorEvery < 0 || r.AnchorEvery == 0 && d.engine.Origin == Synthetic || len(d.tasks) == 0 {
		return
	}
	distance := func(t *task) float64 {
		s := &t.shot
		away := func(found, wanted int) float64 {
			return math.Abs(math.Log(float64(found+16) / float64(wanted+16)))
		}
		decodes, history := 0, 0
		for _, g := range s.Groups {
			if g.NewTokens == 1 {
				decodes += g.Count
				history = max(history, g.KVHistory)
			}
		}
		far := away(s.Tokens(), 576) + away(decodes, 64) + away(history, 1024)
		if t.category != Attention {
			far += 100 // another category only where the plan has no attention
		}
		return far
	}
	d.anchor = slices.MinFunc(d.tasks, func(a, b *task) int {
		switch x, y := distance(a), distance(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return strings.Compare(a.shape+a.scope, b.shape+b.scope)
	})
}

// anchorEvery is how many shots stand between two anchors.
func (r *runner) anchorEvery() int {
	switch {
	case r.degree.anchor == nil:
		return 1024
	case r.AnchorEvery > 0:
		return r.AnchorEvery
	}
	return 50
}

func (t *task) String() string { return fmt.Sprintf("%s %s", t.category, t.shape) }
