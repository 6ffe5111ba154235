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
	return fmt.Sprintf("found one of %d of a bundle that is divided in %s, expected %s, or that all of these are through; to divide it anew before give the files %s other names, before-1.jsonl say: what they hold stays measured",
		e.Shard.Count, strings.Join(found, " and in "), strings.Join(expected, " or "), filepath.Join(e.Dir, JournalDir, "shard-*.jsonl"))
}

// CheckDivision gives a *DivisionError where the bundle in dir has shards, and
// none of the shard's number: parts of another number, a mistyped one say,
// overlap those that there are. Nothing overlaps once all shards of a number are
// through, as those that a run on several devices leaves.
func CheckDivision(dir string, shard Shard) error {
	files, err := journalFiles(filepath.Join(dir, JournalDir))
	if err != nil {
		return ignoreAbsent(err)
	}
	found := divisions(files)
	if len(found) == 0 || slices.Contains(found, shard.Count) {
		return nil
	}
	if through, err := anyThrough(dir, found); through || err != nil {
		return err
	}
	return &DivisionError{Dir: dir, Shard: shard, Found: found}
}

// anyThrough reports whether of one of the numbers every shard's last run ended
// complete.
func anyThrough(dir string, numbers []int) (bool, error) {
	entries, err := TailJournal(dir).Next(EntryPlan, EntryEnd)
	if err != nil {
		return false, err
	}
	through := make(map[string]bool) // by shard; a run that was killed ends with its plan
	for _, e := range entries {
		through[e.Shard] = e.Kind == EntryEnd && e.Message == EndComplete
	}
	return slices.ContainsFunc(numbers, func(count int) bool {
		for i := range count {
			if !through[Shard{i, count}.JournalName()] {
				return false
			}
		}
		return true
	}), nil
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
