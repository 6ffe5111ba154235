package roofline

import (
	"math"

	"github.com/layerprof/layerprof/internal/hardware"
)

// What kernels reach of a device's public figures. The same for all devices:
// nothing here is fitted to one of them.
const (
	memoryShare = 0.90 // of the memory bandwidth
	matrixShare = 0.83 // of the matrix rate, by the largest GEMM tiles
	cacheShare  = 0.40 // of the last cache's size, before it spills
	// cacheGBPerSPerUnit is what one SM's loads and stores get out of the last
	// cache; vendors publish no figure.
	cacheGBPerSPerUnit = 35
)

// device is a specification in the units of the model: microseconds and bytes.
type device struct {
	units      float64
	launch     float64 // least time of a kernel
	memory     float64 // bytes per microsecond that kernels reach
	cache      float64 // bytes that stay in the last cache between kernels
	cacheSpeed float64 // bytes per microsecond
	family     family  // of attention kernels
}

func newDevice(s *hardware.Spec) device {
	d := device{
		units:  float64(s.ComputeUnits),
		launch: s.LaunchUS,
		memory: s.MemoryGBPerS * 1e3 * memoryShare,
		cache:  s.CacheMiB * (1 << 20) * cacheShare,
		family: families[s.Attention],
	}
	// A device whose units are few and large has no per-unit figure.
	d.cacheSpeed = math.Max(d.memory, d.units*cacheGBPerSPerUnit*1e3)
	return d
}

// move is the time to read and write activations that the kernel before left
// in the cache as far as they fit.
func (d *device) move(bytes float64) float64 {
	near := math.Min(bytes, d.cache)
	return near/d.cacheSpeed + (bytes-near)/d.memory
}

// elementwise is one kernel that does nothing but move bytes.
func (d *device) elementwise(bytes float64) float64 { return d.launch + d.move(bytes) }

// norm adds two times that overlap, as the fourth root of their fourth powers'
// sum: little more than the longer one, unless they are nearly equal.
func norm(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if a <= 0 {
		return 0
	}
	r := b / a
	r *= r
	return a * math.Sqrt(math.Sqrt(1+r*r))
}

// tile is a GEMM kernel's block of the output, with the share of matrixShare
// that its inner loop reaches: small tiles load more bytes for each product.
type tile struct {
	m, n  float64
	share float64
}

var gemmTiles = []tile{
	{16, 64, 0.30}, {32, 64, 0.45}, {64, 64, 0.65}, {64, 128, 0.80},
	{128, 64, 0.80}, {128, 128, 0.93}, {128, 256, 1}, {256, 128, 1},
}

// gemm is the product of m x k by k x n, by the tile and the split of k that
// end first. peak is the unit's matrix operations per microsecond, weight and
// activation the bytes of an element. Weights come from memory: other layers have pushed them
// out of the cache since the last step.
func (d *device) gemm(m, n, k, peak, weight, activation float64) float64 {
	read := k*n*weight/d.memory + d.move((m*k+m*n)*activation)
	best := math.Inf(1)
	for _, t := range gemmTiles {
		tiles := math.Ceil(m/t.m) * math.Ceil(n/t.n)
		one := 2 * t.m * t.n * k / (peak * matrixShare * t.share)
		for split := 1.0; split <= 16; split *= 2 {
			if k/split < 128 {
				break
			}
			compute := math.Ceil(tiles*split/d.units) * (one / split)
			if split > 1 { // partial sums in float32, written and read again
				compute += d.move(2*split*m*n*4) + d.launch/2
			}
			best = math.Min(best, compute)
		}
	}
	return d.launch + norm(best, read)
}
