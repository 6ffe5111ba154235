package perfio_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// Every writer tells of an output that fails, after however many bytes.
func TestFailingWriters(t *testing.T) {
	b := bundletest.Bundle()
	tp := b.TPs[0]
	failure := errors.New("no space left on device")
	for name, write := range map[string]func(io.Writer) error{
		"dense":        func(w io.Writer) error { return perfio.WriteDense(w, tp.Dense) },
		"per_sequence": func(w io.Writer) error { return perfio.WritePerSequence(w, tp.PerSequence) },
		"attention":    func(w io.Writer) error { return perfio.WriteAttention(w, tp.Attention) },
		"moe":          func(w io.Writer) error { return perfio.WriteMoE(w, tp.MoE) },
		"skew":         func(w io.Writer) error { return perfio.WriteSkew(w, tp.Skew) },
		"skew_fit":     func(w io.Writer) error { return perfio.WriteSkewFit(w, tp.SkewFit) },
		"collectives":  func(w io.Writer) error { return perfio.WriteCollectives(w, bundletest.Collectives()) },
		"batches":      func(w io.Writer) error { return perfio.WriteBatches(w, tp.Batches) },
		"meta":         func(w io.Writer) error { return perfio.WriteMeta(w, b.Meta) },
	} {
		var whole bytes.Buffer
		if err := write(&whole); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, room := range []int{0, 1, whole.Len() / 2, whole.Len() - 1} {
			if err := write(&failingWriter{room, failure}); !errors.Is(err, failure) {
				t.Errorf("%s with room for %d of %d bytes: %v", name, room, whole.Len(), err)
			}
		}
		if err := write(&failingWriter{whole.Len(), failure}); err != nil {
			t.Errorf("%s with room for all: %v", name, err)
		}
	}
}

func TestWritersRefuse(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(io.Writer) error
		want  string
	}{
		{"nan", func(w io.Writer) error {
			return perfio.WriteDense(w, []perfio.DenseRow{{Layer: "a", Tokens: 1, TimeUS: math.NaN()}})
		},
			"dense.csv: row 1: time_us: found NaN, expected a number above 0 and at most 1e+12"},
		{"zero", func(w io.Writer) error { return perfio.WriteDense(w, []perfio.DenseRow{{Layer: "a", Tokens: 1}}) },
			"dense.csv: row 1: time_us: found 0, expected a number above 0 and at most 1e+12"},
		{"rounds to zero", func(w io.Writer) error {
			return perfio.WriteSkew(w, []perfio.SkewRow{{Regime: "pure", TMeanUS: 0.0004, TMaxUS: 1, TSkewUS: 1}})
		}, "skew.csv: row 1: t_mean_us: found 0.0, expected a number above 0 and at most 1e+12"},
		{"negative key", func(w io.Writer) error {
			return perfio.WriteAttention(w, []perfio.AttentionRow{{NDecode: -1, TimeUS: 1}})
		},
			"attention.csv: row 1: n_decode: found -1, expected an integer from 0 to 67108864"},
		{"no layer", func(w io.Writer) error { return perfio.WritePerSequence(w, []perfio.SequenceRow{{TimeUS: 1}}) },
			`per_sequence.csv: row 1: layer: found "", expected text of 1 to 256 bytes`},
		{"line break", func(w io.Writer) error { return perfio.WriteDense(w, []perfio.DenseRow{{Layer: "a\nb", TimeUS: 1}}) },
			`dense.csv: row 1: layer: found "a\nb", expected text of 1 to 256 bytes`},
		{"duplicate", func(w io.Writer) error {
			return perfio.WriteMoE(w, []perfio.MoERow{{1, 2, 3}, {4, 5, 6}, {1, 2, 4}})
		}, "moe.csv: found two rows of key (1, 2), expected one"},
		{"raw key twice", func(w io.Writer) error {
			r := perfio.SkewFitRow{NLabel: "a", SkewRateLabel: "b", KVBigLabel: "c", KPLabel: "d", RawKey: "k"}
			other := r
			other.NLabel = "e"
			return perfio.WriteSkewFit(w, []perfio.SkewFitRow{r, other})
		}, "skew_fit.csv: found two rows of key k, expected one"},
		{"batch", func(w io.Writer) error { return perfio.WriteBatches(w, []perfio.BatchRow{{}}) },
			"batch 1: requests: found 0 requests, expected 1 to 65536"},
		{"meta", func(w io.Writer) error { return perfio.WriteMeta(w, &perfio.Meta{}) }, "meta.yaml: found nothing to write, expected keys"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.write(io.Discard); err == nil || err.Error() != test.want {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestNumberFormats(t *testing.T) {
	var b bytes.Buffer
	err := perfio.WriteSkew(&b, []perfio.SkewRow{
		{Regime: "pure", N: 3, NB: 1, Ratio: 1.0 / 3, Skew: 4, TMeanUS: 1, TMaxUS: 1e6, TSkewUS: 0.12345, Alpha: -4.5e12, HasAlpha: true},
		{Regime: "mixed", Ratio: 0.00004, Skew: 1.5, TMeanUS: 2.0005, TMaxUS: 1, TSkewUS: 1e12},
		{Regime: "mixed", Skew: 16, TMeanUS: 1, TMaxUS: 1, TSkewUS: 1, Alpha: math.Copysign(0.00001, -1), HasAlpha: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha
pure,3,1,0.3333,4.0,0,0,0,0,0,1.0,1000000.0,0.123,-4500000000000.0
mixed,0,0,0.0,1.5,0,0,0,0,0,2.001,1.0,1000000000000.0,
mixed,0,0,0.0,16.0,0,0,0,0,0,1.0,1.0,1.0,-0.0
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	err = perfio.WriteDense(&b, []perfio.DenseRow{{Layer: "z", Tokens: 2, TimeUS: 1234567}, {Layer: "z", Tokens: 1, TimeUS: 100000},
		{Layer: "a,\"b\"", Tokens: 1, TimeUS: 1.0 / 3}, {Layer: "b", Tokens: 1, TimeUS: 0.00001234567}})
	if err != nil {
		t.Fatal(err)
	}
	want = "layer,tokens,time_us\r\n\"a,\"\"b\"\"\",1,0.333333\r\nb,1,1.23457e-05\r\nz,1,100000\r\nz,2,1.23457e+06\r\n"
	if b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}

// A bundle that cannot be written leaves the folder as it was.
func TestWriteBundleFailsWhole(t *testing.T) {
	dir := t.TempDir()
	if err := perfio.WriteBundle(dir, bundletest.Bundle()); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	b := bundletest.Bundle()
	for i := range b.TPs[0].Dense {
		b.TPs[0].Dense[i].TimeUS *= 2
	}
	b.TPs[1].Attention[3].TimeUS = math.Inf(1)
	if err := perfio.WriteBundle(dir, b); err == nil || !strings.Contains(err.Error(), "found +Inf") {
		t.Errorf("got %v", err)
	}
	after := snapshot(t, dir)
	if len(before) != len(after) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s changed", name)
		}
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMetaSet(t *testing.T) {
	m, err := perfio.ParseMeta(strings.NewReader("b: 1\na: {x: [1, 2]}\nlist: &l\n- 1\n- two\nagain: *l\nmaps:\n- {k: v}\n"), "meta.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		value any
		path  []string
	}{{2, []string{"b"}}, {"13.0", []string{"a", "version"}}, {[]float64{1e6, 0.5}, []string{"a", "bins"}}, {1e300, []string{"big"}},
		{true, []string{"fit", "per_tp", "1", "on"}}} {
		if err := m.Set(s.value, s.path...); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Set(1, "b", "c"); err == nil {
		t.Error("Set below a scalar is no error")
	}
	m.Delete("a", "x")
	m.Delete("nowhere", "x")
	var b bytes.Buffer
	if err := perfio.WriteMeta(&b, m); err != nil {
		t.Fatal(err)
	}
	want := `b: 2
a:
  version: "13.0"
  bins: [1000000.0, 0.5]
list: &l [1, two]
again: *l
maps:
  - k: v
big: 1.0e+300
fit:
  per_tp:
    1:
      on: true
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
