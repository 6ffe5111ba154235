package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/roofline"
)

// A replayed bundle without its journal goes on from its tables, with the
// flags of its first run; synthetic numbers do not go in beside its own.
func TestResumeFromTablesOfReplay(t *testing.T) {
	source := referenceBundle(t, h200)
	dir := t.TempDir()
	first := run(t, replayOptions(t, source, "", dir))
	if err := os.RemoveAll(filepath.Join(dir, ".journal")); err != nil {
		t.Fatal(err)
	}
	attention := filepath.Join(dir, "tp1", "attention.csv")
	rows, err := os.ReadFile(attention)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(rows), "\n")
	if err := os.WriteFile(attention, []byte(strings.Join(lines[:len(lines)-101], "")), 0o644); err != nil {
		t.Fatal(err)
	}

	device, ok := hardware.ByKey("H200")
	if !ok {
		t.Fatal("no H200")
	}
	synthetic := replayOptions(t, source, "", dir)
	synthetic.Open = func() (profile.Driver, error) { return roofline.New(roofline.Options{Spec: device}) }
	_, err = profile.Run(t.Context(), synthetic)
	var changed *profile.EnvironmentError
	if !errors.As(err, &changed) || !strings.Contains(err.Error(), `driver: was "replay", is "roofline"`) ||
		!strings.Contains(err.Error(), `origin: was "replayed", is "synthetic"`) {
		t.Errorf("a synthetic run over measured tables: %v, expected another driver and origin", err)
	}

	report := run(t, replayOptions(t, source, "", dir))
	if report.Measured != 100 || report.Measured+report.Reused != first.Measured {
		t.Errorf("%d measured, %d had been before, expected 100 of %d", report.Measured, report.Reused, first.Measured)
	}
	compareFiles(t, source, dir)
}

// A replay under other names says so; under the source's own it does not.
func TestReplayUnderOtherNames(t *testing.T) {
	source := referenceBundle(t, h200)
	for _, test := range []struct{ hardware, want string }{
		{"H200", ""},
		{"B300", "hardware: what is replayed was measured as H200 and is written as B300"},
	} {
		opts := only(replayOptions(t, source, "", t.TempDir()), profile.PerSequence)
		opts.Hardware = test.hardware
		var warnings []string
		opts.Observe = func(e profile.Event) {
			if e.Kind == profile.EventWarning {
				warnings = append(warnings, e.Message)
			}
		}
		run(t, opts)
		if got := strings.Join(warnings, "\n"); got != test.want {
			t.Errorf("%s: warnings %q, expected %q", test.hardware, got, test.want)
		}
	}
}
