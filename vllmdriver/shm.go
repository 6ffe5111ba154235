package vllmdriver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const shmFolder = "/dev/shm"

// shmName is what engines and Python name their segments
// ("vllm_dist_<hex>-tp:0-[0-1]-cpushm_0"): no blank, no slash, nothing that means
// more than itself to the guard's shell, which expands no patterns.
var shmName = regexp.MustCompile(`^[A-Za-z0-9_.:@+=,\[\]-]+$`)

// shmNames are the names in shared memory that a worker leaves if it is killed:
// those that its processes hold and that were not there before it started.
type shmNames struct {
	before map[string]bool
	held   map[string]bool
}

func listSHM() *shmNames {
	s := &shmNames{before: make(map[string]bool), held: make(map[string]bool)}
	entries, err := os.ReadDir(shmFolder)
	if err != nil {
		return s // no such folder on this system: nothing will be held either
	}
	for _, e := range entries {
		s.before[e.Name()] = true
	}
	return s
}

// note looks at the group's processes and returns the names that are new.
func (s *shmNames) note(group int) []string {
	var fresh []string
	for _, pid := range groupMembers(group) {
		for _, path := range openFiles(pid) {
			name, ok := strings.CutPrefix(path, shmFolder+"/")
			if !ok || strings.HasSuffix(name, " (deleted)") || !shmName.MatchString(name) || name == "." || name == ".." {
				continue
			}
			if !s.before[name] && !s.held[name] {
				s.held[name] = true
				fresh = append(fresh, name)
			}
		}
	}
	return fresh
}

func (s *shmNames) sweep() error {
	var failed []error
	for name := range s.held {
		if err := os.Remove(filepath.Join(shmFolder, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("shared memory: %w", err))
		}
	}
	return errors.Join(failed...)
}
