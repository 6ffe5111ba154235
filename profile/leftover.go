package profile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// removeLeftovers removes what killed runs left half written: the siblings from
// which files are renamed into place. The caller holds the bundle's lock, so
// that none is in use.
func removeLeftovers(dir string) error {
	folders := []string{dir}
	var errs []error
	entries, err := os.ReadDir(dir)
	errs = append(errs, ignoreAbsent(err))
	for _, e := range entries {
		if e.IsDir() && (strings.HasPrefix(e.Name(), "tp") || e.Name() == JournalDir) {
			folders = append(folders, filepath.Join(dir, e.Name()))
		}
	}
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		errs = append(errs, ignoreAbsent(err))
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tmp") {
				errs = append(errs, ignoreAbsent(os.Remove(filepath.Join(folder, e.Name()))))
			}
		}
	}
	return errors.Join(errs...)
}
