package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// A holder on another host lives as long as its lock changes.
func TestElsewhere(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, profile.JournalDir)
	if err := os.MkdirAll(journal, 0o777); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	w := New(dir)
	w.now = func() time.Time { return now }
	for _, step := range []struct {
		beat    int
		seconds int
		want    State
	}{{1, 0, Unknown}, {1, 5, Unknown}, {2, 1, Running}, {2, 9, Running}, {2, 2, Gone}, {3, 1, Running}} {
		text := fmt.Sprintf(`{"host":"elsewhere","boot":"x","pid":7,"token":"t","beat":%d}`, step.beat)
		if err := os.WriteFile(filepath.Join(journal, "lock"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Duration(step.seconds) * time.Second)
		s, err := w.Poll()
		if err != nil || s.State != step.want || s.Host != "elsewhere" {
			t.Errorf("%+v: %+v, %v", step, s, err)
		}
	}
}

// Shots of a block that is measured again count no more, failures until they
// succeed, and each degree's anchors have a median of their own.
func TestCounts(t *testing.T) {
	w := New(t.TempDir())
	at := time.Unix(1e9, 0)
	add := func(e profile.JournalEntry) {
		at = at.Add(time.Second)
		e.Time, e.TP = at, max(e.TP, 1)
		w.add(&e)
	}
	shot := func(shape string, block int, status profile.Status) {
		add(profile.JournalEntry{Kind: profile.EntryShot, Shape: shape, Block: block, Status: status, Message: "no\x1b[31m", LevelUS: 1, Samples: 3, Spread: 0.02})
	}
	anchor := func(tp int, us float64) {
		add(profile.JournalEntry{Kind: profile.EntryAnchor, TP: tp, Shape: "a", LevelUS: us})
	}
	add(profile.JournalEntry{Kind: profile.EntryBoot})
	add(profile.JournalEntry{Kind: profile.EntryPlan, Category: profile.Dense, Done: 2, Total: 6, Degrees: []int{1, 2}})
	add(profile.JournalEntry{Kind: profile.EntryBegin, Category: profile.Dense})
	anchor(1, 100)
	shot("a", 1, profile.OK)
	shot("b", 1, profile.OK)
	shot("c", 2, profile.Failed)
	shot("d", 2, profile.OK)
	check := func(done, failed int) *Status {
		t.Helper()
		s := w.sumUp(nil)
		if len(s.Parts) != 1 || s.Parts[0].Done != done || s.Failed != failed {
			t.Errorf("%+v, want %d done, %d failed", s, done, failed)
		}
		return s
	}
	check(5, 1)
	add(profile.JournalEntry{Kind: profile.EntryRedo, Block: 1})
	check(3, 1)
	shot("a", 3, profile.OK)
	shot("c", 3, profile.OK)
	shot("e", 3, profile.Infeasible)
	anchor(1, 102)
	anchor(1, 101)
	anchor(2, 50)
	s := check(5, 0)
	if s.Anchors.Count != 4 || s.Anchors.Last != 0 || s.Anchors.Slowest > 1 || s.Anchors.Fastest < -1 || s.Infeasible != 1 || s.Redone != 1 {
		t.Errorf("%+v", s)
	}
	if len(s.NotPlanned) != 1 || s.NotPlanned[0] != 2 || s.State != Gone || *s.SpreadP50 != 2 {
		t.Errorf("%+v", s)
	}
	if text := strings.Join(s.Lines(), "\n"); !strings.Contains(text, "tp2  planned once its engine runs") || !strings.Contains(text, "5/6") {
		t.Errorf("%s", text)
	}
}

// Shards are added up, and the run is complete only if all are.
func TestShards(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, profile.JournalDir)
	if err := os.MkdirAll(journal, 0o777); err != nil {
		t.Fatal(err)
	}
	w := New(dir)
	now := time.Unix(1e9, 0)
	w.now = func() time.Time { return now }
	at := now
	add := func(e profile.JournalEntry) {
		at = at.Add(time.Second)
		e.Time, e.TP = at, 1
		w.add(&e)
	}
	for _, shard := range []string{"shard-0000-of-0002", "shard-0001-of-0002"} {
		add(profile.JournalEntry{Kind: profile.EntryPlan, Shard: shard, Category: profile.Attention, Total: 3, Degrees: []int{1}})
		add(profile.JournalEntry{Kind: profile.EntryBegin, Shard: shard, Category: profile.Attention})
		add(profile.JournalEntry{Kind: profile.EntryShot, Shard: shard, Shape: shard, Block: 1, Status: profile.OK, LevelUS: 1})
		if err := os.WriteFile(filepath.Join(journal, shard+".lock"), []byte(`{"host":"`+shard+`","pid":7,"token":"t","beat":1}`), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	check := func(state State, outcome string, done int) {
		t.Helper()
		holders, err := profile.HoldersOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := w.sumUp(holders)
		if s.State != state || s.Outcome != outcome || s.Holders != len(holders) || len(s.Parts) != 1 || s.Parts[0] != (Part{TP: 1, Category: "attention", Done: done, Total: 6}) {
			t.Errorf("%+v, want %s %s with %d done", s, state, outcome, done)
		}
	}
	check(Unknown, "", 2)
	add(profile.JournalEntry{Kind: profile.EntryRedo, Shard: "shard-0001-of-0002", Block: 1})
	check(Unknown, "", 1)
	add(profile.JournalEntry{Kind: profile.EntryEnd, Shard: "shard-0000-of-0002", Message: profile.EndComplete})
	if err := os.Remove(filepath.Join(journal, "shard-0000-of-0002.lock")); err != nil {
		t.Fatal(err)
	}
	check(Unknown, "", 1)
	now = now.Add(20 * time.Second)
	check(Gone, "", 1) // the other one says nothing
	add(profile.JournalEntry{Kind: profile.EntryEnd, Shard: "shard-0001-of-0002", Message: profile.EndPartial})
	check(Ended, profile.EndPartial, 1)
}

// A run that was killed says no word. The next one's time counts from its own
// boot, as its boots and the blocks that it measured again do.
func TestKilledAndStartedAgain(t *testing.T) {
	w := New(t.TempDir())
	at := time.Unix(1e9, 0)
	add := func(e profile.JournalEntry) {
		at = at.Add(time.Second)
		e.Time, e.TP = at, 1
		w.add(&e)
	}
	run := func(done int, shape string) {
		add(profile.JournalEntry{Kind: profile.EntryBoot})
		for _, category := range []profile.Category{profile.Dense, profile.Attention} {
			add(profile.JournalEntry{Kind: profile.EntryPlan, Category: category, Done: done, Total: 6, Degrees: []int{1}})
		}
		add(profile.JournalEntry{Kind: profile.EntryBegin, Category: profile.Dense})
		add(profile.JournalEntry{Kind: profile.EntryShot, Shape: shape, Block: 1, Status: profile.OK, LevelUS: 1})
		add(profile.JournalEntry{Kind: profile.EntryBoot}) // the engine was lost
	}
	check := func(done int) {
		t.Helper()
		s := w.sumUp(nil)
		if s.ElapsedS != 5 || s.Boots != 2 || s.Parts[0].Done != done || s.Parts[0].Total != 6 {
			t.Errorf("%+v, want 5 s, 2 boots, %d of 6 done", s, done)
		}
	}
	run(0, "a")
	check(1)
	at = at.Add(23 * time.Hour)
	run(1, "b")
	check(2)
	// Whole steps are counted by plans: that is no other run.
	for n := range 3 {
		add(profile.JournalEntry{Kind: profile.EntryPlan, Category: profile.Step, Done: n, Total: 3, Degrees: []int{1}})
	}
	if s := w.sumUp(nil); s.ElapsedS != 8 || s.Boots != 2 {
		t.Errorf("%+v, want 8 s, 2 boots", s)
	}
}
