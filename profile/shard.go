package profile

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// MaxShards bounds the number of shards of a plan.
const MaxShards = 100_000

// A Shard is one of Count parts of a plan that are measured apart, each into a
// file of its own in the bundle's journal. The zero Shard is the whole plan.
type Shard struct {
	Index int // from 0
	Count int // 0: not a shard
}

// ParseShard reads "i/n", i from 0 to n-1. Whoever counts from 1 to n gets the
// same shards: n/n is 0/n.
func ParseShard(text string) (Shard, error) {
	index, count, ok := strings.Cut(text, "/")
	i, errI := strconv.Atoi(index)
	n, errN := strconv.Atoi(count)
	if !ok || errI != nil || errN != nil {
		return Shard{}, fmt.Errorf("shard: found %q, expected i/n", text)
	}
	s := Shard{i, n}
	if n > 0 && i == n {
		s.Index = 0
	}
	if n < 1 {
		return Shard{}, fmt.Errorf("shard: found %q, expected one or more shards", text)
	}
	return s, s.check()
}

func (s Shard) check() error {
	if s == (Shard{}) {
		return nil
	}
	if s.Count < 1 || s.Count > MaxShards || s.Index < 0 || s.Index >= s.Count {
		return fmt.Errorf("shard: found %d of %d, expected 0 to %d of at most %d", s.Index, s.Count, max(s.Count-1, 0), MaxShards)
	}
	return nil
}

// String is "i/n", "" for the whole plan.
func (s Shard) String() string {
	if s.Count == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Index, s.Count)
}

// JournalName names the shard's file in the journal's folder, without the
// extension: shard-0003-of-0012, DefaultShard for the whole plan.
func (s Shard) JournalName() string {
	if s.Count == 0 {
		return DefaultShard
	}
	return fmt.Sprintf("shard-%04d-of-%04d", s.Index, s.Count)
}

// shardOfFile is the shard whose journal a file is; false for one that is no
// shard's.
func shardOfFile(name string) (Shard, bool) {
	var s Shard
	base := strings.TrimSuffix(filepath.Base(name), ".jsonl")
	if n, err := fmt.Sscanf(base, "shard-%d-of-%d", &s.Index, &s.Count); n != 2 || err != nil || s.Count < 1 {
		return Shard{}, false
	}
	return s, s.check() == nil && s.JournalName() == base
}
