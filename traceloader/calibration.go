package traceloader

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/perfio"
)

// CalibrationFile is the name of a stored calibration, beside meta.yaml.
const CalibrationFile = perfio.CalibrationFile

// calibrationVersion changes when a stored calibration of older code must not
// be used.
const calibrationVersion = 7

// Calibration is what the accurate rules found in a bundle.
type Calibration struct {
	Version int `json:"version"`
	// Content is the SHA-256 of TPs, as JSON without spaces: a file that was
	// changed by hand or on its way is not used.
	Content string          `json:"content_sha256"`
	TPs     []TPCalibration `json:"tps"`
}

// TPCalibration is the calibration of one tp folder.
type TPCalibration struct {
	TP         int `json:"tp"`
	QueryHeads int `json:"query_heads,omitempty"`
	KVHeads    int `json:"kv_heads,omitempty"`
	SMs        int `json:"sm_count,omitempty"`
	// Files is the SHA-256 of all that it was made from: what attention.csv,
	// skew.csv and batches.jsonl say, row by row, the heads, the device and the
	// kernel. "" where it was not stored.
	Files string `json:"files_sha256,omitempty"`
	// Attention is nil where no attention was measured.
	Attention *attnmodel.Calibration `json:"attention,omitempty"`
}

// tp is the calibration of a degree for the given files; a warning says why
// there is none.
func (c *Calibration) tp(degree int, files string) (*attnmodel.Calibration, string) {
	if c == nil {
		return nil, ""
	}
	for i := range c.TPs {
		switch found := &c.TPs[i]; {
		case found.TP != degree:
		case found.Files != files:
			return nil, fmt.Sprintf("%s: tp%d: files_sha256: it was made from other rows, heads, device or kernel than these: it is stale and not used", CalibrationFile, degree)
		default:
			return found.Attention, ""
		}
	}
	return nil, fmt.Sprintf("%s: tp%d: it does not hold this degree, which is calibrated anew", CalibrationFile, degree)
}

func (c *Calibration) contentHash() (string, error) {
	data, err := json.Marshal(c.TPs)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
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
	for i := range c.TPs {
		if found := &c.TPs[i]; found.Attention != nil {
			config, _ := attentionConfig(t, b, *b.TP(found.TP)) // New has warned
			found.Files = config.Hash()
		}
	}
	if c.Content, err = c.contentHash(); err != nil {
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

// storedCalibration reads the calibration that came with the bundle. One that
// cannot be read is not used, and the warning says so.
func storedCalibration(b *perfio.Bundle, o *Options) (c *Calibration, warning string) {
	if o.IgnoreCalibration || b.Calibration == nil {
		return nil, ""
	}
	var read Calibration
	err := json.Unmarshal(b.Calibration, &read)
	if err == nil && read.Version != calibrationVersion {
		err = fmt.Errorf("version: found %d, expected %d", read.Version, calibrationVersion)
	}
	if err == nil {
		var hash string
		if hash, err = read.contentHash(); err == nil && hash != read.Content {
			err = errors.New("content_sha256: it is not that of the content: it was damaged or changed")
		}
	}
	if err != nil {
		return nil, fmt.Sprintf("%s: %v: it is not used", CalibrationFile, err)
	}
	return &read, ""
}
