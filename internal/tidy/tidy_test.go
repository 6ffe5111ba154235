package tidy_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/tidy"
)

// Every row points at the line of its file that holds its keys and time.
func TestRowsPointAtTheirLines(t *testing.T) {
	files := bundletest.Files()
	seen := map[tidy.Key]bool{}
	tables := map[string]int{}
	for _, row := range tidy.Rows(bundletest.Bundle()) {
		if seen[row.Key] && row.Table != "skew" {
			t.Errorf("%+v twice", row.Key)
		}
		seen[row.Key] = true
		tables[row.Table]++
		file := files[row.File()]
		if file == nil {
			t.Fatalf("no file %s", row.File())
		}
		lines := bytes.Split(file.Data, []byte("\n"))
		text := string(lines[row.Line-1])
		for _, word := range strings.Fields(strings.ReplaceAll(row.Shape(), ",", "")) {
			if '0' <= word[0] && word[0] <= '9' && !strings.Contains(","+text, ","+word) {
				t.Errorf("%s:%d is %q and does not hold %s of %q", row.File(), row.Line, text, word, row.Shape())
			}
		}
		if row.Regime() == "" || row.PerCallUS() != row.TimeUS {
			t.Errorf("%+v: regime %q, per call %g", row, row.Regime(), row.PerCallUS())
		}
	}
	for _, name := range []string{"dense", "per_sequence", "attention", "moe", "skew", "step"} {
		if tables[name] == 0 {
			t.Errorf("no rows of %s", name)
		}
	}
}

// Times that are sums of an unknown number of runs have no time of one run.
func TestSums(t *testing.T) {
	b := bundletest.Bundle()
	b.Meta.Delete("skew_statistic")
	for _, row := range tidy.Rows(b) {
		if row.Table == "skew" && (row.Runs != 3 || row.PerCallUS() != row.TimeUS/3) {
			t.Fatalf("sum of 3: %+v", row)
		}
	}
	b.Meta.Delete("measurement_iterations")
	for _, row := range tidy.Rows(b) {
		if row.Table == "skew" && (row.Runs != 0 || row.PerCallUS() != 0) {
			t.Fatalf("sum of unknown: %+v", row)
		}
	}
}
