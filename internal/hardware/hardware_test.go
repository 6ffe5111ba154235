package hardware

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuiltIn(t *testing.T) {
	units := map[string]int{
		"A100": 108, "Gaudi3": 8, "H100": 132, "H200": 132, "L4": 58, "L40S": 142, "RTX4090": 128, "RTXPRO6000": 188,
	}
	got := map[string]int{}
	names := map[string]string{}
	for _, s := range All() {
		got[s.Key] = s.ComputeUnits
		if len(s.Sources) == 0 {
			t.Errorf("%s names no source", s.Key)
		}
		if s.PeakTFLOPS["bfloat16"] <= 0 || s.VectorTFLOPS <= 0 || s.CacheMiB <= 0 || s.PowerW <= 0 {
			t.Errorf("%s lacks a figure: %+v", s.Key, *s)
		}
		for _, n := range s.Names {
			if other, ok := names[n]; ok {
				t.Errorf("%q is a name of both %s and %s", n, other, s.Key)
			}
			names[n] = s.Key
			if found, ok := ByName(strings.ToUpper(n) + " "); !ok || found != s {
				t.Errorf("ByName(%q) does not find %s", n, s.Key)
			}
		}
		if found, ok := ByKey(strings.ToLower(s.Key)); !ok || found != s {
			t.Errorf("ByKey(%q) does not find it", s.Key)
		}
		if s.Kind != GPU && s.SMCount() != 0 {
			t.Errorf("%s is no GPU and has %d SMs", s.Key, s.SMCount())
		}
	}
	if diff := cmp.Diff(units, got); diff != "" {
		t.Errorf("compute units (-want +got):\n%s", diff)
	}
}

func TestSMCountByName(t *testing.T) {
	for name, want := range map[string]int{
		"NVIDIA RTX PRO 6000 Blackwell Server Edition": 188,
		"NVIDIA H200":             132,
		"NVIDIA H100 80GB HBM3":   132,
		"NVIDIA GeForce RTX 4090": 128,
		"NVIDIA H100 PCIe":        0, // another product, with 114
		"HL-325L":                 0, // no GPU
		"":                        0,
	} {
		if got := SMCount(name); got != want {
			t.Errorf("SMCount(%q) = %d, want %d", name, got, want)
		}
	}
}

const minimal = `hardware: X1
kind: accelerator
compute_units: 4
peak_tflops: {bfloat16: 100}
memory_gb_per_s: 1000
memory_gb: 16
launch_us: 3
`

func TestParse(t *testing.T) {
	got, err := Parse("x.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := &Spec{
		Key: "X1", Kind: Accelerator, ComputeUnits: 4, PeakTFLOPS: map[string]float64{"bfloat16": 100},
		MemoryGBPerS: 1000, MemoryGB: 16, LaunchUS: 3, Attention: Tiles,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"empty", "", "x.yaml: found an empty file, expected a specification"},
		{"a list", "- 1\n", "x.yaml:1:1: found a list, expected a mapping"},
		{"unknown key", minimal + "clock: 3\n", "x.yaml:8:1: clock: unknown key, expected one of attention, cache_mib, compute_units, hardware, kind, launch_us, memory_gb, memory_gb_per_s, names, peak_tflops, power_w, sources, vector_tflops"},
		{"twice", minimal + "launch_us: 4\n", "x.yaml:8:1: launch_us: stands twice"},
		{"zero bandwidth", strings.Replace(minimal, "1000", "0", 1), "x.yaml:5:18: memory_gb_per_s: found 0, expected a number above 0"},
		{"NaN", strings.Replace(minimal, "1000", ".nan", 1), `x.yaml:5:18: memory_gb_per_s: found ".nan", expected a number`},
		{"infinite", strings.Replace(minimal, "1000", "inf", 1), `x.yaml:5:18: memory_gb_per_s: found "inf", expected a number`},
		{"half a unit", strings.Replace(minimal, "units: 4", "units: 4.5", 1), "x.yaml:3:16: compute_units: found 4.5, expected a whole number up to 1000000"},
		{"no unit", strings.Replace(minimal, "units: 4", "units: 0", 1), "x.yaml:3:16: compute_units: found 0, expected a number at least 1"},
		{"dtype", strings.Replace(minimal, "bfloat16", "bf16", 1), `x.yaml:4:15: peak_tflops: found "bf16", expected one of float64, float32, tf32, float16, bfloat16, fp8, int8, fp4, int4`},
		{"rate", strings.Replace(minimal, "100}", "-1}", 1), "x.yaml:4:25: peak_tflops.bfloat16: found -1, expected a number above 0"},
		{"no rates", strings.Replace(minimal, "{bfloat16: 100}", "{}", 1), "x.yaml:4:14: peak_tflops: found a mapping, expected a rate for each data type, as in {bfloat16: 989.4}"},
		{"kind", strings.Replace(minimal, "accelerator", "tpu", 1), `x.yaml:2:7: kind: found "tpu", expected gpu or accelerator`},
		{"key", strings.Replace(minimal, "X1", "../X1", 1), `x.yaml:1:11: hardware: found "../X1", expected letters, digits, '.', '_' and '-' (it names a folder)`},
		{"missing", strings.Replace(minimal, "launch_us: 3\n", "", 1), "x.yaml:1:1: launch_us: is missing"},
		{"second document", minimal + "---\na: 1\n", "x.yaml:8:1: found a second document, expected one"},
		{"syntax", "a: b: c\n", "x.yaml:1: mapping values are not allowed in this context"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(tt.data))
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if e := new(SpecError); !errors.As(err, &e) {
				t.Errorf("%T is no SpecError", err)
			}
		})
	}
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if _, err := ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadFile(path); err != nil || s.Key != "X1" {
		t.Errorf("ReadFile = %v, %v", s, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("peak_tflops: {bfloat16: *y}\n"))
	entries, err := specFS.ReadDir("specs")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		data, err := specFS.ReadFile("specs/" + e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("x.yaml", data)
		if err != nil {
			if e := new(SpecError); !errors.As(err, &e) {
				t.Errorf("%T is no SpecError: %v", err, err)
			}
			return
		}
		if s.ComputeUnits < 1 || len(s.PeakTFLOPS) == 0 || !(s.MemoryGBPerS > 0) || !(s.LaunchUS > 0) {
			t.Errorf("accepted %+v", *s)
		}
	})
}
