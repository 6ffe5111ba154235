package profile

import (
	"slices"
	"strings"
	"unicode"
)

// The grids up to which the lean plans were studied; beyond them, lists are
// doubled on to the engine's limits.
const (
	studiedTokens    = 2048
	studiedSequences = 256
	studiedKV        = 16384
)

// leanPoints is the fixed plan of attention shots for a kernel family. Points
// that the engine's limits exclude are still among them.
func (p planner) leanPoints() []AttentionPoint {
	maxKV := min(p.opts.MaxKV, limitOr(p.limits.MaxModelLen))
	pc := func(v ...int) []int { return extended(v, studiedTokens, p.limits.MaxNumBatchedTokens) }
	kv := func(v ...int) []int { return extended(v, studiedKV, maxKV) }
	n := func(v ...int) []int { return extended(v, studiedSequences, p.limits.MaxNumSeqs) }
	zero := []int{0}
	if p.opts.Kernel == FlashAttention3 {
		return sortedPoints(
			points(zero, zero, n(1, 4, 16, 64, 256), kv(16, 128, 256, 512, 2048, 16384)),
			points(pc(16, 64, 128, 256, 512, 2048), withZero(kv(256, 512, 4096, 16384)), zero, zero),
			points(pc(16, 64, 256, 512, 2048), withZero(kv(512, 8192)), n(1, 16, 128), kv(64, 512, 4096)),
		)
	}
	// Pure decode and pure prefill are cheap in shots and wanted whole.
	kvs := geometricGrid(maxKV, 16, 2)
	decodes := geometricGrid(p.limits.MaxNumSeqs, 1, 2)
	chunks := geometricGrid(p.limits.MaxNumBatchedTokens, 16, 2)
	return sortedPoints(
		points(zero, zero, decodes, kvs),
		points(chunks, kvs, zero, zero),
		points(pc(16, 64, 512, 1024, 2048), withZero(kv(512, 4096, 16384)), n(1, 8, 16, 32, 64, 128),
			kv(16, 1024, 2048, 4096, 8192, 16384)),
	)
}

func withZero(grid []int) []int { return append([]int{0}, grid...) }

// sortedPoints joins lists of points in the order of attention.csv, each once.
func sortedPoints(lists ...[]AttentionPoint) []AttentionPoint {
	all := slices.Concat(lists...)
	slices.SortFunc(all, comparePoints)
	return slices.Compact(all)
}

func comparePoints(a, b AttentionPoint) int {
	return slices.Compare(
		[]int{a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode},
		[]int{b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecode})
}

// leanSkew lists the batches of unequal decodes that the fixed plan adds where
// no model of the kernel is known: enough work in the decodes to matter.
func (p planner) leanSkew() []Shot {
	opts := p.opts
	opts.SkewNFactor, opts.SkewPCFactor, opts.SkewKPFactor, opts.SkewKVSFactor = 2, 2, 2, 2
	var shots []Shot
	for _, c := range skewCases(p.limits, opts) {
		wanted := c.N >= 16 && c.N*c.KVMean >= 32768 && c.KVS >= 256 &&
			(c.PC == 16 || c.PC == 512) && (c.KP == 0 || c.KP == 2048)
		if wanted {
			shot := c.Shots(p.opts.Order)[2]
			shots = append(shots, Shot{Category: Batches, Groups: shot.Groups})
		}
	}
	return shots
}

// KernelOf is the kernel family that an engine's attention backend runs, ""
// where it is not one that a lean plan is made for.
func KernelOf(backend string) Kernel {
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, backend)
	for _, prefix := range []string{"flashattention", "flashattn", "fa"} {
		switch rest, ok := strings.CutPrefix(name, prefix); {
		case ok && strings.HasPrefix(rest, "3"):
			return FlashAttention3
		case ok && strings.HasPrefix(rest, "2"):
			return FlashAttention2
		}
	}
	return ""
}
