package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The size that shards are meant for.
const benchShards = 200

// benchPlan are options of a plan of 60,000 shots and more, of the two degrees
// that tests have.
func benchPlan(b *testing.B, d *fakeDevice) RunOptions {
	b.Helper()
	d.origin, d.batch = Measured, 256
	d.limits = Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16}
	opts := benchOptions(d, filepath.Join(b.TempDir(), "bundle"))
	opts.TPs = []int{1, 2}
	plan, err := PlanOptions{TPs: opts.TPs, ShareRepeats: true}.Filled()
	if err != nil {
		b.Fatal(err)
	}
	opts.PlanOptions = plan
	opts.Plan = func(tp int, e *Engine) (TPPlan, error) { return NewTPPlan(tp, e.Limits, testArchitecture, plan) }
	return opts
}

// BenchmarkSurveyShards is what profile campaign plan does for one bundle: plan,
// see what is measured, divide and estimate.
func BenchmarkSurveyShards(b *testing.B) {
	d := newFakeDevice()
	opts := benchPlan(b, d)
	opts.Costs = guessedCosts
	b.ReportAllocs()
	for b.Loop() {
		survey, err := NewSurvey(opts, func(int) (*Engine, error) { return &Engine{Limits: d.limits, Origin: Measured}, nil })
		if err != nil || survey.Left < 60_000 {
			b.Fatal(survey, err)
		}
		shards := survey.Shards(benchShards)
		least, most := shards[0].Seconds, shards[0].Seconds
		for _, s := range shards {
			least, most = min(least, s.Seconds), max(most, s.Seconds)
		}
		b.ReportMetric(float64(survey.Left), "shots")
		b.ReportMetric(most/least, "longest/shortest")
	}
}

// shardedJournal measures the plan alone and then deals its journal out to
// shards, as if each had measured its own.
func shardedJournal(b *testing.B, opts RunOptions) {
	b.Helper()
	opts.Shard = Shard{0, 1}
	report, err := runWithJournal(b.Context(), opts, func(*Journal) {})
	if err != nil || report.Partial() || report.Measured < 60_000 {
		b.Fatal(report, err)
	}
	folder := filepath.Join(opts.Dir, JournalDir)
	whole := filepath.Join(folder, Shard{0, 1}.JournalName()+".jsonl")
	text, err := os.ReadFile(whole)
	if err != nil {
		b.Fatal(err)
	}
	of := make(map[string]int)
	for _, tp := range opts.TPs {
		plan, err := readShardPlan(shardPlanPath(opts.Dir, tp))
		if err != nil {
			b.Fatal(err)
		}
		p := plan.plan()
		tasks := planTasks(&p, true, func(c *CategoryPlan, i int) []string { return plannedLayers(c, i, testArchitecture) })
		shards, _ := splitTasks(tasks, benchShards, plan.Costs)
		for i, t := range tasks {
			of[fmt.Sprint(tp, t.scope, " ", t.shape)] = shards[i]
		}
	}
	texts := make([][]byte, benchShards)
	anchors := 0
	for _, line := range splitLines(text) {
		r, err := parseRecord(line[:len(line)-1])
		if err != nil {
			b.Fatal(err)
		}
		switch r.Kind {
		case recordShot:
			i := of[fmt.Sprint(r.TP, r.Scope, " ", r.Shape)]
			texts[i] = append(texts[i], line...)
		case recordAnchor:
			texts[anchors%benchShards] = append(texts[anchors%benchShards], line...)
			anchors++
		default:
			for i := range texts {
				texts[i] = append(texts[i], line...)
			}
		}
	}
	if err := os.Remove(whole); err != nil {
		b.Fatal(err)
	}
	for i, text := range texts {
		name := filepath.Join(folder, Shard{i, benchShards}.JournalName()+".jsonl")
		if err := os.WriteFile(name, text, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMergeShards puts 200 shards of a 60,000-shot plan together: journals
// read, tables and fit made and written.
func BenchmarkMergeShards(b *testing.B) {
	opts := benchPlan(b, newFakeDevice())
	shardedJournal(b, opts)
	b.ReportAllocs()
	for b.Loop() {
		report, err := MergeShards(MergeOptions{Dir: opts.Dir})
		if err != nil || len(report.Shards) != benchShards {
			b.Fatal(err)
		}
		b.ReportMetric(float64(report.Shots), "shots")
	}
}

// BenchmarkShardThatIsThrough is what a job costs that has nothing left to do,
// beside 199 others' journals.
func BenchmarkShardThatIsThrough(b *testing.B) {
	opts := benchPlan(b, newFakeDevice())
	shardedJournal(b, opts)
	opts.Shard = Shard{7, benchShards}
	opts.Deadline = time.Second
	for b.Loop() {
		report, err := Run(b.Context(), opts)
		if err != nil || report.Measured > 0 || report.Boots > 0 || report.Reused == 0 {
			b.Fatal(report, err)
		}
	}
}
