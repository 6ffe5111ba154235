package traceloader

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/perfio"
)

// CalibrationFile is the name of a stored calibration, beside meta.yaml.
const CalibrationFile = "calibration.json"

// calibrationVersion changes when a stored calibration of older code must not
// be used.
const calibrationVersion = 4

// Calibration is what the accurate rules found in a bundle.
type Calibration struct {
	Version int             `json:"version"`
	Files   string          `json:"files_sha256"` // of the files that it was made from
	TPs     []TPCalibration `json:"tps"`
}

// TPCalibration is the calibration of one tp folder.
type TPCalibration struct {
	TP         int `json:"tp"`
	QueryHeads int `json:"query_heads,omitempty"`
	KVHeads    int `json:"kv_heads,omitempty"`
	SMs        int `json:"sm_count,omitempty"`
	// Attention is nil where no attention was measured.
	Attention *attnmodel.Calibration `json:"attention,omitempty"`
}

func (c *Calibration) tp(degree int) *attnmodel.Calibration {
	if c == nil {
		return nil
	}
	for i := range c.TPs {
		if c.TPs[i].TP == degree {
			return c.TPs[i].Attention
		}
	}
	return nil
}

// Calibration says what the accurate rules found; false under other rules.
func (t *Table) Calibration() (Calibration, bool) {
	if t.calibration == nil {
		return Calibration{}, false
	}
	c := *t.calibration
	c.TPs = slices.Clone(c.TPs)
	return c, true
}

// Calibrate opens the bundle in dir by the accurate rules, without a stored
// calibration, and stores what they find in CalibrationFile beside meta.yaml.
func Calibrate(dir string, o Options) (Calibration, error) {
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		return Calibration{}, err
	}
	o.Rules, o.IgnoreCalibration = Accurate, true
	t, err := New(b, o)
	if err != nil {
		return Calibration{}, err
	}
	c, _ := t.Calibration()
	if c.Files, err = filesHash(dir); err != nil {
		return Calibration{}, err
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return Calibration{}, err
	}
	return c, atomicfile.Write(filepath.Join(dir, CalibrationFile), func(w io.Writer) error {
		_, err := w.Write(append(data, '\n'))
		return err
	})
}

// storedCalibration reads the calibration beside the bundle. One that is
// stale or cannot be read is not used, and the warning says so.
func storedCalibration(b *perfio.Bundle, o *Options) (c *Calibration, warning string) {
	if o.IgnoreCalibration || b.Dir == "" {
		return nil, ""
	}
	data, err := os.ReadFile(filepath.Join(b.Dir, CalibrationFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, syscall.ENOTDIR) { // the last: a packed bundle
		return nil, ""
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return nil, fmt.Sprintf("%s: %v: it is not used", CalibrationFile, err)
	}
	if c.Version != calibrationVersion {
		return nil, fmt.Sprintf("%s: version: found %d, expected %d: it is not used", CalibrationFile, c.Version, calibrationVersion)
	}
	hash, err := filesHash(b.Dir)
	if err != nil {
		return nil, fmt.Sprintf("%s: %v: it is not used", CalibrationFile, err)
	}
	if c.Files != hash {
		return nil, fmt.Sprintf("%s: files_sha256: it was made from other files than these: it is stale and not used", CalibrationFile)
	}
	return c, ""
}

// filesHash covers the names and contents of meta.yaml and of the files of the
// tp folders that a calibration is made from.
func filesHash(dir string) (string, error) {
	names := []string{"meta.yaml"}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "tp") {
			continue
		}
		for _, f := range []string{"attention.csv", "skew.csv", "batches.jsonl"} {
			names = append(names, e.Name()+"/"+f)
		}
	}
	h := sha256.New()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
