package roofline

import (
	"compress/gzip"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

const reference = "../../../shared/reference"

// goal is the median error that dense layers and attention must stay below.
const goal = 0.30

// errorsOf collects |predicted/measured - 1| by what was predicted.
type errorsOf map[string][]float64

func (e errorsOf) add(what string, predicted, measured float64) {
	e[what] = append(e[what], math.Abs(predicted/measured-1))
}

// quantiles of a list, which it sorts.
func quantiles(list []float64) (p50, p90 float64) {
	slices.Sort(list)
	return list[len(list)/2], list[len(list)*9/10]
}

// TestAccuracy measures the driver on every reference bundle; its figures
// stand in the package document.
func TestAccuracy(t *testing.T) {
	var dirs []string
	for _, pattern := range []string{"h200/perf/*/*/*/*/meta.yaml", "perf/*/*/*/*/meta.yaml"} {
		found, err := filepath.Glob(filepath.Join(reference, pattern))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	if len(dirs) == 0 {
		t.Skipf("no reference data at %s", reference)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, meta := range dirs {
		b, err := perfio.OpenBundle(filepath.Dir(meta))
		if err != nil {
			t.Fatal(err)
		}
		hw, ok := hardware.ByName(b.Meta.GPU())
		if !ok {
			t.Fatalf("%s: no specification of %q", meta, b.Meta.GPU())
		}
		for i := range b.TPs {
			tp := &b.TPs[i]
			d := bootBundle(t, b, hw, tp.Degree)
			errs := errorsOf{}
			rowErrors(t, d, tp, errs)
			if hw.Key == "H200" {
				batchErrors(t, d, filepath.Join(reference, "h200/validation_Llama-3.1-8B.jsonl.gz"), errs)
			}
			line := fmt.Sprintf("%s %s tp%d", hw.Key, filepath.Base(b.Meta.Model()), tp.Degree)
			var cells []string
			for _, what := range []string{"dense", "per_sequence", "attention", "moe", "batches"} {
				if len(errs[what]) == 0 {
					cells = append(cells, "-")
					continue
				}
				p50, p90 := quantiles(errs[what])
				if (what == "dense" || what == "attention" || what == "batches") && p50 > goal {
					t.Errorf("%s: %s errs by %.1f%% at the median, goal %.0f%%", line, what, 100*p50, 100*goal)
				}
				cells = append(cells, fmt.Sprintf("%.0f/%.0f", 100*p50, 100*p90))
			}
			row := fmt.Sprintf("//\t%-42s %-8s %-13s %-10s %-8s %s", line, cells[0], cells[1], cells[2], cells[3], cells[4])
			if row = strings.TrimRight(row, " "); !strings.Contains(string(doc), row+"\n") {
				t.Errorf("the package document does not hold the line\n%s", row)
			}
		}
	}
}

func bootBundle(t *testing.T, b *perfio.Bundle, hw *hardware.Spec, tp int) *Driver {
	t.Helper()
	model, err := perfio.LoadModelConfig(b.Meta.Model())
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture(b.Meta.Architecture())
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Spec: hw})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Boot(context.Background(), profile.EngineSpec{
		Model: model, Architecture: arch, TP: tp, DType: "bfloat16", MaxNumBatchedTokens: 2048, MaxNumSeqs: 256,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rowErrors predicts every row of a folder but those that were copied there
// from another degree.
func rowErrors(t *testing.T, d *Driver, tp *perfio.TP, errs errorsOf) {
	copied := map[string]bool{}
	for _, c := range d.engine.spec.Architecture.Catalog {
		copied[c.Layer] = c.TPStable && tp.Degree > 1
	}
	predict := func(s profile.Shot, layer string) float64 {
		r := measure(t, d, profile.MeasureOptions{Iterations: 1, Layers: []string{layer}}, s)[0]
		if r.Status != profile.OK || len(r.Layers) != 1 {
			t.Fatalf("%s of %s: %s %s", layer, s.Shape(), r.Status, r.Message)
		}
		return r.Layers[0].SamplesUS[0]
	}
	for _, r := range tp.Dense {
		if !copied[r.Layer] {
			errs.add("dense", predict(shot(request(1, r.Tokens, 0)), r.Layer), r.TimeUS)
		}
	}
	for _, r := range tp.PerSequence {
		if !copied[r.Layer] {
			errs.add("per_sequence", predict(shot(request(r.Sequences, 1, 0)), r.Layer), r.TimeUS)
		}
	}
	for _, r := range tp.Attention {
		var groups []profile.Group
		if r.PrefillChunk > 0 {
			groups = append(groups, request(1, r.PrefillChunk, r.KVPrefill))
		}
		if r.NDecode > 0 {
			groups = append(groups, request(r.NDecode, 1, r.KVDecode))
		}
		errs.add("attention", predict(shot(groups...), "attention"), r.TimeUS)
	}
	for _, r := range tp.MoE {
		s := shot(request(1, r.Tokens, 0))
		s.Experts = r.ActivatedExperts
		errs.add("moe", predict(s, "moe"), r.TimeUS)
	}
}

// batchErrors predicts attention of batches that were measured apart.
func batchErrors(t *testing.T, d *Driver, file string, errs errorsOf) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := perfio.NewBatchReader(z, file)
	for r.Scan() {
		row, err := r.Record()
		if err != nil {
			t.Fatal(err)
		}
		var groups []profile.Group
		for _, q := range row.Requests {
			groups = append(groups, request(1, q.NewTokens, q.KVHistory))
		}
		if us := row.MeasuredUS["attention"]; us > 0 {
			errs.add("batches", d.device.attention(&d.engine.dims, groups, &d.engine.schedule).total(), us)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
}
