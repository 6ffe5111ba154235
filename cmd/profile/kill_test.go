package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// TestKilledRunsGoOn kills runs at random moments until they are complete: the
// tables are then those of an undisturbed run, and no shot was measured twice.
// LAYERPROF_LONG=1 kills 500 times, else 20.
func TestKilledRunsGoOn(t *testing.T) {
	kills := 20
	if os.Getenv("LAYERPROF_LONG") != "" {
		kills = 500
	}
	source := smallBundle(t)
	sweep := smallSweep("--driver", "replay:"+source+",delay_ms=0.2", "--log-format", "json", "--iterations", "2")
	whole := t.TempDir()
	if got := runCommand(t, append([]string{"run", "--out", whole}, sweep...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	bundle := filepath.Join("H100", "meta-llama", "Llama-3.1-8B", "bf16")
	want := bundleFiles(t, filepath.Join(whole, bundle))
	shots := len(shotRecords(t, filepath.Join(whole, bundle)))

	var killed atomic.Int64
	runs := 0
	for killed.Load() < int64(kills) {
		runs++
		// Two processes at a time, each on a bundle of its own.
		t.Run(fmt.Sprintf("pair=%d", runs), func(t *testing.T) {
			for n := range 2 {
				seed := uint64(2*runs + n)
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					out := t.TempDir()
					killed.Add(int64(killUntilDone(t, out, bundle, sweep, seed, shots)))
					sameFiles(t, bundleFiles(t, filepath.Join(out, bundle)), want)
				})
			}
		})
	}
	t.Logf("%d kills in %d pairs of runs of %d shots", killed.Load(), runs, shots)
}

// TestKilledShardsGoOn kills shards of one bundle, four at a time, until each
// is through.
func TestKilledShardsGoOn(t *testing.T) {
	bundles := 1
	if os.Getenv("LAYERPROF_LONG") != "" {
		bundles = 20
	}
	source, whole := smallBundle(t), t.TempDir()
	sweep := smallSweep("--driver", "replay:"+source+",delay_ms=4", "--iterations", "2")
	if got := runCommand(t, append([]string{"run", "--out", whole}, sweep...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	want := bundleFiles(t, filepath.Join(whole, smallDir))
	for n := range bundles {
		out := t.TempDir()
		var kills atomic.Int64
		t.Run(fmt.Sprintf("bundle=%d", n), func(t *testing.T) {
			for i := range 4 {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					t.Parallel()
					random := rand.New(rand.NewPCG(uint64(n), uint64(i)))
					// After some tries it is left alone: a slow machine may never get
					// through between two kills.
					for try := 0; ; try++ {
						after := time.Duration(20+random.IntN(300)) * time.Millisecond
						if try == 20 {
							after = 0
						}
						if ended, _ := runAndKill(t, after, append([]string{"run", "--out", out, "--shard", fmt.Sprintf("%d/4", i)}, sweep...)...); ended {
							return
						}
						kills.Add(1)
					}
				})
			}
		})
		sameFiles(t, mergedFiles(t, filepath.Join(out, smallDir)), want)
		if kills.Load() == 0 {
			t.Error("no run was killed")
		}
		t.Logf("%d kills", kills.Load())
	}
}

// killUntilDone starts the sweep, kills it, and so on until it ends by itself.
func killUntilDone(t *testing.T, out, bundle string, sweep []string, seed uint64, shots int) (kills int) {
	random := rand.New(rand.NewPCG(seed, 9))
	reported := 0
	// The later a kill, the more is done by then; some come before the first
	// shot, and after some tries the run is left alone.
	for kills = 0; ; kills++ {
		after := time.Duration(20+random.IntN(300)) * time.Millisecond
		if kills == 12 {
			after = 0
		}
		ended, stderr := runAndKill(t, after, append([]string{"run", "--out", out}, sweep...)...)
		reported += countShots(stderr)
		if ended {
			checkJournal(t, out, bundle, reported, shots)
			return kills
		}
	}
}

// runAndKill runs the program and kills it -9 after a while, 0: never; it says
// whether the program had ended by itself before, with status 0.
func runAndKill(t *testing.T, after time.Duration, args ...string) (ended bool, stderr []byte) {
	t.Helper()
	cmd, _, out := profileProcess(args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() {
			_ = cmd.Process.Kill() // it may have ended already
		})
		defer timer.Stop()
	}
	err := cmd.Wait()
	if ended = cmd.ProcessState.Exited(); ended && err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return ended, out.Bytes()
}

// checkJournal demands that each shot was measured once, and that those
// reported as done are not more.
func checkJournal(t *testing.T, out, bundle string, reported, shots int) {
	t.Helper()
	records := shotRecords(t, filepath.Join(out, bundle))
	for key, n := range records {
		if n != 1 {
			t.Errorf("%s was measured %d times", key, n)
		}
	}
	if len(records) != shots || reported > shots {
		t.Errorf("%d shots measured, %d reported as done, expected %d", len(records), reported, shots)
	}
}

// shotRecords counts the journal's records by shot, read without the package's
// own code.
func shotRecords(t *testing.T, dir string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, profile.JournalDir, "shots.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	records := make(map[string]int)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		_, object, _ := strings.Cut(line, " ")
		var r struct {
			K, For, Shape, St string
			TP                int
		}
		if err := json.Unmarshal([]byte(object), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if r.K == "shot" && r.St == "ok" {
			records[fmt.Sprint(r.TP, r.For, " ", r.Shape)]++
		}
	}
	return records
}

// countShots counts the shots that a JSON log reports as done. Its last line
// may be cut off.
func countShots(log []byte) int {
	n := 0
	for _, line := range bytes.SplitAfter(log, []byte("\n")) {
		var e jsonEvent
		if bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &e) == nil && e.Event == profile.EventShot {
			n++
		}
	}
	return n
}
