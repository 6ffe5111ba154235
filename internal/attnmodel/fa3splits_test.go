package attnmodel_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/perfio"
)

// Where the kernel splits the keys it runs another kernel that puts the parts
// together: the measured batches say when. Blocks of keys decide it, and with
// a cache of bytes those are others.
func TestFA3SplitsWhereMeasured(t *testing.T) {
	for _, test := range []struct {
		folder   string
		geometry attnmodel.Geometry
		wrong    int // that are known to be predicted wrong
	}{
		{"meta-llama/Llama-3.1-8B/bf16/tp1", attnmodel.Geometry{QueryHeads: 32, KVHeads: 8, SMs: 132}, 0},
		{"meta-llama/Llama-3.1-8B/bf16/tp2", attnmodel.Geometry{QueryHeads: 16, KVHeads: 4, SMs: 132}, 0},
		{"meta-llama/Llama-3.1-8B/bf16-kvfp8/tp1", attnmodel.Geometry{QueryHeads: 32, KVHeads: 8, SMs: 132, ByteCache: true}, 0},
		{"Qwen/Qwen3-32B/bf16/tp1", attnmodel.Geometry{QueryHeads: 64, KVHeads: 8, SMs: 132}, 0},
		{"Qwen/Qwen3-32B/bf16/tp2", attnmodel.Geometry{QueryHeads: 32, KVHeads: 4, SMs: 132}, 0},
		{"Qwen/Qwen3-30B-A3B-Instruct-2507/bf16/tp1", attnmodel.Geometry{QueryHeads: 32, KVHeads: 4, SMs: 132}, 0},
	} {
		t.Run(test.folder, func(t *testing.T) {
			m := attnmodel.NewFA3(test.geometry, attnmodel.FA3Defaults())
			wrong, batches := 0, 0
			for _, name := range []string{"batches.jsonl", "validation.jsonl"} {
				f, err := os.Open(filepath.Join("../../perf/H200", test.folder, name))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				lines := bufio.NewScanner(f)
				lines.Buffer(nil, 1<<22)
				for lines.Scan() {
					var b perfio.BatchRow
					if err := json.Unmarshal(lines.Bytes(), &b); err != nil {
						t.Fatal(err)
					}
					batches++
					// The odd kernels are those that split.
					splits := m.Kernel(attnmodel.AppendRuns(nil, b.Requests))%2 == 1
					if measured := b.KernelsUS["combine"] > 0; splits != measured {
						wrong++
						t.Logf("%s: %v: splits %v, measured %v", name, b.Requests, splits, measured)
					}
				}
				if err := lines.Err(); err != nil {
					t.Fatal(err)
				}
			}
			if batches < 300 || wrong > test.wrong {
				t.Errorf("%d of %d batches predicted wrong, want at most %d of at least 300", wrong, batches, test.wrong)
			}
		})
	}
}
