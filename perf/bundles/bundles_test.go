package bundles_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/perf/bundles"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func TestEveryBundle(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute and more under the race detector")
	}
	names := bundles.List()
	if len(names) == 0 {
		t.Fatal("the package holds no bundles")
	}
	for _, n := range names {
		t.Run(n.String(), func(t *testing.T) {
			fsys, err := bundles.FS(n.Hardware, n.Model, n.Variant)
			if err != nil {
				t.Fatal(err)
			}
			perfio.Validate(fsys, ".", func(p *perfio.ParseError) bool {
				t.Error(p)
				return true
			})
			b, err := bundles.Open(n.Hardware, n.Model, n.Variant)
			if err != nil {
				t.Fatal(err)
			}
			if b.Meta.Hardware() != n.Hardware || b.Meta.Model() != n.Model || b.Meta.Variant() != n.Variant {
				t.Errorf("meta.yaml says %s, %s, %s", b.Meta.Hardware(), b.Meta.Model(), b.Meta.Variant())
			}
			if b.Meta.Origin() != perfio.OriginMeasured {
				t.Errorf("origin %s", b.Meta.Origin())
			}
			for _, rules := range []traceloader.Rules{traceloader.Parity, traceloader.Accurate} {
				table, err := traceloader.New(b, traceloader.Options{Rules: rules})
				if err != nil {
					t.Fatalf("%v: %v", rules, err)
				}
				walk, err := table.Walk(1)
				if err != nil {
					t.Fatalf("%v: %v", rules, err)
				}
				var step traceloader.Step
				if !walk.Step(traceloader.NewBatch([]perfio.Request{{NewTokens: 1, KVHistory: 500}, {NewTokens: 100}}), &step) {
					t.Errorf("%v: no answer", rules)
				}
				if total, ok := step.TotalNS(); !ok || total <= step.BlockNS {
					t.Errorf("%v: step of %d ns, %v", rules, total, ok)
				}
			}
		})
	}
}

// What is embedded is what stands unpacked in perf/, file by file.
func TestPackedIsUnpacked(t *testing.T) {
	for _, n := range bundles.List() {
		dir := filepath.Join("..", n.Hardware, filepath.FromSlash(n.Model), n.Variant)
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue // another project's, shipped packed alone
		}
		var b bytes.Buffer
		if _, err := archive.Pack(&b, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("data", n.Hardware, filepath.FromSlash(n.Model), n.Variant+".tar.zst"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, b.Bytes()) {
			t.Errorf("%s: the packed file is not made of %s; perfcheck pack makes it anew", n, dir)
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := bundles.Open("H200", "nobody/nothing", "bf16"); !errors.Is(err, bundles.ErrNotBundled) {
		t.Errorf("got %v", err)
	}
	if _, err := bundles.Open("..", "x", "y"); !errors.Is(err, bundles.ErrNotBundled) {
		t.Errorf("got %v", err)
	}
}
