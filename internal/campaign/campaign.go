package campaign

import (
	"time"

	"gopkg.in/yaml.v3"
)

// Campaign is a campaign file.
type Campaign struct {
	File    string
	Name    string        // of what is emitted; letters, digits, '.', '_' and '-'
	Out     string        // the folder that bundles stand in, as the jobs see it
	Program string        // the command that jobs run; "profile" where the file has none
	Budget  time.Duration // of one job's run; 0: none
	// Shards is the number of jobs that share a bundle; 0: as many as keep within
	// the budget.
	Shards int
	// Attempts bounds how often a job is started.
	Attempts int
	// Parallel bounds the jobs of one kind of hardware that run at a time; 0: the
	// scheduler does.
	Parallel int
	TPs      []int // in the file's order

	Settings
	Hardware []Hardware
	Models   []Model
	Variants []Variant
	Exclude  []Selection

	Slurm      []Option
	Kubernetes Kubernetes

	places map[string]place // of values, by path
}

// Settings are flags of profile run, from the keys driver, plan, engine-args and
// flags, which the file's top and each entry of its lists may have. Those of an
// entry win over the top's, a variant's over a model's over a hardware's.
type Settings struct {
	Flags      []Option
	EngineArgs []Option
}

// Option is a name with its value.
type Option struct {
	Name, Value string
	Path        string // where the file has it, as "flags.iterations"
}

// Hardware is one kind of machine.
type Hardware struct {
	Name string
	Path string // where the file has it, as "hardware[0]"
	Settings
	Slurm      []Option // options of sbatch, over the campaign's
	Kubernetes Kubernetes
}

// Model is a model, by the id or path that --model takes.
type Model struct {
	ID   string
	Path string
	TPs  []int // in the file's order; nil: the campaign's
	Settings
}

// Variant is a bundle's last folder, by what makes it: its data types, say.
type Variant struct {
	Name string // "": as profile run names it
	Path string // "" where the file has no variants
	Settings
}

// Selection leaves out the bundles that match all of its names; "" matches any.
type Selection struct {
	Hardware, Model, Variant string
	Path                     string
}

// Kubernetes is what Indexed Jobs need to know. A hardware's entry holds what
// differs from the campaign's.
type Kubernetes struct {
	Namespace string
	Image     string
	// Claim is the PersistentVolumeClaim that the bundles stand on. With Storage
	// it is made, else it is there.
	Claim, Storage, StorageClass, AccessMode string
	Mount                                    string // where it is in a pod
	GPUResource                              string
	GPUs                                     int // -1: none, for drivers that need no device
	NodeSelector                             []Option
	Secret                                   string // whose keys become environment variables
	GracePeriod                              time.Duration
	Pod                                      *yaml.Node // a mapping laid over the pod's specification
}

// The defaults of a campaign file.
const (
	DefaultAttempts    = 20
	DefaultGracePeriod = 2 * time.Minute
	maxShards          = 10_000
)
