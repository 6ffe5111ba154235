package traceloader

import (
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

func skewTP(degree int) perfio.TP {
	tp := toyTP(degree, 1)
	tp.SkewFit = []perfio.SkewFitRow{
		{PC: 0, NLabel: "n<=2", SkewRateLabel: "sr<=40%", KVBigLabel: "kvB<=1k", KPLabel: "kp=0", Alpha: 0.25},
		{PC: 16, NLabel: "n<=4", SkewRateLabel: "sr<=70%", KVBigLabel: "kvB<=1k", KPLabel: "kp<=2k", Alpha: 0.75},
		{PC: 99, NLabel: "?", SkewRateLabel: "?", KVBigLabel: "?", KPLabel: "?", Alpha: 2, RawKey: "pc=32|n<=8|sr>70%|kvB<=1k|kp>2k"},
	}
	return tp
}

// TestAlpha goes through where an alpha can stand.
func TestAlpha(t *testing.T) {
	type q struct{ pc, kp, n, mean, longest, shortest int }
	bucket0 := q{0, 0, 2, 30, 60, 15}    // rate 1/3
	bucket16 := q{16, 5, 4, 40, 60, 20}  // rate 1/2
	raw := q{32, 3000, 8, 55, 60, 20}    // rate 7/8
	missing := q{16, 5, 128, 40, 60, 20} // another n
	tests := []struct {
		name   string
		meta   string
		q      q
		want   float64
		status Status
	}{
		{"no block", `model: x`, bucket0, 0, Fallback},
		{"disabled", `skew_fit: {enabled: false, alpha_default: 0.5, per_tp: {1: {bucket_table: tp1/skew_fit.csv}}}`, bucket0, 0, Fallback},
		{"not said to be enabled", `skew_fit: {alpha_default: 0.5}`, bucket0, 0, Fallback},
		{"no entry", `skew_fit: {enabled: true, alpha_default: 0.5, per_tp: {2: {alpha_default: 0.1}}}`, bucket0, 0.5, Fallback},
		{"no entry, no default", `skew_fit: {enabled: true}`, bucket0, 0, Fallback},
		{"bucket", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`, bucket0, 0.25, Measured},
		{"bucket, the degree as text", `skew_fit: {enabled: true, per_tp: {"1": {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`, bucket16, 0.75, Measured},
		{"raw key", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`, raw, 2, Measured},
		{"bucket is missing", `skew_fit: {enabled: true, alpha_default: 9, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`, missing, 0.1, Fallback},
		{"bucket is missing, no default", `skew_fit: {enabled: true, alpha_default: 9, per_tp: {1: {bucket_table: tp1/skew_fit.csv}}}`, missing, 0, Fallback},
		{"table not named", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1}}}`, bucket0, 0.1, Fallback},
		{"inline wins", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv, alpha_by_bucket: {"pc=0|n<=2|sr<=40%|kvB<=1k|kp=0": 0.375}}}}`, bucket0, 0.375, Measured},
		{"inline leaves the table out", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv, alpha_by_bucket: {"pc=0|n<=2|sr<=40%|kvB<=1k|kp=0": 0.375}}}}`, bucket16, 0.1, Fallback},
		{"axes of the block", `skew_fit: {enabled: true, bucket_axes: {n_bins: [0, 1000000], n_labels: ["n<=2"]}, per_tp: {1: {bucket_table: tp1/skew_fit.csv}}}`, q{0, 0, 77, 30, 60, 15}, 0.25, Measured},
		{"axes of the entry", `skew_fit: {enabled: true, bucket_axes: {n_bins: [0, 1000000], n_labels: ["?"]}, per_tp: {1: {bucket_axes: {n_bins: [0, 9], n_labels: ["n<=2"]}, bucket_table: tp1/skew_fit.csv}}}`, q{0, 0, 77, 30, 60, 15}, 0.25, Measured},
		{"on a bin's edge", `skew_fit: {enabled: true, per_tp: {1: {bucket_table: tp1/skew_fit.csv}}}`, q{0, 0, 2, 24, 60, 0}, 0.25, Measured},
		{"the mean below the shortest", `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`, q{0, 0, 2, 10, 60, 15}, 0.1, Fallback},
		{"no gap", `skew_fit: {enabled: true, per_tp: {1: {bucket_table: tp1/skew_fit.csv}}}`, q{16, 5, 4, 40, 60, 60}, 0.75, Measured},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			table := mustNew(t, &perfio.Bundle{Meta: metaOf(t, c.meta), TPs: []perfio.TP{skewTP(1)}}, Options{})
			got, status := table.SkewAlpha(1, c.q.pc, c.q.kp, c.q.n, c.q.mean, c.q.longest, c.q.shortest)
			if got != c.want || status != c.status {
				t.Errorf("got %v, %v, want %v, %v", got, status, c.want, c.status)
			}
			if len(table.Warnings()) > 0 {
				t.Errorf("warnings: %q", table.Warnings())
			}
		})
	}
}

func TestMissingTableWarns(t *testing.T) {
	tp := skewTP(1)
	tp.SkewFit = nil
	table := mustNew(t, &perfio.Bundle{Meta: metaOf(t, `skew_fit: {enabled: true, per_tp: {1: {alpha_default: 0.1, bucket_table: tp1/skew_fit.csv}}}`), TPs: []perfio.TP{tp}}, Options{})
	if a, status := table.SkewAlpha(1, 0, 0, 2, 30, 60, 15); a != 0.1 || status != Fallback {
		t.Errorf("got %v, %v", a, status)
	}
	if w := strings.Join(table.Warnings(), "\n"); !strings.Contains(w, "tp1/skew_fit.csv is missing") {
		t.Errorf("warnings: %q", w)
	}
}

// TestSkewed works the blend out by hand.
func TestSkewed(t *testing.T) {
	b := &perfio.Bundle{
		Meta: metaOf(t, `skew_fit: {enabled: true, per_tp: {1: {alpha_default: -0.5, bucket_table: tp1/skew_fit.csv}}}`),
		TPs:  []perfio.TP{skewTP(1)},
	}
	table := mustNew(t, b, Options{})
	h, _ := table.Attention(1)
	at := func(kd int) int64 {
		ns, _ := h.LatencyNS(0, 0, 2, kd)
		return ns
	}
	mean, longest := at(30), at(60)
	if mean >= longest {
		t.Fatalf("%d is not below %d", mean, longest)
	}
	got, a := h.ExplainSkew(0, 0, 2, 30, 60, 15)
	if want := mean + (longest-mean)/4; got < want || got > want+1 || a.Alpha != 0.25 || a.AlphaStatus != Measured {
		t.Errorf("got %d, %+v, want %d", got, a, want)
	}
	if got, _ := h.SkewLatencyNS(0, 0, 2, 30, 60, 0); got >= mean {
		t.Errorf("alpha is not clamped: got %d, want less than %d", got, mean)
	}
	if got, a := h.ExplainSkew(0, 0, 1, 30, 60, 15); got != func() int64 { ns, _ := h.LatencyNS(0, 0, 1, 30); return ns }() || a.AlphaStatus != Unanswered {
		t.Errorf("one decode is corrected: got %d, %+v", got, a)
	}
	if got, _ := h.SkewLatencyNS(0, 0, 2, 30, 30, 15); got != mean {
		t.Errorf("the longest is the mean: got %d, want %d", got, mean)
	}
	if got, _ := h.SkewLatencyNS(0, 0, 2, 60, 30, 15); got != longest {
		t.Errorf("t_max below t_mean: got %d, want %d", got, longest)
	}
}

// TestOddBins holds bins that do not ascend, share a floor or a label against
// the text of the rules.
func TestOddBins(t *testing.T) {
	for _, axis := range []bucketAxis{
		{[]float64{0, 2, 4, 8}, []string{"a", "b", "c"}},
		{[]float64{0, 4, 2, 8, 100}, []string{"a", "b", "c", "d"}},
		{[]float64{0, 2.2, 2.8, 2.9}, []string{"a", "b", "c"}},
		{[]float64{0, 2, 4, 6}, []string{"a", "b", "a"}},
		{[]float64{0, -5, 0.5}, []string{"a", "b"}},
		{[]float64{0, 1}, []string{"a"}},
		{[]float64{0, 1e300, 2}, []string{"a", "b"}},
		{[]float64{0, 2, 4, 8, 16}, []string{"a", "b"}},
	} {
		bins, labels := newIntBins(axis)
		for v := -10; v < 120; v++ {
			if got, want := labels[bins.of(v)], plainLabel(axis.bins, axis.labels, float64(v)); got != want {
				t.Errorf("%v: %d: got %s, want %s", axis, v, got, want)
			}
		}
		rates, labels := newRateBins(axis)
		for v := 0.0; v <= 10; v += 0.1 {
			if got, want := labels[rates.of(v)], plainLabel(axis.bins, axis.labels, v); got != want {
				t.Errorf("%v: %v: got %s, want %s", axis, v, got, want)
			}
		}
	}
}
