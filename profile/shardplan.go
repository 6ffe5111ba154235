package profile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// shardPlan is what all shards of one degree work by, and all that is needed to
// make its tables of their journals: the plan of the shard that came first.
// Engines of one kind may differ a little (the size of a KV cache goes by the
// memory that was free); shards that each planned for their own would not fit
// together. It stands in the journal's folder, put in place whole by a link.
type shardPlan struct {
	TP       int               `json:"tp"`
	Settings map[string]string `json:"settings"` // in which the shards must agree
	Costs    Costs             `json:"costs"`

	Hardware        string        `json:"hardware"`
	Variant         string        `json:"variant"`
	TPs             []int         `json:"tps"`
	Options         PlanOptions   `json:"options"`
	PlanName        string        `json:"plan_name"`
	Spec            EngineSpec    `json:"spec"` // without the model's document and engine arguments
	Warmup          int           `json:"warmup"`
	Iterations      int           `json:"iterations"`
	MaxIterations   int           `json:"max_iterations"`
	TargetError     float64       `json:"target_error"`
	DriftThreshold  float64       `json:"drift_threshold"`
	AnchorEvery     int           `json:"anchor_every"`
	SkipFit         bool          `json:"skip_fit"`
	ProfilerVersion string        `json:"profiler_version"`
	Driver          Description   `json:"driver"`
	Engine          Engine        `json:"engine"` // without its provenance
	Provenance      string        `json:"provenance"`
	Categories      []storedShots `json:"categories"`
}

// storedShots is a CategoryPlan; skew shots are made of the cases again.
type storedShots struct {
	CategoryPlan
	Shots []Shot `json:"shots,omitempty"`
}

// shardPlanFile holds a shardPlan and the checksum of its text.
type shardPlanFile struct {
	CRC32C string          `json:"crc32c"`
	Plan   json.RawMessage `json:"plan"`
}

func shardPlanPath(dir string, tp int) string {
	return filepath.Join(dir, JournalDir, fmt.Sprintf("plan-tp%d.json", tp))
}

// shardPlanFiles lists the plans in a journal's folder.
func shardPlanFiles(folder string) []string {
	var names []string
	entries, _ := os.ReadDir(folder) // one that cannot be read has none
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "plan-tp") && strings.HasSuffix(e.Name(), ".json") {
			names = append(names, filepath.Join(folder, e.Name()))
		}
	}
	return names
}

// settings are what shards of one plan must agree in. What only says how long to
// go on (iterations, retries, deadlines) is not among them.
func (r *runner) settings() map[string]string {
	o, s := &r.PlanOptions, &r.Spec
	text := func(v any) string { return fmt.Sprint(v) }
	return map[string]string{
		"hardware": r.Hardware, "variant": r.Variant, "model": s.Model.ID, "architecture": s.Architecture.SHA256,
		"tp": text(r.TPs), "tp-mode": string(s.TPMode), "dtype": s.DType, "kv-cache-dtype": s.KVCacheDType, "blocks": text(s.Blocks),
		"max-num-batched-tokens": text(s.MaxNumBatchedTokens), "max-num-seqs": text(s.MaxNumSeqs),
		"max-model-len": text(s.MaxModelLen), "kv-blocks": text(s.KVBlocks),
		"plan": r.PlanName, "attention-kernel": string(o.Kernel), "order": string(o.Order), "only": text(o.Only),
		"skip-skew": text(o.SkipSkew), "share-repeats": text(o.ShareRepeats), "attention-max-kv": text(o.MaxKV),
		"attention-chunk-factor": text(o.ChunkFactor), "attention-kv-factor": text(o.KVFactor),
		"skew-n-factor": text(o.SkewNFactor), "skew-pc-factor": text(o.SkewPCFactor),
		"skew-kp-factor": text(o.SkewKPFactor), "skew-kvs-factor": text(o.SkewKVSFactor),
		"random-batches": text(o.RandomBatches), "validation": text(o.ValidationBatches), "seed": text(o.Seed),
	}
}

// newShardPlan describes the degree that the runner has booted and planned.
func (r *runner) newShardPlan() (*shardPlan, error) {
	d := r.degree
	spec, model := r.Spec, *r.Spec.Model
	model.Document = nil
	spec.Model, spec.EngineArgs = &model, nil // arguments may hold secrets
	engine := *d.engine
	engine.Provenance = nil
	provenance, err := yaml.Marshal(yamlNode(d.engine.Provenance))
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	p := &shardPlan{
		TP: d.tp, Settings: r.settings(), Costs: r.Costs, Hardware: r.Hardware, Variant: r.Variant, TPs: r.TPs,
		Options: r.PlanOptions, PlanName: r.PlanName, Spec: spec,
		Warmup: r.Warmup, Iterations: r.Iterations, MaxIterations: r.MaxIterations, TargetError: r.TargetError,
		DriftThreshold: r.DriftThreshold, AnchorEvery: r.AnchorEvery, SkipFit: r.SkipFit,
		ProfilerVersion: r.ProfilerVersion, Driver: r.description, Engine: engine, Provenance: string(provenance),
	}
	for i := range d.plan.Categories {
		c := storedShots{CategoryPlan: d.plan.Categories[i]}
		if c.Cases == nil {
			c.Shots = c.CategoryPlan.Shots
		} else {
			again := CategoryPlan{}
			again.setCases(c.Cases, r.PlanOptions.Order)
			if !slices.EqualFunc(again.Shots, c.CategoryPlan.Shots, func(a, b Shot) bool { return a.Shape() == b.Shape() && a.Role == b.Role }) {
				return nil, errors.New("the plan's skew shots are not those of its cases")
			}
		}
		c.CategoryPlan.Shots = nil
		p.Categories = append(p.Categories, c)
	}
	return p, nil
}

// plan is the degree's plan.
func (p *shardPlan) plan() TPPlan {
	plan := TPPlan{TP: p.TP}
	for _, stored := range p.Categories {
		c := stored.CategoryPlan
		if c.Shots = stored.Shots; c.Cases != nil {
			c.setCases(c.Cases, p.Options.Order)
		}
		plan.Categories = append(plan.Categories, c)
	}
	return plan
}

// engine is what the shard that came first had booted.
func (p *shardPlan) engine() (*Engine, error) {
	e := p.Engine
	if err := yaml.Unmarshal([]byte(p.Provenance), &e.Provenance); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	return &e, nil
}

// ErrDamagedPlan says that a shards' plan is not what was written.
var ErrDamagedPlan = errors.New("the shards' plan is damaged")

var errPlanAbsent = errors.New("the shards' plan is absent")

// readShardPlan reads the plan of a degree's shards; the error is
// fs.ErrNotExist where there is none, and ErrDamagedPlan where its checksum is
// not that of its text.
func readShardPlan(path string) (*shardPlan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file shardPlanFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrDamagedPlan, err)
	}
	if sum := checksum(file.Plan); sum != file.CRC32C {
		return nil, fmt.Errorf("%s: %w: checksum: found %q, the text gives %q", path, ErrDamagedPlan, file.CRC32C, sum)
	}
	p := new(shardPlan)
	if err := json.Unmarshal(file.Plan, p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.Spec.Model == nil || p.Spec.Architecture == nil {
		return nil, fmt.Errorf("%s: spec: found no model or no architecture", path)
	}
	return p, nil
}

// ShardDriver is the driver that the bundle in dir has shards of, as it described
// itself; false where there are none yet.
func ShardDriver(dir string) (Description, bool) {
	for _, name := range shardPlanFiles(filepath.Join(dir, JournalDir)) {
		if p, err := readShardPlan(name); err == nil { // else whoever needs the plan will say why
			return p.Driver, true
		}
	}
	return Description{}, false
}

func checksum(text []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) }

// place puts the plan where the shards read it; one that stands there stays.
func (p *shardPlan) place(path string) (err error) {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	file, err := json.Marshal(shardPlanFile{CRC32C: checksum(text), Plan: text})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreAbsent(os.Remove(f.Name()))) }()
	_, err = f.Write(append(file, '\n'))
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// PlanDifferenceError says that a shard was started with other settings than
// those that its plan was made for.
type PlanDifferenceError struct {
	Path        string
	Differences []Difference
}

func (e *PlanDifferenceError) Error() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s was made for other settings:", e.Path)
	for _, d := range e.Differences {
		fmt.Fprintf(&b, "\n  %s: was %s, is %s", d.Key, orAbsent(d.Was), orAbsent(d.Now))
	}
	b.WriteString("\nall shards go by one plan; without the file the next shard plans anew, and what is measured stays measured")
	return b.String()
}

// agreedPlan reads the plan of the degree's shards, nil where there is none yet.
func (r *runner) agreedPlan(tp int) (*shardPlan, error) {
	path := shardPlanPath(r.Dir, tp)
	p, err := readShardPlan(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if list := differences(p.Settings, r.settings()); len(list) > 0 {
		return nil, &PlanDifferenceError{path, list}
	}
	return p, nil
}

// planWait is how long a shard waits for another one to plan.
const planWait = 2 * time.Minute

// agreePlan gives the plan that all shards of the degree go by: the one that is
// there, else this shard's own, which it puts there. The rows of a bundle
// without a journal enter the journal before.
func (r *runner) agreePlan(ctx context.Context) (*shardPlan, error) {
	d, path := r.degree, shardPlanPath(r.Dir, r.degree.tp)
	for began := time.Now(); ; {
		p, err := r.agreedPlan(d.tp)
		if errors.Is(err, ErrDamagedPlan) {
			r.warn("%v; this shard plans anew", err)
			err = nil
		}
		if p != nil || err != nil {
			return p, err
		}
		if r.stopping() {
			return nil, ErrStopped
		}
		lock, err := AcquireLock(filepath.Dir(path))
		var locked *LockedError
		switch {
		case err == nil:
			p, err := r.placePlan(path)
			if err = errors.Join(err, lock.Release()); p != nil || err != nil {
				return p, err
			}
			// The file system still shows what was there a moment ago.
		case !errors.As(err, &locked): // else another shard plans
			return nil, err
		}
		if time.Since(began) > planWait || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("%s: waited %v for it to appear", path, planWait), err, ctx.Err())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// placePlan makes the plan; the caller holds the bundle's lock.
func (r *runner) placePlan(path string) (*shardPlan, error) {
	d := r.degree
	p, err := r.agreedPlan(d.tp) // placed meanwhile
	if p != nil || err != nil && !errors.Is(err, ErrDamagedPlan) {
		return p, err
	}
	if err != nil {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	if d.plan, err = r.Plan(d.tp, d.engine); err != nil {
		return nil, fmt.Errorf("tp%d: plan: %w", d.tp, err)
	}
	if err := r.importShared(); err != nil {
		return nil, err
	}
	if p, err = r.newShardPlan(); err != nil {
		return nil, err
	}
	if err := p.place(path); err != nil {
		return nil, err
	}
	return r.agreedPlan(d.tp) // as all others read it
}

// importShared takes the rows of a bundle without a journal into the file that
// belongs to no shard.
func (r *runner) importShared() (err error) {
	old, err := r.readBundle()
	if err != nil || old.Meta == nil {
		return err
	}
	own := r.journal
	shared, err := OpenJournal(filepath.Join(r.Dir, JournalDir), DefaultShard)
	if err != nil {
		return err
	}
	r.journal = shared
	defer func() {
		r.journal = own
		err = errors.Join(err, shared.Close())
	}()
	return r.importRows()
}
