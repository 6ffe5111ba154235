package lint

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// planted is a fault in the clean bundle; sizes go from coarse to fine, all of
// which must be found, and harmless is one that a sound bundle may show.
type planted struct {
	rule     string
	sizes    [3]float64
	harmless float64
	plant    func(b *perfio.Bundle, size float64)
}

func set(b *perfio.Bundle, value any, path ...string) {
	if err := b.Meta.Set(value, path...); err != nil {
		panic(err)
	}
}

// dense scales rows of a layer.
func dense(b *perfio.Bundle, tp int, layer string, by float64, from, to int) {
	for i := range b.TPs[tp-1].Dense {
		if r := &b.TPs[tp-1].Dense[i]; r.Layer == layer && r.Tokens >= from && r.Tokens <= to {
			r.TimeUS *= by
		}
	}
}

func grid(b *perfio.Bundle, by float64, which func(r *perfio.AttentionRow) bool) {
	for i := range b.TPs[0].Attention {
		if r := &b.TPs[0].Attention[i]; which(r) {
			r.TimeUS *= by
		}
	}
}

func skewTimes(b *perfio.Bundle, by float64) {
	for i := range b.TPs[0].Skew {
		r := &b.TPs[0].Skew[i]
		r.TMeanUS, r.TMaxUS, r.TSkewUS = by*r.TMeanUS, by*r.TMaxUS, by*r.TSkewUS
	}
}

var faults = []planted{
	{"falling", [3]float64{10, 4, 2.6}, 1.6, func(b *perfio.Bundle, size float64) { dense(b, 1, "qkv_proj", 1/size, 257, 512) }},
	{"spike", [3]float64{10, 4, 2.4}, 1.8, func(b *perfio.Bundle, size float64) { dense(b, 1, "rotary_emb", size, 128, 128) }},
	{"spike", [3]float64{10, 4, 2.4}, 1.3, func(b *perfio.Bundle, size float64) { dense(b, 2, "down_proj", 1/size, 256, 256) }},
	{"plateau", [3]float64{30, 15, 8}, 5, func(b *perfio.Bundle, size float64) {
		list := b.TPs[0].Dense
		for i := 1; i < int(size); i++ {
			list[i].TimeUS = list[0].TimeUS
		}
	}},
	{"plateau", [3]float64{12, 8, 5}, 3, func(b *perfio.Bundle, size float64) {
		var line []*perfio.AttentionRow
		for i := range b.TPs[0].Attention {
			if r := &b.TPs[0].Attention[i]; r.PrefillChunk == 0 && r.NDecode == 4 {
				line = append(line, r)
			}
		}
		for _, r := range line[:int(size)] {
			r.TimeUS = line[0].TimeUS
		}
	}},
	{"attention-falling", [3]float64{20, 8, 4}, 1.5, func(b *perfio.Bundle, size float64) {
		grid(b, 1/size, func(r *perfio.AttentionRow) bool { return r.NDecode == 64 && r.KVDecode >= 2048 })
	}},
	{"attention-spike", [3]float64{5, 2, 1.9}, 1.1, func(b *perfio.Bundle, size float64) {
		grid(b, size, func(r *perfio.AttentionRow) bool {
			return r.PrefillChunk == 64 && r.KVPrefill == 512 && r.NDecode == 4 && r.KVDecode == 128
		})
	}},
	{"attention-spike", [3]float64{10, 4, 3}, 1.2, func(b *perfio.Bundle, size float64) {
		grid(b, 1/size, func(r *perfio.AttentionRow) bool {
			return r.PrefillChunk == 256 && r.KVPrefill == 512 && r.NDecode == 16 && r.KVDecode == 1024
		})
	}},
	{"merged-grids", [3]float64{1.5, 1.1, 1.05}, 1.02, func(b *perfio.Bundle, size float64) {
		grid(b, size, func(r *perfio.AttentionRow) bool { return r.KVDecode%3 == 0 && r.KVDecode > 0 })
	}},
	{"moe-falling", [3]float64{5, 3, 1.9}, 1.0, func(b *perfio.Bundle, size float64) {
		for i := range b.TPs[0].MoE {
			if r := &b.TPs[0].MoE[i]; r.ActivatedExperts == 64 {
				r.TimeUS /= size
			}
		}
	}},
	{"t-max-below-mean", [3]float64{0.2, 0.4, 0.58}, 0.75, func(b *perfio.Bundle, size float64) {
		r := &b.TPs[0].Skew[11]
		r.TMaxUS = size * r.TMeanUS
	}},
	{"t-max-below-mean", [3]float64{42, 20, 5}, 1, func(b *perfio.Bundle, size float64) { // columns swapped in so many rows
		n := 0
		for i := range b.TPs[0].Skew {
			if r := &b.TPs[0].Skew[i]; n < int(size) && r.TMaxUS < 1.6*r.TMeanUS && r.TMaxUS > 1.04*r.TMeanUS {
				r.TMeanUS, r.TMaxUS = r.TMaxUS, r.TMeanUS
				n++
			}
		}
	}},
	{"skew-statistic", [3]float64{10, 3, 2}, 1.03, skewTimes},
	{"sweep-offset", [3]float64{1.3, 1.1, 1.06}, 1.02, skewTimes},
	{"few-samples", [3]float64{735, 20, 3.5}, 2, func(b *perfio.Bundle, size float64) { b.TPs[1].SkewFit[0].Alpha = -size }},
	{"stale-fit", [3]float64{20, 3, 1}, 0, func(b *perfio.Bundle, size float64) {
		n := 0
		b.TPs[0].Skew = slices.DeleteFunc(b.TPs[0].Skew, func(r perfio.SkewRow) bool {
			n++
			return r.HasAlpha && n > len(b.TPs[0].Skew)-2*int(size)-6 && n%2 == 0 && size > 0
		})
	}},
	{"too-fast", [3]float64{0.01, 0.3, 0.8}, 1.01, func(b *perfio.Bundle, size float64) {
		for i := range b.TPs[0].Dense {
			if r := &b.TPs[0].Dense[i]; r.Layer == "gate_up_proj" && r.Tokens == 512 {
				r.TimeUS = size * 2 * 512 * 4096 * 28672 / 989.4e6
			}
		}
	}},
	{"units", [3]float64{1000, 300, 50}, 2, func(b *perfio.Bundle, size float64) { dense(b, 2, "down_proj", size, 1, 512) }},
	{"units", [3]float64{1e5, 1000, 400}, 2, func(b *perfio.Bundle, size float64) { dense(b, 1, "act_fn", size, 1, 512) }},
	{"units", [3]float64{1e5, 1000, 500}, 1, func(b *perfio.Bundle, size float64) { dense(b, 1, "gate_up_proj", 1/size, 1, 512) }},
	{"tp-copies", [3]float64{1.5, 1.05, 1.0001}, 1, func(b *perfio.Bundle, size float64) { dense(b, 2, "layernorm", size, 128, 128) }},
	{"tp-slower", [3]float64{4, 2.6, 2.3}, 2, func(b *perfio.Bundle, size float64) { dense(b, 2, "o_proj", size, 1, 512) }},
	{"tp-identical", [3]float64{3, 2, 1}, 0, func(b *perfio.Bundle, size float64) {
		for i, r := range b.TPs[0].Dense {
			if slices.Index([]string{"qkv_proj", "o_proj", "down_proj"}[:int(size)], r.Layer) >= 0 {
				b.TPs[1].Dense[i] = r
			}
		}
	}},
	{"tp-collectives", [3]float64{3, 2, 1}, 0, func(b *perfio.Bundle, size float64) {
		b.TPs[1].Collectives = nil
		for i := range int(size) {
			b.TPs[1].Collectives = append(b.TPs[1].Collectives, perfio.CollectiveRow{
				Layer: "o_proj", Collective: "all_reduce", Tokens: i + 1, Ranks: 2, Calls: 1, TimeUS: 5,
			})
		}
	}},
	{"step-device", [3]float64{0.1, 0.6, 0.97}, 1, func(b *perfio.Bundle, size float64) {
		r := aStep(b, perfio.ModeGraphSync)
		lasting(r, size*(r.DeviceWaitUS+r.DeviceForwardUS+r.DeviceAfterUS))
	}},
	{"step-device", [3]float64{0.3, 0.7, 0.92}, 1, func(b *perfio.Bundle, size float64) {
		for i := range b.TPs[0].Steps {
			if r := &b.TPs[0].Steps[i]; r.Mode == perfio.ModeGraphAsync {
				lasting(r, size*r.StepUS)
			}
		}
	}},
	{"step-kernels", [3]float64{0.1, 0.4, 0.75}, 1, func(b *perfio.Bundle, size float64) { // with no clock of the device
		r := aStep(b, perfio.ModeEagerSync)
		lasting(r, size*r.DeviceForwardUS)
		r.DeviceWaitUS, r.DeviceForwardUS, r.DeviceAfterUS = math.NaN(), math.NaN(), math.NaN()
	}},
	{"step-kernels", [3]float64{0.1, 0.4, 0.65}, 0.9, func(b *perfio.Bundle, size float64) { aStep(b, perfio.ModeGraphAsync).DeviceForwardUS *= size }},
	{"step-parts", [3]float64{10, 1.5, 1.02}, 1.005, func(b *perfio.Bundle, size float64) { aStep(b, perfio.ModeGraphAsync).StepUS *= size }},
	{"step-meta", [3]float64{3, 2, 1}, 0, func(b *perfio.Bundle, size float64) {
		for _, mode := range []string{perfio.ModeGraphSync, perfio.ModeEagerSync, perfio.ModeGraphAsync}[:int(size)] {
			b.Meta.Delete("steps", "per_tp", "1", mode)
		}
	}},
	{"step-meta", [3]float64{60, 10, 1}, 0, func(b *perfio.Bundle, size float64) { // so many rows lost
		b.TPs[0].Steps = b.TPs[0].Steps[int(size):]
	}},
	{"coverage", [3]float64{8192, 1024, 513}, 512, func(b *perfio.Bundle, size float64) {
		set(b, int(size), "engine_effective", "max_num_batched_tokens")
	}},
	{"coverage", [3]float64{4096, 128, 65}, 64, func(b *perfio.Bundle, size float64) {
		set(b, int(size), "engine_effective", "max_num_seqs")
	}},
	{"missing-layer", [3]float64{5, 2, 1}, 0, func(b *perfio.Bundle, size float64) {
		gone := []string{"qkv_proj", "o_proj", "down_proj", "act_fn", "layernorm"}[:int(size)]
		b.TPs[0].Dense = slices.DeleteFunc(b.TPs[0].Dense, func(r perfio.DenseRow) bool { return slices.Contains(gone, r.Layer) })
	}},
	{"drift", [3]float64{2, 1.3, 1.1}, 1.02, func(b *perfio.Bundle, size float64) { set(b, size, "telemetry", "anchors", "slowest") }},
	{"meta-folder", [3]float64{3, 2, 1}, 0, func(b *perfio.Bundle, size float64) { // by so many letters
		if size > 0 {
			set(b, "bf16"+strings.Repeat("x", int(size)), "variant")
		}
	}},
}

// aStep is a step of decodes alone.
func aStep(b *perfio.Bundle, mode string) *perfio.StepRow {
	rows := b.TPs[0].Steps
	return &rows[slices.IndexFunc(rows, func(r perfio.StepRow) bool { return r.Mode == mode && r.NDecode == 20 })]
}

// lasting gives a step another time, which its parts make up.
func lasting(r *perfio.StepRow, us float64) {
	r.SampleUS += us - r.StepUS
	r.StepUS = us
}

// least narrows down the smallest size that is found, between one that is and
// the harmless one, which is not.
func (f *planted) least(t *testing.T, found float64) float64 {
	t.Helper()
	missed := f.harmless
	for range 8 {
		middle := (found + missed) / 2
		b := cleanBundle(t)
		f.plant(b, middle)
		if slices.Contains(rulesOf(Check(b)), f.rule) {
			found = middle
		} else {
			missed = middle
		}
	}
	return found
}

func rulesOf(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		if !slices.Contains(out, f.Rule) {
			out = append(out, f.Rule)
		}
	}
	return out
}

func TestPlantedFaults(t *testing.T) {
	kinds := map[string]bool{}
	for i := range faults {
		fault := &faults[i]
		kinds[fault.rule] = true
		smallest := math.NaN()
		for _, size := range fault.sizes {
			b := cleanBundle(t)
			fault.plant(b, size)
			findings := Check(b)
			if slices.Contains(rulesOf(findings), fault.rule) {
				smallest = size
			} else {
				t.Errorf("%s of size %g was not found, but %v", fault.rule, size, rulesOf(findings))
			}
			for _, f := range findings {
				if len(f.Places) == 0 || f.Reason == "" || len(f.Places) > MaxPlaces || !strings.HasPrefix(f.Places[0].File, b.Dir+"/") {
					t.Errorf("%+v", f)
				}
			}
		}
		b := cleanBundle(t)
		fault.plant(b, fault.harmless)
		if got := rulesOf(Check(b)); slices.Contains(got, fault.rule) {
			t.Errorf("%s of size %g is harmless and was found", fault.rule, fault.harmless)
		}
		least := fault.least(t, smallest)
		t.Logf("%-18s found at sizes %v, from about %.4g on; not at %g", fault.rule, fault.sizes, least, fault.harmless)
	}
	for _, rule := range Rules() {
		if !kinds[rule.Name] {
			t.Errorf("no fault is planted for %s", rule.Name)
		}
	}
	for name := range figures {
		if !kinds[name] && name != Synthetic.Name {
			t.Errorf("a figure is named for %s, which is no rule", name)
		}
	}
	t.Logf("%d rules", len(kinds))
}

// The rows that a finding names are those that were planted.
func TestPlaces(t *testing.T) {
	b := cleanBundle(t)
	row := slices.IndexFunc(b.TPs[0].Dense, func(r perfio.DenseRow) bool { return r.Layer == "rotary_emb" && r.Tokens == 128 })
	b.TPs[0].Dense[row].TimeUS *= 5
	got := Check(b)
	if len(got) != 1 || got[0].Rows != 1 || got[0].Places[0] != (Place{b.Dir + "/tp1/dense.csv", row + 2}) ||
		!strings.Contains(got[0].Again, "--only dense") || !strings.Contains(got[0].Reason, "tokens 128") {
		t.Errorf("%+v", got)
	}
}

// Without a shape that both files hold, and with nothing in meta.yaml, nobody
// knows whether skew.csv holds sums.
func TestUnknownStatistic(t *testing.T) {
	for want, plant := range map[string]func(b *perfio.Bundle){
		"meta.yaml does not say": func(b *perfio.Bundle) {
			b.Meta.Delete("skew_statistic")
			b.Meta.Delete("measurement_iterations")
			for i := range b.TPs[0].Skew {
				b.TPs[0].Skew[i].KP += 100_000
			}
		},
		"meta.yaml says 3": func(b *perfio.Bundle) { // and the rows are means
			b.Meta.Delete("skew_statistic")
			for i := range b.TPs[0].Skew {
				b.TPs[0].Skew[i].KVBig++
			}
		},
	} {
		b := cleanBundle(t)
		plant(b)
		at := slices.IndexFunc(Check(b), func(f Finding) bool {
			return f.Rule == "skew-statistic" && strings.HasPrefix(f.Reason, "tp1") && strings.Contains(f.Reason, "not known: "+want)
		})
		if at < 0 {
			t.Errorf("%s: %v", want, Check(b))
		}
	}
}

// What meta.yaml says of a mode and its rows contradict.
func TestStepMeta(t *testing.T) {
	path := []string{"steps", "per_tp", "1", perfio.ModeGraphSync}
	at := func(key string) []string { return append(slices.Clone(path), key) }
	for want, plant := range map[string]func(b *perfio.Bundle){
		"meta.yaml says 61 rows, step.csv has 60": func(b *perfio.Bundle) { set(b, 61, at("rows")...) },
		"rows of 32 layers":                       func(b *perfio.Bundle) { set(b, []int{16, 8}, at("layers")...) },
		"async_scheduling was true":               func(b *perfio.Bundle) { set(b, true, at("async_scheduling")...) },
		"50 rows ran as graphs":                   func(b *perfio.Bundle) { b.Meta.Delete(at("capture_sizes")...) },
		"a graph of 64 tokens ran":                func(b *perfio.Bundle) { set(b, []int{1, 2, 4, 8, 16, 32}, at("capture_sizes")...) },
		"says 5 rows, step.csv has 0":             func(b *perfio.Bundle) { set(b, 5, "steps", "per_tp", "2", perfio.ModeEagerAsync, "rows") },
	} {
		b := cleanBundle(t)
		plant(b)
		got := Check(b)
		if len(got) != 1 || got[0].Rule != "step-meta" || !strings.Contains(got[0].Reason, want) || got[0].Plot != "steps" {
			t.Errorf("%s: %+v", want, got)
		}
	}
}

// A bundle of whole steps alone, as a run with --only step makes it, lacks no layer.
func TestStepsAlone(t *testing.T) {
	b := cleanBundle(t)
	b.TPs = []perfio.TP{{Degree: 1, Steps: b.TPs[0].Steps}}
	if got := Check(b); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
}

// The limits on steps lie beyond what the bundles that ship show.
func TestStepsOfMeasuredBundles(t *testing.T) {
	files, err := filepath.Glob("../../perf/*/*/*/*/tp1/step.csv")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bundle with steps: %v", err)
	}
	for _, file := range files {
		b, err := perfio.OpenBundle(filepath.Dir(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d rows", file, len(b.TPs[0].Steps))
		for _, f := range Check(b) {
			if strings.HasPrefix(f.Rule, "step-") {
				t.Errorf("a false alarm: %+v", f)
			}
		}
		// Half the time is none that its GPU can keep to.
		for i := range b.TPs[0].Steps {
			if r := &b.TPs[0].Steps[i]; r.NPrefill == 0 {
				r.StepUS /= 2
			}
		}
		if !slices.Contains(rulesOf(Check(b)), "step-kernels") {
			t.Errorf("%s: halved steps were not found", file)
		}
	}
}

func TestTogether(t *testing.T) {
	synthetic := cleanBundle(t)
	set(synthetic, perfio.OriginSynthetic, "origin")
	other := cleanBundle(t)
	set(other, "A100", "hardware")
	for _, measured := range []int{10, 3, 1} {
		all := []*perfio.Bundle{synthetic, other}
		for range measured {
			all = append(all, cleanBundle(t))
		}
		if got := Together(synthetic, all); len(got) != 1 || got[0].Rule != "synthetic" {
			t.Errorf("among %d measured ones: %+v", measured, got)
		}
		if got := Together(all[2], all); got != nil {
			t.Errorf("a measured one: %+v", got)
		}
	}
	if got := Together(synthetic, []*perfio.Bundle{synthetic, other}); got != nil {
		t.Errorf("beside other hardware: %+v", got)
	}
}

// A regime that no row covers is found, whichever it is.
func TestRegimes(t *testing.T) {
	for name, in := range map[string]func(r perfio.AttentionRow) bool{
		"decode":  func(r perfio.AttentionRow) bool { return r.PrefillChunk == 0 },
		"prefill": func(r perfio.AttentionRow) bool { return r.NDecode == 0 },
		"mixed":   func(r perfio.AttentionRow) bool { return r.PrefillChunk > 0 && r.NDecode > 0 },
	} {
		b := cleanBundle(t)
		b.TPs[1].Attention = slices.DeleteFunc(b.TPs[1].Attention, in)
		found := slices.ContainsFunc(Check(b), func(f Finding) bool {
			return f.Rule == "coverage" && strings.Contains(f.Reason, "tp2: attention.csv holds no "+name+" batch")
		})
		if !found {
			t.Errorf("no %s batch: not found", name)
		}
	}
}

// The measured reference bundles hold what is argued here and nothing else:
// buckets of skew_fit.csv whose alpha, of one to seven rows, is far beyond what
// a weight between the mean and the largest can be (down to -735 on one row).
// Any other finding would be a false alarm.
func TestReference(t *testing.T) {
	var dirs []string
	for _, pattern := range []string{"perf/*/*/*/*/meta.yaml", "h200/perf/*/*/*/*/meta.yaml"} {
		found, err := filepath.Glob(filepath.Join("../../../shared/reference", pattern))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	if len(dirs) == 0 {
		t.Skip("no reference data beside the repository")
	}
	for _, meta := range dirs {
		b, err := perfio.OpenBundle(filepath.Dir(meta))
		if err != nil {
			t.Fatal(err)
		}
		low, high := leastShare(newSubject(b))
		t.Logf("%s: times are %.2f to %.1f times the least", b.Dir, low, high)
		for _, f := range Check(b) {
			t.Logf("%s: %s", f.Rule, f.Reason)
			if f.Rule != "few-samples" {
				t.Errorf("a false alarm: %+v", f)
				continue
			}
			for _, p := range f.Places {
				text, err := os.ReadFile(p.File)
				if err != nil {
					t.Fatal(err)
				}
				fields := strings.Split(strings.TrimSpace(strings.Split(string(text), "\n")[p.Line-1]), ",")
				alpha, errA := strconv.ParseFloat(fields[5], 64)
				n, errN := strconv.Atoi(fields[6])
				if errA != nil || errN != nil || math.Abs(alpha) <= wildAlpha || n >= fewSamples {
					t.Errorf("%s: found %v", p, fields)
				}
			}
		}
	}
}
