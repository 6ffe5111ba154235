package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func testRecord(i int) *record {
	return &record{
		Kind: recordShot, TimeMS: 1795468129069 + int64(i), Env: "3b71c83a9fc1", TP: 1, Shape: fmt.Sprintf("64x1@%d,1x512@0", i),
		Block: 1 + i/50, Status: OK,
		Layers: []layerRecord{{Layer: "attention", US: []float64{348.577, 348.6, 348.511}, Calls: 1, Launches: 3}},
	}
}

// writeJournal makes a journal of n shots and returns its file.
func writeJournal(t testing.TB, n int) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	j, err := OpenJournal(dir, DefaultShard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := j.append(testRecord(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, DefaultShard+".jsonl")
}

func mustOpen(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, DefaultShard)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustClose(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestJournalIsReadAsWritten(t *testing.T) {
	dir, _ := writeJournal(t, 5)
	j := mustOpen(t, dir)
	defer mustClose(t, j)
	if j.index.shotRecords != 5 || len(j.Damages) != 0 || len(j.Torn) != 0 {
		t.Errorf("%d shots, damages %v, torn %v", j.index.shotRecords, j.Damages, j.Torn)
	}
	found := 0
	j.index.each([]string{"3b71c83a9fc1"}, 1, "", "64x1@3,1x512@0", true, func(s stored) {
		found++
		if s.Layers[0].US[2] != 348.511 || s.Layers[0].Launches != 3 || s.block.block != 1 {
			t.Errorf("%+v", s.record)
		}
	})
	if found != 1 {
		t.Errorf("found %d records of the fourth shot", found)
	}
}

// A file cut off anywhere in its last record loses that record and no other,
// and is appended to as if it had never been there.
func TestJournalTornTail(t *testing.T) {
	dir, file := writeJournal(t, 3)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndexByte(strings.TrimSuffix(string(whole), "\n"), '\n') + 1
	for cut := last + 1; cut < len(whole); cut++ {
		if err := os.WriteFile(file, whole[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		j := mustOpen(t, dir)
		if j.index.shotRecords != 2 || len(j.Torn) != 1 || j.Torn[0].Offset != int64(last) || len(j.Damages) != 0 {
			t.Fatalf("cut at %d: %d shots, torn %v, damages %v", cut, j.index.shotRecords, j.Torn, j.Damages)
		}
		if err := j.append(testRecord(2)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		if got, _ := os.ReadFile(file); string(got) != string(whole) {
			t.Fatalf("cut at %d: after appending the file is %q", cut, got)
		}
	}
}

// Zeros at the end are what a file system may leave of a write that a power cut
// interrupted.
func TestJournalTailOfZeros(t *testing.T) {
	dir, file := writeJournal(t, 3)
	whole, _ := os.ReadFile(file)
	if err := os.WriteFile(file, append(whole, make([]byte, 4096)...), 0o666); err != nil {
		t.Fatal(err)
	}
	j := mustOpen(t, dir)
	defer mustClose(t, j)
	if j.index.shotRecords != 3 || len(j.Torn) != 1 || j.Torn[0].Bytes != 4096 {
		t.Errorf("%d shots, torn %v", j.index.shotRecords, j.Torn)
	}
}

// Any changed byte of an inner record is found and named, whatever it makes of
// the text; the records around it stay.
func TestJournalDamage(t *testing.T) {
	dir, file := writeJournal(t, 3)
	whole, _ := os.ReadFile(file)
	first := strings.IndexByte(string(whole), '\n') + 1
	second := first + strings.IndexByte(string(whole[first:]), '\n') + 1
	for at := first; at < second-1; at++ {
		damaged := []byte(string(whole))
		damaged[at] ^= 1
		if damaged[at] == '\n' {
			continue // then there are two damaged lines
		}
		if err := os.WriteFile(file, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		j := mustOpen(t, dir)
		mustClose(t, j)
		if j.index.shotRecords != 2 || len(j.Damages) != 1 {
			t.Fatalf("byte %d: %d shots, damages %v", at, j.index.shotRecords, j.Damages)
		}
		if want := fmt.Sprintf("%s:%d: ", file, first); !strings.HasPrefix(j.Damages[0].Error(), want) {
			t.Fatalf("byte %d: %v, expected %s", at, j.Damages[0], want)
		}
	}
}

// fullDisk takes a number of bytes and then has no space.
type fullDisk struct {
	journalFile
	left int
}

func (f *fullDisk) Write(b []byte) (int, error) {
	if len(b) <= f.left {
		f.left -= len(b)
		return f.journalFile.Write(b)
	}
	n, _ := f.journalFile.Write(b[:f.left])
	f.left = 0
	return n, &os.PathError{Op: "write", Path: "shots.jsonl", Err: syscall.ENOSPC}
}

func TestJournalFullDisk(t *testing.T) {
	dir, _ := writeJournal(t, 3)
	j := mustOpen(t, dir)
	j.file = &fullDisk{journalFile: j.file, left: 100}
	if err := j.append(testRecord(3)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("append: %v, expected no space", err)
	}
	// Nothing may follow the torn record: it would be cut off with it.
	j.file.(*fullDisk).left = 1 << 20
	if err := j.append(testRecord(4)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("append after a failed one: %v", err)
	}
	if err := j.sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("sync after a failed append: %v", err)
	}
	if err := j.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close: %v", err)
	}
	j = mustOpen(t, dir)
	defer mustClose(t, j)
	if j.index.shotRecords != 3 || len(j.Torn) != 1 {
		t.Errorf("%d shots, torn %v", j.index.shotRecords, j.Torn)
	}
}

// Several files are one journal, and each keeps its own blocks.
func TestJournalShards(t *testing.T) {
	dir, _ := writeJournal(t, 3)
	other, err := OpenJournal(dir, "gpu1")
	if err != nil {
		t.Fatal(err)
	}
	if got := other.nextBlock(); got != 1 {
		t.Errorf("next block of a new file: %d", got)
	}
	for i := range 4 {
		if err := other.append(testRecord(i + 2)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, other)
	j := mustOpen(t, dir)
	defer mustClose(t, j)
	if j.index.shotRecords != 7 || len(j.index.shots) != 6 || len(j.index.blocks) != 2 {
		t.Errorf("%d records of %d shots in %d blocks", j.index.shotRecords, len(j.index.shots), len(j.index.blocks))
	}
	if got := j.nextBlock(); got != 2 {
		t.Errorf("next block: %d", got)
	}
}

// A listing that does not show the file yet does not empty it.
func TestJournalOfAStaleListing(t *testing.T) {
	dir, _ := writeJournal(t, 3)
	j, err := openJournal(dir, DefaultShard, nil)
	if err != nil {
		t.Fatal(err)
	}
	if j.index.shotRecords != 3 || j.nextBlock() != 2 {
		t.Errorf("%d shots, next block %d", j.index.shotRecords, j.nextBlock())
	}
	mustClose(t, j)
	j = mustOpen(t, dir)
	defer mustClose(t, j)
	if j.index.shotRecords != 3 {
		t.Errorf("then %d shots", j.index.shotRecords)
	}
}

func FuzzJournal(f *testing.F) {
	line, err := appendRecord(nil, testRecord(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(line, line[:20]...))
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, DefaultShard+".jsonl")
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		j := mustOpen(t, dir)
		had := j.index.shotRecords
		if err := j.append(testRecord(1)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		// Whatever stood there, what is appended is found again.
		j = mustOpen(t, dir)
		defer mustClose(t, j)
		if j.index.shotRecords != had+1 || len(j.Torn) != 0 {
			t.Errorf("%d shots after %d and one more, torn %v", j.index.shotRecords, had, j.Torn)
		}
	})
}

func BenchmarkOpenJournal(b *testing.B) {
	dir, _ := writeJournal(b, 60_000)
	b.ReportAllocs()
	for b.Loop() {
		j := mustOpen(b, dir)
		if j.index.shotRecords != 60_000 {
			b.Fatal(j.index.shotRecords)
		}
		mustClose(b, j)
	}
}

func BenchmarkJournalAppend(b *testing.B) {
	j := mustOpen(b, b.TempDir())
	defer mustClose(b, j)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := j.append(testRecord(i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
