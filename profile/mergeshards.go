package profile

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MergeOptions say which shards to put together, and when not to. Dir is
// required.
type MergeOptions struct {
	Dir string // the bundle's folder, whose journal holds the shards' files
	// Limit is the share by which a shard's anchors may differ from the others';
	// 0: DefaultShardLimit. Negative: none.
	Limit float64
	// Partial lets tables be written that lack planned shots.
	Partial bool
	// Without names the journal's files that do not count, without the extension.
	Without []string
	Variant string // "": the plan's
	// Observe is told of what was passed over; nil: nobody is.
	Observe func(Event)
	Now     func() time.Time // for meta.yaml; nil: time.Now
}

// MergeReport is what a merge found.
type MergeReport struct {
	Dir        string
	Shards     []ShardReport // by file
	Shots      int           // planned measurements
	Missing    int           // of them, not measured
	Infeasible int           // of them, left out for good
	// MissingOf counts the missing by the shard whose they are, where all
	// shards are of one number.
	MissingOf map[Shard]int
	Wrote     bool
}

// ErrNoShards says that a bundle has no plan of shards.
var ErrNoShards = errors.New("there are no shards: found no plan of any in the journal")

// MissingShotsError says that shards are not through.
type MissingShotsError struct {
	Shots, Missing int
	Of             map[Shard]int // by shard, where that is known
}

func (e *MissingShotsError) Error() string {
	text := fmt.Sprintf("%d of %d shots are not measured", e.Missing, e.Shots)
	var of []string
	for _, s := range sortedShards(e.Of) {
		of = append(of, fmt.Sprintf("%v lacks %d", s, e.Of[s]))
	}
	if len(of) > 8 {
		of = append(of[:8], fmt.Sprintf("and %d more", len(of)-8))
	}
	if len(of) > 0 {
		text += ": " + strings.Join(of, ", ")
	}
	return text
}

func sortedShards(m map[Shard]int) []Shard {
	var list []Shard
	for s := range m {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Shard) int { return a.Index - b.Index })
	return list
}

// ShardsDifferError says that shards ran on devices that are not alike.
type ShardsDifferError struct {
	Limit  float64
	Shards []ShardReport // those beyond it
}

func (e *ShardsDifferError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d shards differ from the others by more than %.4g%%, by the anchor:", len(e.Shards), 100*e.Limit)
	for _, s := range e.Shards {
		fmt.Fprintf(&b, "\n  %s: %.4f times as long", s.File, s.Ratio)
		if s.Place != "" {
			fmt.Fprintf(&b, " (%s)", s.Place)
		}
	}
	return b.String()
}

// MergeShards makes a bundle's tables and meta.yaml of its shards' journals, as
// a run of the whole plan would have: with one reference for all anchors, so
// that a shard on a slower device is corrected like a slow hour of one device. It needs no engine
// and no driver. Nothing is written where shots are missing (a
// *MissingShotsError), shards differ too much (a *ShardsDifferError) or were
// measured in environments that do not go together (an *EnvironmentError). The
// report is there even with an error.
func MergeShards(opts MergeOptions) (report *MergeReport, err error) {
	report = &MergeReport{Dir: opts.Dir}
	if opts.Dir == "" {
		return report, errors.New("merge: Dir is required")
	}
	setDefault(&opts.Limit, DefaultShardLimit)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Observe == nil {
		opts.Observe = func(Event) {}
	}
	folder := filepath.Join(opts.Dir, JournalDir)
	plans, err := readShardPlans(folder, opts.Partial)
	if err != nil {
		return report, err
	}
	lock, err := AcquireLock(folder)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	m, err := openMerge(opts, folder, report)
	if err != nil {
		return report, err
	}
	var runs []*runner
	for _, plan := range plans {
		r, err := m.degree(plan)
		if err != nil {
			return report, err
		}
		runs = append(runs, r)
	}
	if err := m.judge(runs); err != nil {
		return report, err
	}
	for _, r := range runs {
		if err := r.write(); err != nil {
			return report, err
		}
	}
	report.Wrote = true
	return report, nil
}

// readShardPlans reads the plans of all degrees, ascending; where partial, of
// those that were begun.
func readShardPlans(folder string, partial bool) ([]*shardPlan, error) {
	var plans []*shardPlan
	for _, name := range shardPlanFiles(folder) {
		p, err := readShardPlan(name)
		if errors.Is(err, ErrDamagedPlan) {
			return nil, fmt.Errorf("%w\nany of the shards makes it anew when it is run once more; what is measured stays measured", err)
		}
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	if len(plans) == 0 {
		return nil, fmt.Errorf("%s: %w", folder, ErrNoShards)
	}
	slices.SortFunc(plans, func(a, b *shardPlan) int { return a.TP - b.TP })
	for _, p := range plans[1:] {
		if list := differences(plans[0].Settings, p.Settings); len(list) > 0 {
			return nil, &PlanDifferenceError{shardPlanPath(filepath.Dir(folder), p.TP), list}
		}
	}
	for _, tp := range plans[0].TPs {
		if !partial && !slices.ContainsFunc(plans, func(p *shardPlan) bool { return p.TP == tp }) {
			return nil, fmt.Errorf("%s: no shard has begun tp%d", folder, tp)
		}
	}
	return plans, nil
}

// merge is one MergeShards.
type merge struct {
	MergeOptions
	report  *MergeReport
	journal *Journal
	names   []string // the journal's files without folder and extension
}

func openMerge(opts MergeOptions, folder string, report *MergeReport) (*merge, error) {
	files, err := journalFiles(folder)
	if err != nil {
		return nil, err
	}
	m := &merge{MergeOptions: opts, report: report}
	nameOf := func(file string) string { return strings.TrimSuffix(filepath.Base(file), ".jsonl") }
	for _, name := range opts.Without {
		// A name that is mistaken would let in what is to stay out.
		if !slices.ContainsFunc(files, func(file string) bool { return nameOf(file) == name }) {
			return nil, fmt.Errorf("without: found %q, which is no file of %s", name, folder)
		}
	}
	var used []string
	for _, file := range files {
		if name := nameOf(file); !slices.Contains(opts.Without, name) {
			used = append(used, file)
			m.names = append(m.names, name)
		}
	}
	if m.journal, err = readJournal(used); err != nil {
		return nil, err
	}
	for _, d := range slices.Concat(m.journal.Torn, m.journal.Damages) {
		opts.Observe(Event{Kind: EventWarning, Message: fmt.Sprintf("%v: passed over; what it held counts as not measured", d)})
	}
	return m, nil
}

// degree prepares the tables of one degree, and counts what it lacks.
func (m *merge) degree(plan *shardPlan) (*runner, error) {
	engine, err := plan.engine()
	if err != nil {
		return nil, err
	}
	x := &m.journal.index
	env := environmentID(engine.Fingerprint)
	d := &degree{tp: plan.TP, engine: engine, env: env, envs: x.related(env), plan: plan.plan()}
	for id, fingerprint := range x.environments {
		if !slices.Contains(d.envs, id) && x.measuredUnder(id, d.tp) {
			return nil, &EnvironmentError{TP: d.tp, Differences: differences(engine.Fingerprint, fingerprint)}
		}
	}
	d.keepRows = !x.measuredElsewhere(d.envs, d.tp)
	r := &runner{
		RunOptions: RunOptions{
			Dir: m.Dir, Hardware: plan.Hardware, Variant: cmp.Or(m.Variant, plan.Variant), Spec: plan.Spec, TPs: plan.TPs,
			PlanOptions: plan.Options, PlanName: plan.PlanName, Costs: plan.Costs,
			Warmup: plan.Warmup, Iterations: plan.Iterations, MaxIterations: plan.MaxIterations, TargetError: plan.TargetError,
			DriftThreshold: plan.DriftThreshold, AnchorEvery: plan.AnchorEvery, SkipFit: plan.SkipFit,
			ProfilerVersion: plan.ProfilerVersion, Observe: m.Observe, Now: m.Now,
		},
		report: &Report{Dir: m.Dir}, journal: m.journal, began: time.Now(), description: plan.Driver, degree: d,
	}
	old, err := r.readBundle()
	if err != nil {
		return nil, err
	}
	if old.Meta != nil {
		if err := r.noteStatistic(old); err != nil {
			return nil, err
		}
	}
	r.makeTasks()
	m.count(r)
	return r, nil
}

// count adds the degree's shots to the report.
func (m *merge) count(r *runner) {
	tasks := r.degree.tasks
	lacking := make(map[string]bool)
	for _, t := range tasks {
		m.report.Shots++
		switch {
		case t.infeasible:
			m.report.Infeasible++
		case r.missing(t) > 0:
			m.report.Missing++
			lacking[t.scope+" "+t.shape] = true
		}
	}
	shards := 0
	for _, name := range m.names {
		if s, ok := shardOfFile(name); ok {
			if shards > 0 && s.Count != shards {
				return
			}
			shards = s.Count
		}
	}
	if shards == 0 || len(lacking) == 0 {
		return
	}
	// In the order that the shards were made in, which measuring has changed.
	whole := r.wantedTasks()
	of, _ := splitTasks(whole, shards, r.Costs)
	for i, t := range whole {
		if lacking[t.scope+" "+t.shape] {
			if m.report.MissingOf == nil {
				m.report.MissingOf = make(map[Shard]int)
			}
			m.report.MissingOf[Shard{of[i], shards}]++
		}
	}
}

// judge compares the shards, and says what keeps them from being put together.
func (m *merge) judge(runs []*runner) error {
	x := &m.journal.index
	m.report.Shards = make([]ShardReport, len(m.names))
	for i, name := range m.names {
		m.report.Shards[i] = ShardReport{File: name, Place: x.shard(i).place}
	}
	counts := func(rec *record) bool {
		return slices.ContainsFunc(runs, func(r *runner) bool { return r.degree.tp == rec.TP && slices.Contains(r.degree.envs, rec.Env) })
	}
	var anchors []*record
	var files []int
	for i, a := range x.anchors {
		if counts(a) {
			anchors = append(anchors, a)
			files = append(files, x.anchorFiles[i])
		}
	}
	for _, list := range x.shots {
		for _, s := range list {
			if counts(s.record) {
				m.report.Shards[s.block.shard].Shots++
			}
		}
	}
	shardRatios(m.report.Shards, anchors, files, m.Limit)
	var problems []error
	if m.report.Missing > 0 && !m.Partial {
		problems = append(problems, &MissingShotsError{m.report.Shots, m.report.Missing, m.report.MissingOf})
	}
	differ := &ShardsDifferError{Limit: m.Limit}
	for i := range m.report.Shards {
		s := &m.report.Shards[i]
		s.Beyond = s.Beyond && m.Limit >= 0
		if s.Beyond {
			differ.Shards = append(differ.Shards, *s)
		}
	}
	if len(differ.Shards) > 0 {
		problems = append(problems, differ)
	}
	for _, r := range runs {
		r.shards = m.report.Shards
	}
	return errors.Join(problems...)
}
