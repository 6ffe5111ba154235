package profile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// EntryKind says what a JournalEntry tells.
type EntryKind string

const (
	EntryBoot   EntryKind = "boot"   // an engine is there
	EntryPlan   EntryKind = "plan"   // a category has Total shots, Done of them measured before
	EntryBegin  EntryKind = "begin"  // a category's shots follow
	EntryShot   EntryKind = "shot"   // what came of one shot
	EntryAnchor EntryKind = "anchor" // what came of one anchor
	EntryRedo   EntryKind = "redo"   // the block's shots count no more: they are measured again
	EntryEnd    EntryKind = "end"    // the run ended by itself
)

// JournalEntry is one thing that a journal tells.
type JournalEntry struct {
	Kind     EntryKind
	Shard    string // the journal's file, without the ending
	Time     time.Time
	TP       int
	Category Category // of a plan or a begin
	// Done and Total count the shots of a plan; Degrees are all of its run's.
	Done, Total int
	Degrees     []int

	// Of shots and anchors. Scope and Shape together identify the measurement.
	Scope, Shape string
	Block        int // 0: none; also of a redo
	Status       Status
	// Message is a failure's last words, or how a run ended: EndComplete,
	// EndPartial or an error.
	Message string
	// LevelUS is the geometric mean over the layers of their samples' medians,
	// in microseconds; 0 where there are none.
	LevelUS float64
	// Spread is the samples' range over their median, the median over the
	// layers; 0 where no layer has two samples.
	Spread    float64
	Samples   int // of the layer that has most
	Imported  bool
	Telemetry *Telemetry
}

// A JournalTail reads a bundle's journal while a run may be at work on it. It
// changes nothing and takes no lock. It is for one goroutine.
type JournalTail struct {
	dir   string
	files map[string]int64 // by name: up to where it was read
	// Damaged counts the lines that were passed over as damaged.
	Damaged int
}

// TailJournal follows the journal of the bundle in folder dir.
func TailJournal(dir string) *JournalTail {
	return &JournalTail{dir: filepath.Join(dir, JournalDir), files: map[string]int64{}}
}

// Next returns what was appended since the last call, file by file; with keep,
// only entries of these kinds. An unfinished last line waits for the next call.
// The error of a bundle without a journal is fs.ErrNotExist.
func (t *JournalTail) Next(keep ...EntryKind) ([]JournalEntry, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, err
	}
	var out []JournalEntry
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".jsonl" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		out, err = t.read(out, e.Name(), keep)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	return out, nil
}

func (t *JournalTail) read(out []JournalEntry, name string, keep []EntryKind) (_ []JournalEntry, err error) {
	f, err := os.Open(filepath.Join(t.dir, name))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.NewSectionReader(f, t.files[name], math.MaxInt64-t.files[name]))
	if err != nil {
		return out, err
	}
	shard := strings.TrimSuffix(name, ".jsonl")
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			return out, nil
		}
		line := data[:end]
		data = data[end+1:]
		t.files[name] += int64(end) + 1
		if len(keep) > 0 && !mayBe(line, keep) {
			continue
		}
		r, err := parseRecord(line)
		if err != nil {
			t.Damaged++
			continue
		}
		if e, ok := r.entry(shard); ok && (len(keep) == 0 || slices.Contains(keep, e.Kind)) {
			out = append(out, e)
		}
	}
}

// mayBe tells from a line's first field, without decoding it, whether it may be
// of one of the kinds.
func mayBe(line []byte, keep []EntryKind) bool {
	const field = `{"k":"`
	if len(line) < checksumSize || !bytes.HasPrefix(line[checksumSize:], []byte(field)) {
		return true // not one of ours: parsing decides
	}
	rest := line[checksumSize+len(field):]
	for kind, of := range entryKinds {
		if slices.Contains(keep, of) && bytes.HasPrefix(rest, []byte(kind)) {
			return true
		}
	}
	return false
}

var entryKinds = map[recordKind]EntryKind{
	recordEnvironment: EntryBoot, recordPlan: EntryPlan, recordBegin: EntryBegin, recordShot: EntryShot,
	recordAnchor: EntryAnchor, recordBlock: EntryRedo, recordEnd: EntryEnd,
}

// entry is the record for others; false where it tells them nothing.
func (r *record) entry(shard string) (JournalEntry, bool) {
	kind, ok := entryKinds[r.Kind]
	if !ok || r.Kind == recordBlock && !r.Redone {
		return JournalEntry{}, false
	}
	e := JournalEntry{
		Kind: kind, Shard: shard, TP: r.TP, Category: r.Category, Done: r.Done, Total: r.Total, Degrees: r.Degrees,
		Scope: r.Scope, Shape: r.Shape, Block: r.Block, Status: r.Status, Message: r.Message,
		Imported: r.Imported, Telemetry: r.Telemetry,
	}
	if r.TimeMS > 0 {
		e.Time = time.UnixMilli(r.TimeMS)
	}
	var spreads []float64
	sum, n := 0.0, 0
	for _, l := range r.Layers {
		if len(l.US) == 0 {
			continue
		}
		e.Samples = max(e.Samples, len(l.US))
		middle := median(slices.Clone(l.US))
		sum += math.Log(middle)
		n++
		if len(l.US) > 1 {
			spreads = append(spreads, (slices.Max(l.US)-slices.Min(l.US))/middle)
		}
	}
	if n > 0 {
		e.LevelUS = math.Exp(sum / float64(n))
	}
	if len(spreads) > 0 {
		e.Spread = median(spreads)
	}
	return e, true
}

// Holder is who works on a bundle, or on a shard of it.
type Holder struct {
	Lock string // the lock's file, by its name
	Host string
	PID  int
	// Here: the holder is of this host, and Alive is known. Elsewhere it is
	// alive as long as Beat changes, which it does every two seconds.
	Here  bool
	Alive bool
	Beat  string
}

// HoldersOf looks at the locks of the bundle in folder dir, and leaves them
// alone: one of a run of the whole plan, or one of each shard that is measured.
func HoldersOf(dir string) ([]Holder, error) {
	folder := filepath.Join(dir, JournalDir)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Holder
	for _, e := range entries {
		if e.Name() != lockFile && !strings.HasSuffix(e.Name(), "."+lockFile) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return nil, err
		}
		h := parseHolder(text)
		here := h.sameHost(thisProcess())
		out = append(out, Holder{Lock: e.Name(), Host: h.Host, PID: h.PID, Here: here, Alive: here && h.alive(), Beat: string(text)})
	}
	return out, nil
}
