package lint

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/layerprof/layerprof/internal/tidy"
)

// Figures of the report that show no table.
const (
	FigureCoverage   = "coverage"
	FigureDrift      = "drift"
	FigureProvenance = "provenance"
	FigureSteps      = "steps"
)

// figures of rules whose findings are about a file as a whole, by the rule's
// name; the others' is the file's.
var figures = map[string]string{
	"coverage": FigureCoverage, "missing-layer": FigureCoverage, "drift": FigureDrift,
	"meta-folder": FigureProvenance, "synthetic": FigureProvenance, "step-meta": FigureSteps,
}

// PlotID is the id of the report's figure of a row's table: tp1-dense-down_proj,
// tp2-collectives-o_proj-all_reduce, tp1-per_sequence-sampler, tp1-attention,
// tp1-moe, tp1-skew, tp1-skew_fit, tp1-step.
func PlotID(k tidy.Key) string {
	switch k.Table {
	case "dense", "per_sequence":
		return fmt.Sprintf("tp%d-%s-%s", k.TP, k.Table, Slug(k.Layer))
	case "collectives":
		return fmt.Sprintf("tp%d-%s-%s-%s", k.TP, k.Table, Slug(k.Layer), Slug(k.Collective))
	}
	return fmt.Sprintf("tp%d-%s", k.TP, k.Table)
}

// Slug is a layer's name as a part of an id: as it is where it is made of
// ASCII letters, digits and "._-", else without what is not, and with a
// checksum that keeps it apart from others.
func Slug(name string) string {
	const most = 40
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return -1
	}, name)
	if clean == name && name != "" && len(name) <= most {
		return name
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return fmt.Sprintf("%s-%08x", clean[:min(len(clean), most)], h.Sum32())
}
