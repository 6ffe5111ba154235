package roofline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/hardware"
)

// specText identifies the figures that the times follow from.
func specText(s *hardware.Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %v %v %v %v %v %s", s.Kind, s.ComputeUnits, s.VectorTFLOPS, s.MemoryGBPerS, s.MemoryGB, s.CacheMiB, s.LaunchUS, s.Attention)
	var names []string
	for k := range s.PeakTFLOPS {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(&b, " %s=%v", k, s.PeakTFLOPS[k])
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:8])
}

func sortedList(names []string) string {
	slices.Sort(names)
	return strings.Join(names, ", ")
}
