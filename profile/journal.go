package profile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// JournalDir is the journal's folder inside a bundle.
const JournalDir = ".journal"

// DefaultShard is the file that a run without shards appends to.
const DefaultShard = "shots"

// A Journal is the record of everything that was measured for one bundle:
// files of checksummed lines, appended to and never rewritten. The bundle's
// tables are derived from it. A run appends to one file and reads all of them,
// so that several processes can each have their own.
//
// A Journal is used by one goroutine.
type Journal struct {
	// Damages lists what was found damaged: each is a region that was skipped.
	Damages []*JournalDamage
	// Torn is what was cut off the end of a file: the unfinished last write of
	// a killed process.
	Torn []*JournalDamage

	own     string // the file that is appended to
	file    journalFile
	pending []byte // encoded, not written
	dirty   bool   // written, not synced
	memory  bool   // records enter the index alone
	err     error  // the first failed write or sync; nothing is appended after it
	index   journalIndex
}

// journalFile is what Journal needs of the file that it appends to.
type journalFile interface {
	io.Writer
	Sync() error
	Close() error
	Truncate(size int64) error
}

// JournalDamage is a region of a journal file that could not be used.
type JournalDamage struct {
	File   string
	Offset int64 // of the region's first byte
	Bytes  int64
	Err    error
}

func (d *JournalDamage) Error() string {
	return fmt.Sprintf("%s:%d: %d bytes: %v", d.File, d.Offset, d.Bytes, d.Err)
}

// Unwrap gives the cause.
func (d *JournalDamage) Unwrap() error { return d.Err }

// OpenJournal reads the journal in dir, creating it if need be, and opens the
// named shard's file for appending. The caller holds the bundle's Lock. Damage is no
// error: it is listed in Damages, and what was lost counts as not measured.
func OpenJournal(dir, shard string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	names, err := journalFiles(dir)
	if err != nil {
		return nil, err
	}
	return openJournal(dir, shard, names)
}

// openJournal opens the journal whose files are names, and the shard's own,
// which a network file system's listing may not show yet: it is opened by its
// name, so that what stands in it is never taken for nothing.
func openJournal(dir, shard string, names []string) (_ *Journal, err error) {
	j := &Journal{own: filepath.Join(dir, shard+".jsonl"), index: newJournalIndex()}
	f, err := os.OpenFile(j.own, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	at, found := slices.BinarySearch(names, j.own)
	if !found {
		names = slices.Insert(slices.Clone(names), at, j.own)
	}
	j.index.own = at
	for i, name := range names {
		size, err := j.read(name, i)
		if err != nil {
			return nil, err
		}
		// A torn tail is cut off before anything is appended to it.
		if name == j.own {
			if err := f.Truncate(size); err != nil {
				return nil, err
			}
		}
	}
	j.file = f
	return j, syncDir(dir)
}

// journalFiles lists the files of the journal in dir, sorted by name.
func journalFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".jsonl" && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// readJournal reads the files named, to append to none.
func readJournal(names []string) (*Journal, error) {
	j := &Journal{index: newJournalIndex()}
	for i, name := range names {
		if _, err := j.read(name, i); err != nil {
			return nil, err
		}
	}
	j.index.own = len(names)
	return j, nil
}

// read indexes one file and returns the size up to which it is sound.
func (j *Journal) read(name string, shard int) (int64, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	damage := func(from, to int, err error) *JournalDamage {
		return &JournalDamage{File: name, Offset: int64(from), Bytes: int64(to - from), Err: err}
	}
	lines := splitLines(data)
	records, errs := parseAll(lines)
	offset := 0
	for i, line := range lines {
		end := offset + len(line)
		switch {
		case errs[i] == nil:
			j.index.add(records[i], shard)
		case i == len(lines)-1 && line[len(line)-1] != '\n':
			j.Torn = append(j.Torn, damage(offset, end, errors.New("an unfinished record")))
			return int64(offset), nil
		default:
			j.Damages = append(j.Damages, damage(offset, end, errs[i]))
		}
		offset = end
	}
	return int64(len(data)), nil
}

// splitLines cuts data behind each line end; the last line may lack one.
func splitLines(data []byte) [][]byte {
	return bytes.SplitAfter(data, []byte("\n"))[:max(0, lineCount(data))]
}

func lineCount(data []byte) int {
	n := bytes.Count(data, []byte("\n"))
	if len(data) > 0 && data[len(data)-1] != '\n' {
		n++
	}
	return n
}

// parseAll parses lines on two goroutines: decoding is what opening a journal
// costs.
func parseAll(lines [][]byte) ([]*record, []error) {
	records := make([]*record, len(lines))
	errs := make([]error, len(lines))
	parse := func(from, to int) {
		for i := from; i < to; i++ {
			line, whole := bytes.CutSuffix(lines[i], []byte("\n"))
			if !whole {
				errs[i] = errors.New("no line end")
				continue
			}
			records[i], errs[i] = parseRecord(line)
		}
	}
	var wg sync.WaitGroup
	half := len(lines) / 2
	wg.Go(func() { parse(0, half) })
	parse(half, len(lines))
	wg.Wait()
	return records, errs
}

// append adds a record to the index and to the file. The record survives the
// end of this process once append has returned, and a power cut once sync has.
func (j *Journal) append(r *record) error {
	if j.memory {
		j.index.add(r, j.index.own)
		return nil
	}
	if j.err == nil && j.file == nil {
		j.err = errors.New("journal: it is not open for appending")
	}
	if j.err != nil {
		return j.err
	}
	line, err := appendRecord(j.pending[:0], r)
	if err != nil {
		return err
	}
	j.pending = line[:0]
	if _, err := j.file.Write(line); err != nil {
		// A part of the line may stand in the file; the next opening cuts it off.
		j.err = fmt.Errorf("journal: %w", err)
		return j.err
	}
	j.dirty = true
	j.index.add(r, j.index.own)
	return nil
}

// nextBlock is a number that no block of this journal's own file has.
func (j *Journal) nextBlock() int { return j.index.shard(j.index.own).last + 1 }

// sync has everything appended so far on disk.
func (j *Journal) sync() error {
	if j.err != nil || !j.dirty {
		return j.err
	}
	if err := j.file.Sync(); err != nil {
		// The kernel may have dropped the pages: what was appended since the
		// last sync is not to be relied on, and a second Sync would not tell.
		j.err = fmt.Errorf("journal: %w", err)
		return j.err
	}
	j.dirty = false
	return nil
}

// Close syncs and closes the journal's file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.sync(), j.file.Close())
	j.file = nil
	return err
}

// environmentID is a short name for a fingerprint: equal fingerprints have
// equal ids in every process, so that a record says what it was measured under even if
// the record of the fingerprint itself is lost.
func environmentID(fingerprint map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(fingerprint)) {
		fmt.Fprintf(&b, "%q=%q\n", k, fingerprint[k])
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:6])
}

// syncDir has the names in a folder on disk. Some file systems refuse; then
// there is nothing more to be done.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
