package profile

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
)

func TestParseShard(t *testing.T) {
	for _, test := range []struct {
		text string
		want Shard
		err  string
	}{
		{"0/1", Shard{0, 1}, ""}, {"3/12", Shard{3, 12}, ""}, {"12/12", Shard{0, 12}, ""},
		{"13/12", Shard{}, "expected 0 to 11"}, {"-1/12", Shard{}, "expected 0 to 11"}, {"0/0", Shard{}, "one or more"},
		{"3", Shard{}, "expected i/n"}, {"a/b", Shard{}, "expected i/n"}, {"1/1000000", Shard{}, "at most 100000"}, {"", Shard{}, "expected i/n"},
	} {
		got, err := ParseShard(test.text)
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: %v, %v, expected %v, %q", test.text, got, err, test.want, test.err)
		}
	}
	for _, s := range []Shard{{0, 1}, {7, 200}, {99_999, 100_000}} {
		if got, ok := shardOfFile("x/" + s.JournalName() + ".jsonl"); !ok || got != s {
			t.Errorf("%v: the file %s is read as %v, %v", s, s.JournalName(), got, ok)
		}
	}
	for _, name := range []string{"shots.jsonl", "shard-1-of-2.jsonl", "shard-0001-of-0002-x.jsonl", "shard-0003-of-0002.jsonl"} {
		if got, ok := shardOfFile(name); ok {
			t.Errorf("%s is read as %v", name, got)
		}
	}
}

// testTasks are those of a plan with all kinds of shots.
func testTasks(t testing.TB, share bool) []*task {
	t.Helper()
	limits := Limits{MaxNumBatchedTokens: 512, MaxNumSeqs: 64, BlockSize: 16}
	plan, err := NewTPPlan(1, limits, testArchitecture, PlanOptions{MaxKV: 4096, RandomBatches: 20, ValidationBatches: 20})
	if err != nil {
		t.Fatal(err)
	}
	return planTasks(&plan, share, func(c *CategoryPlan, i int) []string { return plannedLayers(c, i, testArchitecture) })
}

// Each task is in one shard, a case's batches are in the same, and no shard has
// more of a phase, nor of all, than the longest piece over its due.
func TestSplit(t *testing.T) {
	for _, share := range []bool{true, false} {
		tasks := testTasks(t, share)
		for _, count := range []int{1, 2, 7, 64, 3000} {
			shards, seconds := splitTasks(tasks, count, guessedCosts)
			again, _ := splitTasks(testTasks(t, share), count, guessedCosts)
			if !slices.Equal(shards, again) {
				t.Fatalf("%d shards: a second split differs", count)
			}
			total, longest, sum := 0.0, 0.0, make([]float64, count)
			piece := make(map[string]float64)
			home := make(map[string]int)
			for i, task := range tasks {
				s := guessedCosts.Shot(&task.shot, splitRuns)
				total += s
				sum[shards[i]] += s
				key := fmt.Sprint(task.phase, " ", task.group)
				piece[key] += s
				longest = max(longest, piece[key])
				if at, ok := home[key]; ok && at != shards[i] {
					t.Fatalf("%d shards: %v is torn apart", count, task)
				}
				home[key] = shards[i]
			}
			for i := range sum {
				if math.Abs(sum[i]-seconds[i]) > 1e-9*total {
					t.Errorf("%d shards: shard %d has %v s, said to be %v", count, i, sum[i], seconds[i])
				}
				if sum[i] > total/float64(count)+longest {
					t.Errorf("%d shards: shard %d has %v s of %v, the longest piece is %v", count, i, sum[i], total, longest)
				}
			}
		}
	}
}

// bundleText is tables with meta.yaml, less what two runs cannot have in common.
func bundleText(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := tables(t, dir)
	text, err := os.ReadFile(filepath.Join(dir, "meta.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	block := ""
	files["meta.yaml"] = strings.Join(slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		if !strings.HasPrefix(line, " ") {
			block, _, _ = strings.Cut(line, ":")
		}
		return block == "telemetry" || block == "profiled_at"
	}), "\n")
	return files
}

// shardOptions are of one shard on its own device.
func shardOptions(t *testing.T, d *fakeDevice, dir string, i, n int) RunOptions {
	opts := testOptions(t, d, dir)
	opts.TPs = []int{1, 2}
	opts.PlanOptions.TPs = opts.TPs
	opts.PlanOptions.RandomBatches, opts.PlanOptions.ValidationBatches = 10, 10
	options := opts.PlanOptions
	opts.Plan = func(tp int, e *Engine) (TPPlan, error) { return NewTPPlan(tp, e.Limits, testArchitecture, options) }
	opts.TargetError = -1
	if n > 0 {
		opts.Shard, opts.Place = Shard{i, n}, fmt.Sprintf("node%d", i)
	}
	return opts
}

func TestShardsAreTheWhole(t *testing.T) {
	whole, dir := t.TempDir(), t.TempDir()
	all := mustRun(t, shardOptions(t, newFakeDevice(), whole, 0, 0))
	const n = 5
	measured := 0
	for i := range n {
		report := mustRun(t, shardOptions(t, newFakeDevice(), dir, i, n))
		measured += report.Measured
		if report.Partial() || report.Reused != 0 || report.Measured < all.Measured/n/2 {
			t.Errorf("shard %d: %+v", i, report)
		}
		_, err := MergeShards(MergeOptions{Dir: dir})
		var missing *MissingShotsError
		if last := i == n-1; last != (err == nil) || !last && (!errors.As(err, &missing) || len(missing.Of) != n-1-i) {
			t.Errorf("merge after shard %d: %v", i, err)
		}
	}
	if measured != all.Measured {
		t.Errorf("the shards measured %d shots, expected %d", measured, all.Measured)
	}
	sameTables(t, bundleText(t, dir), bundleText(t, whole))
	report, err := MergeShards(MergeOptions{Dir: dir})
	if err != nil || report.Missing != 0 || report.Shots != all.Measured || len(report.Shards) != n {
		t.Errorf("%+v, %v", report, err)
	}
	for i, s := range report.Shards {
		if s.Anchors < 4 || s.Ratio != 1 || s.Place != fmt.Sprintf("node%d", i) {
			t.Errorf("%+v", s)
		}
	}

	// Started again, a shard boots nothing; the whole plan measures nothing.
	d := newFakeDevice()
	again := mustRun(t, shardOptions(t, d, dir, 3, n))
	if d.opened != 0 || again.Measured != 0 || again.Reused == 0 || again.Partial() {
		t.Errorf("a shard that is through: %+v, %d drivers opened", again, d.opened)
	}
	if again := mustRun(t, shardOptions(t, d, dir, 0, 0)); again.Measured != 0 || again.Reused != all.Measured {
		t.Errorf("the whole after its shards: %+v", again)
	}
	sameTables(t, bundleText(t, dir), bundleText(t, whole))
}

// A shard on a slower device is seen, and corrected where it is let in.
func TestShardRatios(t *testing.T) {
	whole, dir := t.TempDir(), t.TempDir()
	mustRun(t, shardOptions(t, newFakeDevice(), whole, 0, 0))
	for i := range 4 {
		d := newFakeDevice()
		if i == 2 {
			d.slow = func(int) float64 { return 1.08 }
		}
		mustRun(t, shardOptions(t, d, dir, i, 4))
	}
	report, err := MergeShards(MergeOptions{Dir: dir})
	var differ *ShardsDifferError
	if !errors.As(err, &differ) || len(differ.Shards) != 1 || differ.Shards[0].Place != "node2" || report.Wrote {
		t.Fatalf("%v, %+v", err, report)
	}
	for i, s := range report.Shards {
		if want := map[bool]float64{true: 1.08, false: 1}[i == 2]; math.Abs(s.Ratio-want) > 1e-9 || s.Beyond != (i == 2) {
			t.Errorf("%+v, expected a ratio of %v", s, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "meta.yaml")); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
	if _, err := MergeShards(MergeOptions{Dir: dir, Limit: 0.1}); err != nil {
		t.Fatal(err)
	}
	got, want := tables(t, dir), bundleText(t, whole)
	for _, name := range []string{"tp1/attention.csv", "tp2/dense.csv"} {
		if got[name] != want[name] { // 1.08*x/1.08 is x in six digits
			t.Errorf("%s is not corrected", name)
		}
	}
	// With its file moved away, another device measures it anew.
	file := filepath.Join(dir, JournalDir, "shard-0002-of-0004.jsonl")
	aside := filepath.Join(t.TempDir(), "aside.jsonl")
	if err := os.Rename(file, aside); err != nil {
		t.Fatal(err)
	}
	mustRun(t, shardOptions(t, newFakeDevice(), dir, 2, 4))
	if _, err := MergeShards(MergeOptions{Dir: dir}); err != nil {
		t.Error(err)
	}
	sameTables(t, bundleText(t, dir), want)
	if err := os.Rename(aside, file); err != nil {
		t.Fatal(err)
	}
	// Kept apart, its shots are missing and nothing else.
	report, err = MergeShards(MergeOptions{Dir: dir, Without: []string{"shard-0002-of-0004"}})
	var missing *MissingShotsError
	if !errors.As(err, &missing) || errors.As(err, &differ) && len(differ.Shards) > 1 || len(missing.Of) != 1 || missing.Of[Shard{2, 4}] == 0 {
		t.Errorf("%v, %+v", err, report)
	}
}

// Shards whose engines report other limits keep to the first one's plan; other
// settings are refused.
func TestShardsKeepToOnePlan(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, shardOptions(t, newFakeDevice(), dir, 0, 2))
	d := newFakeDevice()
	d.limits.CacheTokens = 1 << 20
	d.limits.MaxModelLen = 2048
	mustRun(t, shardOptions(t, d, dir, 1, 2))
	if _, err := MergeShards(MergeOptions{Dir: dir}); err != nil {
		t.Error(err)
	}
	opts := shardOptions(t, newFakeDevice(), dir, 1, 2)
	opts.PlanOptions.MaxKV = 128
	_, err := Run(t.Context(), opts)
	var differ *PlanDifferenceError
	if !errors.As(err, &differ) || !slices.Equal(differ.Differences, []Difference{{"attention-max-kv", "256", "128"}}) {
		t.Errorf("%v", err)
	}
}

// What a crashed machine left of the plan is found by its checksum; a shard
// plans anew, a merge refuses.
func TestDamagedShardPlan(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, shardOptions(t, newFakeDevice(), dir, 0, 2))
	path := shardPlanPath(dir, 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), `"n_decode"`)
	if at < 0 {
		at = strings.Index(string(whole), "NDecode") + len(`NDecode":`)
	}
	changed := []byte(string(whole))
	changed[at] ^= 1
	for name, text := range map[string][]byte{"cut": whole[:len(whole)/2], "empty": {}, "zeros": make([]byte, len(whole)), "changed": changed} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := MergeShards(MergeOptions{Dir: dir}); !errors.Is(err, ErrDamagedPlan) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: merge: %v", name, err)
		}
		if report := mustRun(t, shardOptions(t, newFakeDevice(), dir, 0, 2)); report.Measured != 0 || report.Reused == 0 {
			t.Errorf("%s: %+v", name, report)
		}
		if got, _ := os.ReadFile(path); string(got) != string(whole) {
			t.Errorf("%s: the plan is not the one that was", name)
		}
	}
}

// Shards that begin at one moment agree on one plan.
func TestShardsAtOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 6
	errs := make(chan error, n)
	for i := range n {
		opts := shardOptions(t, newFakeDevice(), dir, i, n)
		opts.Observe = nil
		go func() {
			_, err := Run(t.Context(), opts)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if report, err := MergeShards(MergeOptions{Dir: dir}); err != nil || report.Missing != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	whole := t.TempDir()
	mustRun(t, shardOptions(t, newFakeDevice(), whole, 0, 0))
	sameTables(t, bundleText(t, dir), bundleText(t, whole))
	leftover, _ := filepath.Glob(filepath.Join(dir, JournalDir, "*.tmp"))
	locks, _ := filepath.Glob(filepath.Join(dir, JournalDir, "*lock*"))
	if len(leftover)+len(locks) > 0 {
		t.Errorf("left behind: %v %v", leftover, locks)
	}
}

// Two runs of one shard keep each other out, two of different shards do not.
func TestShardLocks(t *testing.T) {
	dir := t.TempDir()
	lock, err := acquireLock(filepath.Join(dir, JournalDir), lockName(Shard{1, 3}), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	_, err = Run(t.Context(), shardOptions(t, newFakeDevice(), dir, 1, 3))
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Errorf("a second run of the shard: %v", err)
	}
	mustRun(t, shardOptions(t, newFakeDevice(), dir, 2, 3))
}

// Shards that began at one moment in environments that do not go together are
// told apart by the merge.
func TestShardsOfOtherEnvironments(t *testing.T) {
	a, b, out := t.TempDir(), t.TempDir(), t.TempDir()
	mustRun(t, shardOptions(t, newFakeDevice(), a, 0, 2))
	other := newFakeDevice()
	other.fingerprint = map[string]string{"driver": "fake", "gpu": "FAKE-2"}
	mustRun(t, shardOptions(t, other, b, 1, 2))
	if err := GatherShards(out, []string{a, b}); err != nil {
		t.Fatal(err)
	}
	_, err := MergeShards(MergeOptions{Dir: out})
	var environment *EnvironmentError
	if !errors.As(err, &environment) || !slices.Equal(environment.Differences, []Difference{{"gpu", "FAKE-1", "FAKE-2"}}) {
		t.Errorf("%v", err)
	}
	// One that sees another's journal is stopped before it measures.
	if _, err := Run(t.Context(), shardOptions(t, other, a, 1, 2)); !errors.As(err, &environment) {
		t.Errorf("%v", err)
	}
	// Accepted, they go together.
	opts := shardOptions(t, other, a, 1, 2)
	opts.OnChange = KeepOnChange
	mustRun(t, opts)
	if report, err := MergeShards(MergeOptions{Dir: a}); err != nil || report.Missing != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A shard whose machine was cut off, and whose lock another one has taken, ends.
func TestShardThatLostItsLock(t *testing.T) {
	dir := t.TempDir()
	d := newFakeDevice()
	opts := shardOptions(t, d, dir, 0, 2)
	path := filepath.Join(dir, JournalDir, lockName(opts.Shard))
	var taken sync.Once
	d.sample = func(us float64, shot, _ int) float64 {
		if shot > 50 {
			taken.Do(func() { takeLock(t, path) })
			time.Sleep(10 * time.Millisecond)
		}
		return us
	}
	report, err := Run(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "taken away") || !report.Stopped {
		t.Errorf("%+v, %v", report, err)
	}
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
	d.sample = nil
	if again := mustRun(t, opts); again.Measured == 0 || again.Reused < 50 {
		t.Errorf("%+v", again)
	}
}

// A run that ends before it looks at what was measured does not say that it was
// nothing.
func TestEndedBeforeItLooked(t *testing.T) {
	run := func(opts RunOptions) *Report {
		t.Helper()
		report, err := Run(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	for _, n := range []int{0, 2} {
		dir, d := t.TempDir(), newFakeDevice()
		opts := shardOptions(t, d, dir, 0, n)
		stop := make(chan struct{})
		opts.Stop = stop
		var once sync.Once
		d.sample = func(us float64, shot, _ int) float64 {
			if shot > 50 {
				once.Do(func() { close(stop) })
			}
			return us
		}
		if report := run(opts); report.Measured == 0 || !report.Stopped || report.Unbegun {
			t.Errorf("%d shards: %+v", n, report)
		}
		if report := run(opts); report.Measured != 0 || !report.Stopped || !report.Unbegun {
			t.Errorf("%d shards, stopped at once: %+v", n, report)
		}
		opts.Stop = nil
		if report := run(opts); report.Reused == 0 || report.Unbegun {
			t.Errorf("%d shards, to the end: %+v", n, report)
		}
	}
}

// What is left is estimated by the pace of what was measured.
func TestSurvey(t *testing.T) {
	dir, d := t.TempDir(), newFakeDevice()
	limits := func(int) (*Engine, error) { return &Engine{Limits: d.limits, Origin: Measured}, nil }
	survey := func() *Survey {
		t.Helper()
		opts := shardOptions(t, d, dir, 0, 0)
		opts.Costs = guessedCosts
		s, err := NewSurvey(opts, limits)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := survey()
	if before.Left != before.Shots || before.Left == 0 || before.Paced || before.Begun != 0 || before.Seconds != before.LeftSeconds {
		t.Errorf("%+v", before)
	}
	opts := shardOptions(t, d, dir, 1, 3)
	clock := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	opts.Now = func() time.Time {
		clock = clock.Add(500 * time.Millisecond)
		return clock
	}
	mustRun(t, opts)
	after := survey()
	shards := after.Shards(3)
	if after.Begun != 3 || !after.Paced || after.Shots != before.Shots || shards[1].Left != 0 || shards[0].Left != shards[0].Shots ||
		after.Left != shards[0].Shots+shards[2].Shots {
		t.Errorf("%+v, %+v", after, shards)
	}
	for _, s := range []ShardSurvey{shards[0], shards[2]} {
		boots := 2 * after.Costs.BootSeconds
		// A little more than half a second each, for the anchors and the records of
		// the categories between.
		if each := (s.Seconds - boots) / float64(s.Left); each < 0.5 || each > 0.6 {
			t.Errorf("%v s a shot: %+v", each, s)
		}
	}
}

// Noise and a slower device together: what the merge corrects is the device, up
// to the anchors' own noise.
func TestShardCorrection(t *testing.T) {
	errorsOf := func(slow float64) (p50, p90, ratio float64) {
		dir := t.TempDir()
		for i := range 4 {
			d, random := newFakeDevice(), rand.New(rand.NewPCG(5, uint64(i)))
			factor := 1.0
			if i == 2 {
				factor = slow
			}
			d.sample = func(us float64, _, _ int) float64 { return us * factor * (1 + 0.003*random.NormFloat64()) }
			opts := shardOptions(t, d, dir, i, 4)
			opts.Observe, opts.AnchorEvery = nil, 10
			mustRun(t, opts)
		}
		report, err := MergeShards(MergeOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		var list []float64
		for _, row := range bundle.TPs[0].Attention {
			shot := attentionShot(AttentionPoint{row.PrefillChunk, row.KVPrefill, row.NDecode, row.KVDecode}, EngineOrder)
			list = append(list, math.Abs(row.TimeUS/fakeTime(shot.Shape(), "attention")-1))
		}
		slices.Sort(list)
		return list[len(list)/2], list[len(list)*9/10], report.Shards[2].Ratio
	}
	p50, p90, _ := errorsOf(1)
	slow50, slow90, ratio := errorsOf(1.03)
	t.Logf("errors p50/p90: %.2f/%.2f%% on equal devices, %.2f/%.2f%% with a shard on a device 3%% slower, found %.4f", 100*p50, 100*p90, 100*slow50, 100*slow90, ratio)
	if slow90 > p90+0.003 || math.Abs(ratio-1.03) > 0.003 {
		t.Error("the slower device is left in the tables")
	}
}
