package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// Source is a bundle made ready for replay, and the state of the device that it
// stands for. Drivers share it.
type Source struct {
	options Options
	bundle  *perfio.Bundle
	hash    string // of every file that answers come from
	tps     map[int]*tables

	mu       sync.Mutex
	attempts map[shotKey]int
	drift    drift
}

// tables are one tp folder by the keys that shots ask for.
type tables struct {
	degree      int
	dense       map[countKey]float64
	perSequence map[countKey]float64
	attention   map[attentionKey]float64
	moe         map[moeKey]float64
	skew        map[skewKey]skewTimes
	collectives map[countKey][]*perfio.CollectiveRow
	batches     map[string]*perfio.BatchRow // by the requests, as Shape has them
}

type countKey struct {
	layer string
	n     int
}

type attentionKey struct{ pc, kp, nd, kd int }

type moeKey struct{ tokens, experts int }

// skewKey is what makes two rows of skew.csv the same case.
type skewKey struct {
	n, nb       int
	skew        float64
	pc, kp, kvs int
}

// Open reads the bundle. Its errors are those of perfio, positioned.
func Open(o Options) (*Source, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	bundle, err := perfio.OpenBundle(o.Bundle, perfio.Without(perfio.SkewFitFile))
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	s := &Source{options: o, bundle: bundle, tps: map[int]*tables{}, attempts: map[shotKey]int{}, drift: newDrift(o.Seed)}
	if s.hash, err = hashFiles(o.Bundle); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	for i := range bundle.TPs {
		t := index(&bundle.TPs[i])
		s.tps[t.degree] = t
	}
	return s, nil
}

func index(tp *perfio.TP) *tables {
	t := &tables{
		degree:    tp.Degree,
		dense:     make(map[countKey]float64, len(tp.Dense)),
		attention: make(map[attentionKey]float64, len(tp.Attention)),
		skew:      make(map[skewKey]skewTimes, len(tp.Skew)),

		collectives: map[countKey][]*perfio.CollectiveRow{},

		perSequence: map[countKey]float64{}, moe: map[moeKey]float64{}, batches: map[string]*perfio.BatchRow{},
	}
	for _, r := range tp.Dense {
		t.dense[countKey{r.Layer, r.Tokens}] = r.TimeUS
	}
	for _, r := range tp.PerSequence {
		t.perSequence[countKey{r.Layer, r.Sequences}] = r.TimeUS
	}
	for _, r := range tp.Attention {
		t.attention[attentionKey{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}] = r.TimeUS
	}
	for _, r := range tp.MoE {
		t.moe[moeKey{r.Tokens, r.ActivatedExperts}] = r.TimeUS
	}
	for i := range tp.Skew {
		r := &tp.Skew[i] // of a repeated case the last row counts
		t.skew[skewKey{r.N, r.NB, r.Skew, r.PC, r.KP, r.KVS}], _ = unrounded(r)
	}
	for i := range tp.Collectives {
		r := &tp.Collectives[i]
		k := countKey{r.Layer, r.Tokens}
		t.collectives[k] = append(t.collectives[k], r)
	}
	for i := range tp.Batches {
		t.batches[requestsKey(tp.Batches[i].Requests)] = &tp.Batches[i]
	}
	return t
}

// has says whether there is any row of a layer.
func (t *tables) has(entry *perfio.CatalogEntry) bool {
	switch entry.Category {
	case "attention":
		return len(t.attention) > 0
	case "moe":
		return len(t.moe) > 0
	case "dense":
		return hasLayer(t.dense, entry.Layer)
	}
	return hasLayer(t.perSequence, entry.Layer)
}

func hasLayer(rows map[countKey]float64, layer string) bool {
	for k := range rows {
		if k.layer == layer {
			return true
		}
	}
	return false
}

// requestsKey identifies a batch by its requests in executed order.
func requestsKey(requests []perfio.Request) string {
	b := make([]byte, 0, 12*len(requests))
	for _, r := range requests {
		b = strconv.AppendInt(b, int64(r.NewTokens), 10)
		b = append(b, '@')
		b = strconv.AppendInt(b, int64(r.KVHistory), 10)
		b = append(b, ' ')
	}
	return string(b)
}

// answering are the files that answers come from.
var answering = []string{
	perfio.DenseFile, perfio.PerSequenceFile, perfio.AttentionFile, perfio.MoEFile, perfio.SkewFile, perfio.BatchesFile,
	perfio.CollectivesFile, perfio.StepFile,
}

// hashFiles identifies the bundle by content, wherever it lies.
func hashFiles(dir string) (string, error) {
	fsys := os.DirFS(dir)
	names, err := fs.Glob(fsys, "tp*/*")
	if err != nil {
		return "", err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(answering, path.Base(n)) })
	slices.Sort(names)
	sum := sha256.New()
	for _, name := range append(names, perfio.MetaFile) {
		if err := hashFile(sum, fsys, name); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hashFile(w io.Writer, fsys fs.FS, name string) (err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content := sha256.New()
	if _, err := io.Copy(content, f); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s %x\n", name, content.Sum(nil))
	return err
}

// NewDriver makes a driver on the source.
func (s *Source) NewDriver() *Driver { return &Driver{source: s} }

// New opens the bundle for one driver.
func New(o Options) (*Driver, error) {
	s, err := Open(o)
	if err != nil {
		return nil, err
	}
	return s.NewDriver(), nil
}

// shotKey identifies a shot with what it is measured for.
type shotKey struct {
	tp       int
	category profile.Category
	role     profile.SkewRole
	skew     skewKey
	shape    string
}

func keyOf(tp int, s *profile.Shot) shotKey {
	k := shotKey{tp: tp, category: s.Category, role: s.Role, shape: s.Shape()}
	if s.Case != nil {
		k.skew = caseKey(s.Case)
	}
	return k
}

func caseKey(c *profile.SkewCase) skewKey {
	return skewKey{n: c.N, nb: c.NB, skew: c.Skew, pc: c.PC, kp: c.KP, kvs: c.KVS}
}
