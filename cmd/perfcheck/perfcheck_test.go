package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/inspection"
)

// call runs the program in process.
func call(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return status, out.String(), err.String()
}

// cleanBundle writes the small bundle into a folder of its own.
func cleanBundle(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "H", "owner", "model", "bf16")
	if err := bundletest.Write(dir, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExitStatus(t *testing.T) {
	dir := cleanBundle(t)
	for _, test := range []struct {
		name       string
		args       []string
		want       int
		wantStderr string
	}{
		{"help", []string{"--help"}, exitOK, ""},
		{"help of a verb", []string{"query", "-h"}, exitOK, ""},
		{"completion", []string{"completion", "bash"}, exitOK, ""},
		{"unknown verb", []string{"explode"}, exitUsage, `"explode"`},
		{"unknown flag", []string{"validate", "--what", dir}, exitUsage, "--what"},
		{"no path", []string{"validate"}, exitUsage, "expected the paths of bundles"},
		{"bad format", []string{"validate", "--format", "xml", dir}, exitUsage, `found "xml"`},
		{"absent", []string{"validate", filepath.Join(dir, "absent")}, exitFailed, "no such file"},
		{"nothing there", []string{"validate", t.TempDir()}, exitFailed, "found no bundle"},
		{"clean", []string{"validate", dir}, exitOK, "1 bundles, 0 problems"},
		{"no bundle named", []string{"query", "dense", "qkv_proj", "1"}, exitUsage, "found no --root"},
		{"both ways", []string{"query", "--bundle", dir, "--root", "x", "dense", "a", "1"}, exitUsage, "one or the other"},
		{"no lookup", []string{"query", "--bundle", dir}, exitUsage, "expected one of them"},
		{"unknown lookup", []string{"query", "--bundle", dir, "sparse", "1"}, exitUsage, `"sparse"`},
		{"too few numbers", []string{"query", "--bundle", dir, "attention", "1", "2"}, exitUsage, "found 2 numbers, expected 4"},
		{"not a number", []string{"query", "--bundle", dir, "moe", "1", "x"}, exitUsage, `found "x"`},
		{"unknown layer", []string{"query", "--bundle", dir, "dense", "no_such", "1"}, exitFailed, `found "no_such"`},
		{"unknown rules", []string{"query", "--bundle", dir, "--rules", "best", "dense", "a", "1"}, exitUsage, `"best"`},
		{"expect alone", []string{"query", "--bundle", dir, "--expect", "moe", "1", "1"}, exitUsage, "without --batch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, stderr := call(t, "", test.args...)
			if got != test.want || !strings.Contains(stderr, test.wantStderr) {
				t.Errorf("status %d, standard error %q; want status %d and %q", got, stderr, test.want, test.wantStderr)
			}
		})
	}
}

// Every member of the damaged corpus is found, in a form that editors parse.
func TestValidateDamaged(t *testing.T) {
	for _, damage := range bundletest.Damages() {
		t.Run(damage.Name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			if err := bundletest.Write(dir, damage.Files()); err != nil {
				t.Fatal(err)
			}
			status, stdout, stderr := call(t, "", "validate", dir)
			errors := 0
			for _, want := range damage.Want {
				full := dir + "/" + strings.Replace(want, "file does not exist", "no such file or directory", 1)
				if !strings.Contains(want, ": ") { // of the folder, not of a file
					full = dir + "/: " + want
				}
				found := strings.Contains(stdout, full)
				if !found { // a warning says so behind the position
					found = strings.Contains(strings.ReplaceAll(stdout, ": warning: ", ": "), full)
				} else {
					errors++
				}
				if !found {
					t.Errorf("not found: %s\ngot:\n%s", full, stdout)
				}
			}
			if got := strings.Count(stdout, "\n"); got != len(damage.Want) {
				t.Errorf("%d problems printed, want %d:\n%s", got, len(damage.Want), stdout)
			}
			if want := map[bool]int{true: exitProblems, false: exitOK}[errors > 0]; status != want {
				t.Errorf("status %d, want %d (%s)", status, want, stderr)
			}
		})
	}
}

func TestValidateFormats(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a,b")
	files := bundletest.Files()
	files["tp1/dense.csv"].Data = bytes.Replace(files["tp1/dense.csv"].Data, []byte("\r\n"), []byte("\r\nqkv_proj,-5,1.5\r\n"), 1)
	if err := bundletest.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	status, stdout, _ := call(t, "", "validate", "--json", dir)
	var problem struct {
		File     string
		Line     int
		Column   int
		Field    string
		Message  string
		Severity string
	}
	if err := json.Unmarshal([]byte(strings.SplitN(stdout, "\n", 2)[0]), &problem); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if status != exitProblems || problem.Line != 2 || problem.Column != 10 || problem.Field != "tokens" ||
		problem.File != filepath.Join(dir, "tp1", "dense.csv") || !strings.Contains(problem.Message, "-5") || problem.Severity != "error" {
		t.Errorf("status %d, problem %+v", status, problem)
	}
	_, stdout, _ = call(t, "", "validate", "--format", "github", dir)
	if !strings.HasPrefix(stdout, "::error file=") || !strings.Contains(stdout, "a%2Cb") || !strings.Contains(stdout, ",line=2,col=10::tokens: ") {
		t.Errorf("github: %q", stdout)
	}
}

func TestPackedBundle(t *testing.T) {
	dir := cleanBundle(t)
	path := filepath.Join(t.TempDir(), "bundle.tar.zst")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Pack(f, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := call(t, "", "validate", path); status != exitOK {
		t.Errorf("validate: status %d: %s", status, stderr)
	}
	query := []string{"moe", "3", "4"}
	_, want, _ := call(t, "", append([]string{"query", "--bundle", dir}, query...)...)
	status, got, stderr := call(t, "", append([]string{"query", "--bundle", path}, query...)...)
	if status != exitOK || got != want || got == "" {
		t.Errorf("query: status %d, got %q, want %q: %s", status, got, want, stderr)
	}
}

func TestQueryBatch(t *testing.T) {
	dir := cleanBundle(t)
	layer := bundletest.Bundle().TPs[0].Dense[0].Layer
	rows := "tp,lookup,layer,a,b,c,d,e,f,latency_ns\n" +
		"1,dense," + layer + ",7,,,,,,\n" +
		"2,attention,,16,0,3,100,,,\n" +
		"1,attention_skew,,16,0,3,100,200,50,\n" +
		"1,moe,,4,2,,,,,\n"
	status, filled, stderr := call(t, rows, "query", "--bundle", dir, "--batch", "-")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, stderr)
	}
	if status, stdout, _ := call(t, filled, "query", "--bundle", dir, "--batch", "-", "--expect"); status != exitOK || stdout != "4 queries, 0 differ\n" {
		t.Errorf("its own answers: status %d, %q", status, stdout)
	}
	lines := strings.Split(strings.TrimSpace(filled), "\n")
	broken := strings.Replace(filled, lines[2], lines[2]+"9", 1)
	status, stdout, _ := call(t, broken, "query", "--bundle", dir, "--batch", "-", "--expect")
	if status != exitProblems || !strings.HasSuffix(stdout, "4 queries, 1 differ\n") || !strings.Contains(stdout, ":3: latency_ns: found ") {
		t.Errorf("one answer changed: status %d, %q", status, stdout)
	}
	if status, stdout, _ := call(t, rows, "query", "--bundle", dir, "--batch", "-", "--status"); status != exitOK || !strings.Contains(stdout, ",status\n") {
		t.Errorf("--status: %d, %q", status, stdout)
	}
	for _, test := range []struct{ name, rows, want string }{
		{"empty", "", "stdin:1:1: header"},
		{"no column", "tp,lookup,layer\n", "stdin:1:1: a: found no such column"},
		{"unknown lookup", "tp,lookup,layer,a\n1,sparse,,1\n", `stdin:2:3: lookup: found "sparse"`},
		{"not a number", "tp,lookup,layer,a,b\n1,moe,,4,x\n", `stdin:2:10: b: found "x"`},
		{"unknown layer", "tp,lookup,layer,a\n1,dense,nope,1\n", `stdin:2: layer: found "nope"`},
		{"nothing to compare", "tp,lookup,layer,a,b\n1,moe,,4,2\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := []string{"query", "--bundle", dir, "--batch", "-"}
			if test.want == "" {
				args, test.want = append(args, "--expect"), "latency_ns: found nothing"
			}
			status, _, stderr := call(t, test.rows, args...)
			if status != exitFailed || !strings.Contains(stderr, test.want) {
				t.Errorf("status %d, %q; want %q", status, stderr, test.want)
			}
		})
	}
}

func TestInspect(t *testing.T) {
	dir := cleanBundle(t)
	status, stdout, stderr := call(t, "", "inspect", "--json", dir)
	if status != exitOK {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var got inspection.Inspection
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := bundletest.Bundle()
	if got.Hardware != want.Meta.Hardware() || len(got.TPs) != len(want.TPs) || got.TPs[0].Rows["attention"] != len(want.TPs[0].Attention) {
		t.Errorf("got %+v", got)
	}
	if status, stdout, _ := call(t, "", "inspect", dir); status != exitOK || !strings.Contains(stdout, "attention") || strings.Contains(stdout, "\x1b") {
		t.Errorf("text: status %d, %q", status, stdout)
	}
}

// The golden queries hold what LLMServingSim 2.0 returns for the reference bundles.
func TestGolden(t *testing.T) {
	reference := filepath.Join("..", "..", "..", "shared", "reference")
	files, err := filepath.Glob(filepath.Join(reference, "golden", "*.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no reference data beside the repository")
	}
	for _, file := range files {
		parts := strings.Split(strings.TrimSuffix(filepath.Base(file), ".csv.gz"), "__")
		dir := filepath.Join(reference, "perf", parts[0], strings.ReplaceAll(parts[1], "--", "/"), parts[2])
		status, stdout, stderr := call(t, "", "query", "--bundle", dir, "--batch", file, "--expect")
		t.Logf("%s: %s", filepath.Base(file), strings.TrimSpace(stdout))
		if status != exitOK || !strings.HasSuffix(stdout, ", 0 differ\n") {
			t.Errorf("%s: status %d, %s%s", file, status, stdout, stderr)
		}
	}
	if status, stdout, stderr := call(t, "", "validate", reference); status != exitOK {
		t.Errorf("validate: status %d\n%s%s", status, stdout, stderr)
	}
}

func TestAccuracyOnShots(t *testing.T) {
	dir := cleanBundle(t)
	layer := bundletest.Bundle().TPs[0].Dense[0].Layer
	// The bundle's own answers, one of them 10% off.
	var shots strings.Builder
	for _, tokens := range []string{"2", "3"} {
		_, stdout, stderr := call(t, "", "query", "--bundle", dir, "dense", layer, tokens)
		us := strings.TrimSpace(stdout)
		if us == "" {
			t.Fatal(stderr)
		}
		ns, err := json.Number(us).Float64()
		if err != nil {
			t.Fatal(err)
		}
		if tokens == "3" {
			ns /= 1.1
		}
		line, err := json.Marshal(map[string]any{"requests": [][]any{{json.Number(tokens), 0}}, "measured_us": map[string]float64{layer: ns / 1000}})
		if err != nil {
			t.Fatal(err)
		}
		shots.Write(append(line, '\n'))
	}
	status, stdout, stderr := call(t, shots.String(), "accuracy", dir, "--shots", "-", "--rules", "parity", "--json")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var report struct {
		Shots []struct {
			Layer, Kind, Rules string
			N                  int
			P50, Bias          float64
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range report.Shots {
		if s.Layer == layer && s.Kind == "all" {
			found = true
			if s.N != 2 || s.P50 < 4.5 || s.P50 > 5.5 || s.Rules != "parity" {
				t.Errorf("got %+v, want 2 shots, one of them 10%% off", s)
			}
		}
	}
	if !found {
		t.Errorf("no figure for %s: %s", layer, stdout)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte(shots.String()))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	if status, again, stderr := call(t, packed.String(), "accuracy", dir, "--shots", "-", "--rules", "parity", "--json"); status != exitOK || again != stdout {
		t.Errorf("gzipped: status %d, %s, not as before: %s", status, stderr, again)
	}
	for _, args := range [][]string{{"--rules", "best"}, {"--tests", "T0"}, {"--format", "xml"}} {
		if status, _, _ := call(t, "", append([]string{"accuracy", dir}, args...)...); status != exitUsage {
			t.Errorf("%v: status %d", args, status)
		}
	}
	if status, stdout, _ := call(t, shots.String(), "accuracy", dir, "--shots", "-", "--format", "csv"); status != exitOK || !strings.HasPrefix(stdout, "layer,kind,tp,rules,n,p50") {
		t.Errorf("csv: status %d, %q", status, stdout)
	}
}
