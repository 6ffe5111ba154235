package stepjudge

import (
	"bufio"
	"fmt"
	"io"
)

// WriteEach writes a CSV row for every step that was judged.
func WriteEach(w io.Writer, steps []JudgedStep) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "start_us,n_decode,kv_decode_mean,prefill_chunk,kv_prefill,admitted,padded_tokens,graph,bound,"+
		"measured_us,predicted_us,kernels_us,before_us,launch_us,forward_us,after_us")
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	for i := range steps {
		j := &steps[i]
		b, t := &j.Batch, &j.Time
		fmt.Fprintf(out, "%.1f,%d,%d,%d,%d,%d,%d,%s,%s,%.1f,%.1f,%.1f,%.1f,%.1f,%.1f,%.1f\n",
			j.Step.StartUS, b.NDecode, b.KVDecodeMean, b.PrefillChunk, b.KVPrefill, b.Admitted(), t.PaddedTokens, t.Graph, t.Bound,
			j.MeasuredUS, j.PredictedUS, us(t.KernelsNS), us(t.BeforeNS), us(t.LaunchNS), us(t.ForwardNS), us(t.AfterNS))
	}
	return out.Flush()
}
