package profile

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// DivisionError says that a bundle is divided in another number of shards.
type DivisionError struct {
	Dir   string // the bundle's folder
	Shard Shard
	Found []int // numbers of shards that the journal has files of, ascending
}

func (e *DivisionError) Error() string {
	var found, expected []string
	for _, n := range e.Found {
		found = append(found, fmt.Sprint(n))
		expected = append(expected, fmt.Sprintf("i/%d", n))
	}
	return fmt.Sprintf("found one of %d of a bundle that is divided in %s, expected %s; to divide it anew give the files %s other names, before-1.jsonl say: what they hold stays measured",
		e.Shard.Count, strings.Join(found, " and in "), strings.Join(expected, " or "), filepath.Join(e.Dir, JournalDir, "shard-*.jsonl"))
}

// CheckDivision gives a *DivisionError where the bundle in dir has shards, and
// none of the shard's number: parts of another number, a mistyped one say,
// overlap those that there are.
func CheckDivision(dir string, shard Shard) error {
	files, err := journalFiles(filepath.Join(dir, JournalDir))
	if err != nil {
		return ignoreAbsent(err)
	}
	found := divisions(files)
	if len(found) == 0 || slices.Contains(found, shard.Count) {
		return nil
	}
	return &DivisionError{Dir: dir, Shard: shard, Found: found}
}

// divisions are the numbers of shards that files are of, ascending.
func divisions(files []string) []int {
	var found []int
	for _, file := range files {
		if s, ok := shardOfFile(file); ok {
			found = append(found, s.Count)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
