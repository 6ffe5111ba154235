package perfio_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

func TestCleanBundle(t *testing.T) {
	b, err := perfio.ReadBundle(bundletest.Files(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Warnings) > 0 {
		t.Errorf("warnings: %v", b.Warnings)
	}
	want := bundletest.Bundle()
	for i := range want.TPs {
		// The times of skew.csv are written with three decimals.
		for j := range want.TPs[i].Skew {
			r := &want.TPs[i].Skew[j]
			for _, t := range []*float64{&r.TMeanUS, &r.TMaxUS, &r.TSkewUS} {
				*t = perfio.RoundDecimals(*t, 3)
			}
		}
	}
	near := cmp.Comparer(func(a, b float64) bool { return a == b || (a-b)/b < 1e-5 && (b-a)/b < 1e-5 })
	if diff := cmp.Diff(want.TPs, b.TPs, near); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every damage gives its exact problems: from Validate as lines in order, from
// ReadBundle as an error and no bundle.
func TestDamagedBundles(t *testing.T) {
	damages := bundletest.Damages()
	if len(damages) < 25 {
		t.Fatalf("only %d damages", len(damages))
	}
	names := map[string]bool{}
	for _, d := range damages {
		if names[d.Name] {
			t.Errorf("two damages of the name %s", d.Name)
		}
		names[d.Name] = true
		t.Run(d.Name, func(t *testing.T) {
			files := d.Files()
			var got []string
			perfio.Validate(files, ".", func(e *perfio.ParseError) bool {
				got = append(got, e.Error())
				return true
			})
			if diff := cmp.Diff(d.Want, got); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
			b, err := perfio.ReadBundle(files, ".")
			if err == nil || b != nil {
				t.Fatalf("ReadBundle = %v, %v", b, err)
			}
			if diff := cmp.Diff(d.Want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("ReadBundle (-want +got):\n%s", diff)
			}
			var parse *perfio.ParseError
			if !errors.As(err, &parse) {
				t.Errorf("%T is no ParseError", err)
			}
		})
	}
}

func TestDamagedInFolder(t *testing.T) {
	i := slices.IndexFunc(bundletest.Damages(), func(d bundletest.Damage) bool { return d.Name == "negative key" })
	d := bundletest.Damages()[i]
	dir := t.TempDir()
	if err := bundletest.Write(dir, d.Files()); err != nil {
		t.Fatal(err)
	}
	want := dir + "/" + d.Want[0]
	if _, err := perfio.OpenBundle(dir); err == nil || err.Error() != want {
		t.Errorf("OpenBundle: %v\nwant %s", err, want)
	}
	var got []string
	if err := perfio.ValidateDir(dir, func(e *perfio.ParseError) bool { got = append(got, e.Error()); return true }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{want}) {
		t.Errorf("ValidateDir: %q, want %q", got, want)
	}
}
