package perfio_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// fuzzTable holds a CSV reader to what it says: every error is positioned, and
// a file that is accepted is read the same again from what is written of it.
func fuzzTable[T any](f *testing.F, name string, reader func(io.Reader, string) *perfio.Reader[T], write func(io.Writer, []T) error) {
	clean := cleanTable(f, name)
	f.Add(clean)
	f.Add(bytes.ReplaceAll(clean, []byte("\r\n"), []byte("\n")))
	f.Add(clean[:len(clean)/2])
	f.Add([]byte("\"layer\",\"tokens\",time_us\r\n\"a\"\"b\",1,1e3\r\n"))
	for _, d := range bundletest.Damages() {
		if file, ok := d.Files()["tp1/"+name]; ok && !bytes.Equal(file.Data, clean) && len(file.Data) < 4096 {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, ok := readAll(t, reader(bytes.NewReader(data), name))
		if !ok {
			return
		}
		var first, second bytes.Buffer
		if write(&first, rows) != nil {
			return // duplicate keys, a time that rounds to nothing
		}
		again, ok := readAll(t, reader(bytes.NewReader(first.Bytes()), name))
		if !ok {
			t.Fatalf("what was written of %q is refused:\n%s", data, first.Bytes())
		}
		if err := write(&second, again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first.String(), second.String()); diff != "" {
			t.Errorf("written twice (-first +second):\n%s", diff)
		}
	})
}

// cleanTable is a table of the clean bundle, or of one whose degrees are real.
func cleanTable(f *testing.F, name string) []byte {
	if file := bundletest.Files()["tp1/"+name]; file != nil {
		return file.Data
	}
	var text bytes.Buffer
	if err := perfio.WriteCollectives(&text, bundletest.Collectives()); err != nil {
		f.Fatal(err)
	}
	return text.Bytes()
}

func readAll[T any](t *testing.T, r *perfio.Reader[T]) ([]T, bool) {
	ok := true
	var rows []T
	for r.Scan() {
		row, err := r.Record()
		if err != nil {
			wantPositioned(t, err)
			ok = false
			continue
		}
		rows = append(rows, row)
	}
	if r.Err() != nil {
		wantPositioned(t, r.Err())
		ok = false
	}
	return rows, ok
}

func wantPositioned(t *testing.T, err error) {
	t.Helper()
	var e *perfio.ParseError
	if !errors.As(err, &e) || e.Line < 1 || e.Column < 0 || e.File == "" {
		t.Errorf("%T %v is not positioned", err, err)
	}
}

func FuzzDense(f *testing.F) {
	fuzzTable(f, perfio.DenseFile, perfio.NewDenseReader, perfio.WriteDense)
}

func FuzzPerSequence(f *testing.F) {
	fuzzTable(f, perfio.PerSequenceFile, perfio.NewPerSequenceReader, perfio.WritePerSequence)
}

func FuzzAttention(f *testing.F) {
	fuzzTable(f, perfio.AttentionFile, perfio.NewAttentionReader, perfio.WriteAttention)
}

func FuzzMoE(f *testing.F) {
	fuzzTable(f, perfio.MoEFile, perfio.NewMoEReader, perfio.WriteMoE)
}

func FuzzSkew(f *testing.F) {
	fuzzTable(f, perfio.SkewFile, perfio.NewSkewReader, perfio.WriteSkew)
}

func FuzzSkewFit(f *testing.F) {
	fuzzTable(f, perfio.SkewFitFile, perfio.NewSkewFitReader, perfio.WriteSkewFit)
}

func FuzzStep(f *testing.F) {
	fuzzTable(f, perfio.StepFile, perfio.NewStepReader, perfio.WriteStep)
}

func FuzzCollectives(f *testing.F) {
	fuzzTable(f, perfio.CollectivesFile, perfio.NewCollectivesReader, perfio.WriteCollectives)
}

func FuzzBatches(f *testing.F) {
	f.Add([]byte(`{"requests":[[16,0],[1,100]],"measured_us":{"attention":7.5},"collectives_us":{"o_proj":3},"n":3,"kind":"mixed"}` + "\n\n{\"requests\":[[1,1]],\"x\":[{}]}"))
	f.Add([]byte(`{"requests":[[1]]}`))
	f.Add([]byte(`{"requests":[[1,-1]],"step_us":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rows []perfio.BatchRow
		r := perfio.NewBatchReader(bytes.NewReader(data), "batches.jsonl")
		for r.Scan() {
			row, err := r.Record()
			if err != nil {
				wantPositioned(t, err)
				return
			}
			rows = append(rows, row)
		}
		if r.Err() != nil {
			wantPositioned(t, r.Err())
			return
		}
		var b bytes.Buffer
		if err := perfio.WriteBatches(&b, rows); err != nil {
			t.Fatal(err)
		}
		r = perfio.NewBatchReader(&b, "again")
		for i := 0; r.Scan(); i++ {
			row, err := r.Record()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(rows[i].Requests, row.Requests); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(bundletest.Files()[perfio.MetaFile].Data)
	f.Add([]byte("skew_fit:\n  per_tp:\n    '1': {alpha_by_bucket: {a: 1.5}, bucket_axes: {n_bins: [0, 1], n_labels: [a]}}\n"))
	f.Add([]byte("a: &a [1, 2]\nb: *a\n"))
	f.Add([]byte("a: &a\n  b: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := perfio.ParseMeta(bytes.NewReader(data), "meta.yaml")
		if err != nil {
			var e *perfio.ParseError
			if !errors.As(err, &e) {
				t.Errorf("%T is no ParseError", err)
			}
			return
		}
		fit := m.SkewFit()
		for degree := range 3 {
			a := fit.AxesFor(degree)
			if len(a.NBins) != len(a.NLabels)+1 || len(a.KPBins) != len(a.KPLabels)+1 {
				t.Errorf("bins and labels of %+v do not go together", a)
			}
		}
		_, _, _ = m.Limits(), m.TPDegrees(), m.Origin()
		var first, second bytes.Buffer
		if err := perfio.WriteMeta(&first, m); err != nil {
			return // an empty mapping
		}
		again, err := perfio.ParseMeta(bytes.NewReader(first.Bytes()), "again")
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, first.Bytes())
		}
		if err := perfio.WriteMeta(&second, again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzArchitecture(f *testing.F) {
	f.Add([]byte(goodArch))
	f.Add([]byte(strings.Replace(goodArch, "[B, C]", "[B, [C]]", 1)))
	f.Add([]byte("catalog: {attention: {a: }}\nsequence: {head: }\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := perfio.ParseArchitecture(bytes.NewReader(data), "toy.yaml")
		if err != nil {
			var e *perfio.ParseError
			if !errors.As(err, &e) {
				t.Errorf("%T is no ParseError", err)
			}
			return
		}
		for _, layer := range a.Sequence.PreAttn {
			if a.Entry(layer) == nil {
				t.Errorf("layer %q is not in the catalog", layer)
			}
		}
	})
}

func FuzzModelConfig(f *testing.F) {
	f.Add([]byte(`{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 128}`))
	f.Add([]byte(`{"text_config": {"hidden_size": 64}, "torch_dtype": 1, "n_routed_experts": -1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := perfio.ParseModelConfig(bytes.NewReader(data), "x/config.json")
		if err != nil {
			var e *perfio.ParseError
			if !errors.As(err, &e) {
				t.Errorf("%T is no ParseError", err)
			}
			return
		}
		if c.HeadDim < 1 || c.NumKeyValueHeads < 1 || c.NumAttentionHeads%c.NumKeyValueHeads != 0 {
			t.Errorf("accepted %+v", c)
		}
		if _, err := c.Divide(2); err == nil && c.VocabSize%2 != 0 {
			t.Error("an odd vocabulary was halved")
		}
	})
}
