package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerprof/layerprof/internal/atomicfile"
)

// HasShards reports whether the bundle in dir has shards' journals.
func HasShards(dir string) bool {
	return len(shardPlanFiles(filepath.Join(dir, JournalDir))) > 0
}

// GatherShards copies the journals of bundles whose shards were measured in
// folders apart into the bundle at dir, for MergeShards. A file that several
// have under one name with different contents (a shard that was begun on one
// machine and ended on another) is kept from each. Parts that were planned with
// other settings are refused.
func GatherShards(dir string, parts []string) error {
	to := filepath.Join(dir, JournalDir)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	var first []*shardPlan
	for _, part := range parts {
		from := filepath.Join(part, JournalDir)
		plans, err := readShardPlans(from, false)
		if err != nil {
			return err
		}
		if first == nil {
			first = plans
		}
		if list := differences(first[0].Settings, plans[0].Settings); len(list) > 0 {
			return &PlanDifferenceError{shardPlanPath(part, plans[0].TP), list}
		}
		files, err := journalFiles(from)
		if err != nil {
			return err
		}
		for _, plan := range shardPlanFiles(from) {
			// The first part's plan is the plan; should another's differ, what
			// that one lacks is found missing.
			if _, err := os.Stat(filepath.Join(to, filepath.Base(plan))); errors.Is(err, os.ErrNotExist) {
				files = append(files, plan)
			}
		}
		for _, file := range files {
			if err := gather(to, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveShards moves journal files out of a bundle's journal into that of the
// bundle at dir, with copies of the plans. Each file is whole in one of the two
// folders at any moment, and after a crash in between in both: then what it
// holds counts in both until it is moved again.
func moveShards(from, dir string, files []string) error {
	to := filepath.Join(dir, JournalDir)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	for _, plan := range shardPlanFiles(from) {
		if _, err := os.Stat(filepath.Join(to, filepath.Base(plan))); errors.Is(err, os.ErrNotExist) {
			if err := gather(to, plan); err != nil {
				return err
			}
		}
	}
	for _, file := range files {
		if err := gather(to, file); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return syncDir(from)
}

// gather copies a file into a folder, under another name where its own is taken
// by different contents.
func gather(to, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	base, ext, _ := strings.Cut(filepath.Base(file), ".")
	name := filepath.Join(to, base+"."+ext)
	for n := 2; ; n++ {
		there, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			return atomicfile.Write(name, func(w io.Writer) error {
				_, err := w.Write(text)
				return err
			})
		}
		if err != nil || bytes.Equal(there, text) {
			return err
		}
		name = filepath.Join(to, fmt.Sprintf("%s-part%d.%s", base, n, ext))
	}
}
