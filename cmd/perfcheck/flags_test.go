package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/traceloader"
)

// What a verb cannot do with a flag or a path it says.
func TestFlagsThatDoNotApply(t *testing.T) {
	dir, work := cleanBundle(t), t.TempDir()
	packed := filepath.Join(work, "b.tar.zst")
	if status, _, stderr := call(t, "", "pack", dir, "-o", packed); status != exitOK {
		t.Fatal(stderr)
	}
	shots := filepath.Join(work, "shots.jsonl")
	if err := os.WriteFile(shots, []byte(`{"requests":[[1,100]],"measured_us":{"attention":5.2}}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"report", dir, "-o", filepath.Join(work, "r.html"), "--json"}, exitUsage, "--json: found it with report"},
		{[]string{"plot", "--bundle", dir, "dense", "qkv_proj", "--json"}, exitUsage, "--json: found it with plot"},
		{[]string{"export", dir, "--json"}, exitUsage, "--json: found it with export"},
		{[]string{"pack", dir, "-o", filepath.Join(work, "c.tar.zst"), "--json"}, exitUsage, "--json: found it with pack"},
		{[]string{"unpack", packed, filepath.Join(work, "u"), "--json"}, exitUsage, "--json: found it with unpack"},
		{[]string{"accuracy", dir, "--shots", shots, "--tests", "T1"}, exitUsage, "found --tests beside --shots"},
		{[]string{"merge", dir, dir, "-o", filepath.Join(work, "m"), "--keep-first", "--keep-last"}, exitUsage, "expected one of them at most"},
		{[]string{"accuracy", dir, "--tp", "5"}, exitFailed, "found no tp5, expected one of: tp1, tp2"},
		{[]string{"accuracy", dir, "--tp", "5", "--shots", shots}, exitFailed, "found no tp5, expected one of: tp1, tp2"},
		{[]string{"calibrate", packed}, exitFailed, "found a packed bundle, expected a folder"},
	} {
		status, stdout, stderr := call(t, "", test.args...)
		if status != test.want || !strings.Contains(stderr, test.says) || stdout != "" {
			t.Errorf("%v: status %d, %q%q, want %d and %q", test.args, status, stdout, stderr, test.want, test.says)
		}
	}
	if status, stdout, _ := call(t, "", "lint", "--rules", "--json"); status != exitOK || !strings.HasPrefix(stdout, `{"rule":"falling","severity":"warning","about":`) {
		t.Errorf("lint --rules --json: %d, %q", status, stdout)
	}
	if _, stdout, _ := call(t, "", "accuracy", dir, "--format", "csv", "--shots", shots); !strings.HasPrefix(stdout, "layer,kind,tp,rules,n,p50,p90,p99,max,bias,unanswered,within_1_sigma,within_2_sigma\n") ||
		!strings.Contains(stdout, ",0,,\n") || !strings.Contains(stdout, ",0,100.0000,100.0000\n") {
		t.Errorf("accuracy --format csv: %s", stdout)
	}
}

// Accuracy says where the unit of skew.csv is not known.
func TestAccuracyOfUnknownUnit(t *testing.T) {
	files := bundletest.Files()
	meta := string(files["meta.yaml"].Data)
	for _, line := range []string{"skew_statistic: mean\n", "measurement_iterations: 3\n"} {
		if !strings.Contains(meta, line) {
			t.Fatalf("no %q in %s", line, meta)
		}
		meta = strings.Replace(meta, line, "", 1)
	}
	files["meta.yaml"].Data = []byte(meta)
	dir := filepath.Join(t.TempDir(), "b")
	if err := bundletest.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	const unknown = "tp1: skew.csv and attention.csv share no shape, and how many runs a time of skew.csv sums up is not known"
	if status, stdout, _ := call(t, "", "accuracy", dir, "--tests", "T3,T9"); status != exitOK || !strings.Contains(stdout, unknown) || strings.Contains(stdout, "sums of 1") {
		t.Errorf("status %d, %s", status, stdout)
	}
	if status, _, stderr := call(t, "", "accuracy", dir, "--tests", "T9"); status != exitFailed || !strings.Contains(stderr, unknown) {
		t.Errorf("T9 alone: status %d, %s", status, stderr)
	}
	if _, _, stderr := call(t, "", "query", "--bundle", dir, "--rules", "accurate", "attention", "16", "0", "1", "16"); !strings.Contains(stderr, unknown) {
		t.Errorf("query: %s", stderr)
	}
	if status, _, stderr := call(t, "", "accuracy", cleanBundle(t), "--tests", "T3"); status != exitOK {
		t.Errorf("a clean one: %d, %s", status, stderr)
	}
}

// Calibrate shows what it chose, and a packed bundle is looked up in without a
// word about a calibration that cannot stand beside it.
func TestCalibrate(t *testing.T) {
	dir := cleanBundle(t)
	status, stdout, stderr := call(t, "", "calibrate", dir)
	c, err := traceloader.Calibrate(dir, traceloader.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tried := c.TPs[0].Attention.Tried
	if status != exitOK || !strings.HasPrefix(stdout, "tp1: attention by "+c.TPs[0].Attention.Basis.String()+" (") || len(tried) == 0 ||
		strings.Count(stdout, tried[0].Basis.String()) < 2 || !strings.HasSuffix(stdout, filepath.Join(dir, traceloader.CalibrationFile)+"\n") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	packed := filepath.Join(t.TempDir(), "b.tar.zst")
	if status, _, stderr := call(t, "", "pack", dir, "-o", packed); status != exitOK {
		t.Fatal(stderr)
	}
	if status, _, stderr := call(t, "", "query", "--bundle", packed, "--rules", "accurate", "attention", "16", "0", "1", "16"); status != exitOK || strings.Contains(stderr, traceloader.CalibrationFile) {
		t.Errorf("packed: status %d, %s", status, stderr)
	}
}

// merge speaks of a skew fit only where a part has one.
func TestMergeWithoutFit(t *testing.T) {
	var parts []string
	for range 2 {
		files := bundletest.Files()
		delete(files, "tp1/skew_fit.csv")
		delete(files, "tp2/skew_fit.csv")
		meta := string(files["meta.yaml"].Data)
		at := strings.Index(meta, "skew_fit:")
		end := at + strings.Index(meta[at:], "steps:")
		files["meta.yaml"].Data = []byte(meta[:at] + meta[end:])
		dir := filepath.Join(t.TempDir(), "b")
		if err := bundletest.Write(dir, files); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, dir)
	}
	if status, _, stderr := call(t, "", "merge", parts[0], parts[1], "-o", filepath.Join(t.TempDir(), "out")); status != exitOK || strings.Contains(stderr, "skew fit") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
