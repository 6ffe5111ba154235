package profile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

const (
	llamaBundle = "perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"
	qwenBundle  = "perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
	h200Bundle  = "h200/perf/H200/meta-llama/Llama-3.1-8B/bf16"
)

func referenceDir(t *testing.T, bundle string) string {
	t.Helper()
	dir := filepath.Join("..", "..", "shared", "reference", bundle)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data beside the repository: %v", err)
	}
	return dir
}

func openReference(t *testing.T, bundle string) *perfio.Bundle {
	t.Helper()
	b, err := perfio.OpenBundle(referenceDir(t, bundle))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFitIsTheReferences(t *testing.T) {
	for _, name := range []string{llamaBundle, qwenBundle} {
		b := openReference(t, name)
		recorded := b.Meta.SkewFit()
		for _, tp := range b.TPs {
			fit, err := FitSkew(tp.Skew)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tp.SkewFit, fit.Rows); diff != "" {
				t.Errorf("%s tp%d: buckets (-reference +fitted):\n%.1000s", name, tp.Degree, diff)
			}
			want := *recorded.Entry(tp.Degree)
			got := fit.Summary
			got.Degree, got.BucketTable = want.Degree, want.BucketTable
			want.Axes = recorded.AxesFor(tp.Degree)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s tp%d: summary (-reference +fitted):\n%s", name, tp.Degree, diff)
			}
		}
	}
}

func TestFitWithoutSamples(t *testing.T) {
	if _, err := FitSkew([]perfio.SkewRow{{N: 2, NB: 1, KVS: 128, KVBig: 512, KVMean: 320}}); err != ErrNoSkewSamples {
		t.Errorf("error %v, expected ErrNoSkewSamples", err)
	}
	// Equal times leave no denominator: alpha is 0.
	fit, err := FitSkew([]perfio.SkewRow{{N: 2, NB: 1, KVS: 128, KVBig: 512, KVMean: 320, TMeanUS: 5, TMaxUS: 5, TSkewUS: 6, HasAlpha: true}})
	if err != nil || fit.Rows[0].Alpha != 0 || fit.Summary.RelErrP50 != 0.1667 || fit.Summary.SignedMean != -0.1667 {
		t.Errorf("%+v, %v", fit, err)
	}
}

// The reference files hold the default grids, and the RTX PRO 6000 ones a
// second sweep merged in.
func TestPlanIsTheReferences(t *testing.T) {
	merged := func(b *perfio.Bundle, tp int) []AttentionPoint {
		limits := defaultLimits()
		first := mustPlan(t, limits, nil, PlanOptions{Only: []Category{Attention}})
		// The second sweep: factor 1.5, kv from 512, and pc+nd <= MNBT.
		kvs := append([]int{0}, geometricGrid(16384, 512, 1.5)[1:]...)
		second := points(geometricGrid(2048, 16, 1.5), kvs, geometricGrid(256, 1, 2), kvs)
		second = slices.DeleteFunc(second, func(p AttentionPoint) bool {
			return p.PrefillChunk+p.NDecode > limits.MaxNumBatchedTokens || !limits.feasibleAttention(p)
		})
		return sortedPoints(pointsOf(first.TPs[0].Categories[0].Shots), second)
	}
	single := func(*perfio.Bundle, int) []AttentionPoint {
		return pointsOf(mustPlan(t, defaultLimits(), nil, PlanOptions{Only: []Category{Attention}}).TPs[0].Categories[0].Shots)
	}
	for _, test := range []struct {
		name   string
		points func(*perfio.Bundle, int) []AttentionPoint
		all    bool // all the skew cases
		sorted bool // in plan order
	}{
		{llamaBundle, merged, true, true},
		{qwenBundle, merged, true, false}, // its n=256 cases stand last: measured later
		{h200Bundle, single, false, false},
	} {
		b := openReference(t, test.name)
		limits := defaultLimits()
		if b.TPs[0].MoE != nil {
			limits.NumExperts, limits.TopK = 128, 8
		}
		plan := mustPlan(t, limits, nil, PlanOptions{})
		own, err := NewPlanFromBundle(b, limits, nil, PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range own.TPs {
			for _, c := range own.TPs[i].Categories {
				planned := plan.TPs[0].Categories[slices.IndexFunc(plan.TPs[0].Categories, func(p CategoryPlan) bool { return p.Category == c.Category })]
				switch c.Category {
				case Attention:
					if want := test.points(b, i); !slices.Equal(pointsOf(c.Shots), want) {
						t.Errorf("%s tp%d: %d attention points, the grids have %d", test.name, own.TPs[i].TP, len(c.Shots), len(want))
					}
				case Skew:
					checkCases(t, test.name, c.Cases, planned.Cases, test.all, test.sorted)
				default:
					if !reflect.DeepEqual(c.Shots, planned.Shots) {
						t.Errorf("%s tp%d %s: the rows are not the grid's", test.name, own.TPs[i].TP, c.Category)
					}
				}
			}
		}
	}
}

func pointsOf(shots []Shot) []AttentionPoint {
	points := make([]AttentionPoint, len(shots))
	for i, shot := range shots {
		points[i] = shot.Point
	}
	return points
}

// checkCases compares a file's cases with the plan's; the file's ratios have 4
// decimals.
func checkCases(t *testing.T, name string, rows, planned []SkewCase, all, sorted bool) {
	t.Helper()
	index := make(map[SkewCase]int)
	for i, c := range planned {
		c.Ratio = round4(c.Ratio)
		index[c] = i
	}
	if all && len(rows) != len(planned) {
		t.Errorf("%s: %d skew cases, the plan has %d", name, len(rows), len(planned))
	}
	for i, row := range rows {
		at, ok := index[row]
		if !ok || (sorted && at != i) {
			t.Fatalf("%s: case %d, %+v, stands at %d in the plan (found %v)", name, i, row, at, ok)
		}
		delete(index, row)
	}
}

// The block is meta.yaml's, to the byte.
func TestFitBlockIsTheReferences(t *testing.T) {
	for _, name := range []string{llamaBundle, qwenBundle} {
		b := openReference(t, name)
		var fits []perfio.TPFit
		for _, tp := range b.TPs {
			fit, err := FitSkew(tp.Skew)
			if err != nil {
				t.Fatal(err)
			}
			fit.Summary.Degree = tp.Degree
			fit.Summary.BucketTable = fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFitFile)
			fits = append(fits, fit.Summary)
		}
		node, err := SkewFitNode(fits)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(referenceDir(t, name), perfio.MetaFile))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		encoder := yaml.NewEncoder(&got)
		encoder.SetIndent(2)
		if err := encoder.Encode(map[string]*yaml.Node{"skew_fit": node}); err != nil {
			t.Fatal(err)
		}
		_, want, _ := strings.Cut(string(text), "\nskew_fit:")
		if diff := cmp.Diff("skew_fit:"+want, got.String()); diff != "" {
			t.Errorf("%s: block (-reference +fitted):\n%s", name, diff)
		}
	}
}

func TestFitBlockAxes(t *testing.T) {
	one := perfio.TPFit{Degree: 1, Axes: perfio.DefaultBucketAxes()}
	two := perfio.TPFit{Degree: 2, Axes: perfio.DefaultBucketAxes()}
	two.Axes.NBins = append(two.Axes.NBins, 2e6)
	node, err := SkewFitNode([]perfio.TPFit{one, two})
	if err != nil {
		t.Fatal(err)
	}
	var block fitBlock
	if err := node.Decode(&block); err != nil {
		t.Fatal(err)
	}
	if block.Axes != nil || block.PerTP[1].Axes == nil || len(block.PerTP[2].Axes.NBins) != 10 {
		t.Errorf("differing axes: %+v", block)
	}
	none, err := SkewFitNode(nil)
	if err != nil || none.Content[1].Value != "false" || len(none.Content) != 2 {
		t.Errorf("without a fit: %+v, %v", none, err)
	}
}
