package hardware

// Kind says what sort of device a specification describes.
type Kind string

// A GPU has streaming multiprocessors in the sense of CUDA; anything else is
// an accelerator.
const (
	GPU         Kind = "gpu"
	Accelerator Kind = "accelerator"
)

// AttentionKernel names the family of attention kernels that an engine runs on
// the device: how it cuts a batch into tiles.
type AttentionKernel string

// FlashAttention2 runs tiles of 64 query rows, one query head each, and splits
// the KV history of pure decode batches only. FlashAttention3 packs the query
// heads of a KV head into one tile and splits any small batch. Tiles is the
// plain case: packed heads, no split.
const (
	FlashAttention2 AttentionKernel = "flash-attention-2"
	FlashAttention3 AttentionKernel = "flash-attention-3"
	Tiles           AttentionKernel = "tiles"
)

// Spec is what is known of one device. Copies share the map and the slices,
// which nobody changes.
type Spec struct {
	Key          string
	Kind         Kind
	Names        []string           // exactly as the driver reports them, but for case
	ComputeUnits int                // at least 1
	PeakTFLOPS   map[string]float64 // dense, by vLLM's name of the type: "bfloat16", "fp8", ...
	VectorTFLOPS float64            // float32, outside of the matrix units; 0: not known
	MemoryGBPerS float64            // 10^9 bytes a second
	MemoryGB     float64            // 10^9 bytes
	CacheMiB     float64            // 0: no cache before memory
	LaunchUS     float64            // least time of one kernel on the device
	PowerW       float64            // 0: not known
	Attention    AttentionKernel
	Sources      []string
}

// SMCount is the number of streaming multiprocessors, 0 for what is no GPU.
func (s *Spec) SMCount() int {
	if s.Kind != GPU {
		return 0
	}
	return s.ComputeUnits
}
