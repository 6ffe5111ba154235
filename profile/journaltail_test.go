package profile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What a run appends can be followed, from the plan to the end.
func TestJournalTail(t *testing.T) {
	dir := t.TempDir()
	tail := TailJournal(dir)
	if _, err := tail.Next(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bundle without a journal: %v", err)
	}
	if list, err := HoldersOf(dir); len(list) > 0 || err != nil {
		t.Errorf("it is held: %v, %v", list, err)
	}
	report := mustRun(t, testOptions(t, newFakeDevice(), dir))
	entries, err := tail.Next()
	if err != nil {
		t.Fatal(err)
	}
	count := map[EntryKind]int{}
	planned := 0
	for _, e := range entries {
		count[e.Kind]++
		if e.Kind == EntryPlan {
			planned += e.Total
			if len(e.Degrees) != 1 || e.Category == "" || e.Done != 0 {
				t.Errorf("plan %+v", e)
			}
		}
		if e.Kind == EntryShot && (e.LevelUS <= 0 || e.Shape == "" || e.Samples == 0 || e.Status != OK) {
			t.Errorf("shot %+v", e)
		}
	}
	last := entries[len(entries)-1]
	if count[EntryShot] != report.Measured || planned != report.Measured || count[EntryBoot] != report.Boots || count[EntryBegin] != count[EntryPlan] ||
		last.Kind != EntryEnd || last.Message != EndComplete {
		t.Errorf("%v, %d planned; the run measured %d; the last: %+v", count, planned, report.Measured, last)
	}
	if more, err := tail.Next(); err != nil || len(more) > 0 {
		t.Errorf("nothing was appended, and %d entries came: %v", len(more), err)
	}
	only, err := TailJournal(dir).Next(EntryAnchor, EntryEnd)
	if err != nil || len(only) != count[EntryAnchor]+1 {
		t.Errorf("%d anchors and ends, %v", len(only), err)
	}

	// A line that is written in two parts is read once it is whole; one that is
	// damaged is passed over.
	journal := filepath.Join(dir, JournalDir, DefaultShard+".jsonl")
	line, err := appendRecord(nil, &record{Kind: recordEnd, Message: EndPartial})
	if err != nil {
		t.Fatal(err)
	}
	appendTo := func(text string) {
		f, err := os.OpenFile(journal, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	appendTo("00000000 {\"k\":\"shot\"}\n" + string(line[:20]))
	if more, err := tail.Next(); err != nil || len(more) > 0 || tail.Damaged != 1 {
		t.Errorf("half a line: %d entries, %d damaged, %v", len(more), tail.Damaged, err)
	}
	appendTo(string(line[20:]))
	if more, err := tail.Next(); err != nil || len(more) != 1 || more[0].Message != EndPartial {
		t.Errorf("the whole line: %+v, %v", more, err)
	}

	// The lock is seen, and left alone.
	lock, err := AcquireLock(filepath.Join(dir, JournalDir))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := HoldersOf(dir); err != nil || len(list) != 1 || !list[0].Here || !list[0].Alive || list[0].PID != os.Getpid() {
		t.Errorf("%+v, %v", list, err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
