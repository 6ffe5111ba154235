package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// writeTables replaces the files of a tp folder for which there are rows.
func writeTables(dir string, t *perfio.TP, validation []perfio.BatchRow) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	write := func(name, head, end string, n int, line func(i int) string) error {
		if n == 0 {
			return nil
		}
		var b strings.Builder
		b.WriteString(head + end)
		for i := range n {
			b.WriteString(line(i) + end)
		}
		return replaceFile(filepath.Join(dir, name), []byte(b.String()))
	}
	six := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	short := func(v float64, decimals int) string {
		text := strconv.FormatFloat(perfio.RoundDecimals(v, decimals), 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
	const crlf = "\r\n"
	for _, err := range []error{
		write(perfio.DenseFile, "layer,tokens,time_us", crlf, len(t.Dense), func(i int) string {
			return fmt.Sprintf("%s,%d,%s", t.Dense[i].Layer, t.Dense[i].Tokens, six(t.Dense[i].TimeUS))
		}),
		write(perfio.PerSequenceFile, "layer,sequences,time_us", crlf, len(t.PerSequence), func(i int) string {
			return fmt.Sprintf("%s,%d,%s", t.PerSequence[i].Layer, t.PerSequence[i].Sequences, six(t.PerSequence[i].TimeUS))
		}),
		write(perfio.AttentionFile, "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", crlf, len(t.Attention), func(i int) string {
			a := t.Attention[i]
			return fmt.Sprintf("%d,%d,%d,%d,%s", a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode, six(a.TimeUS))
		}),
		write(perfio.MoEFile, "tokens,activated_experts,time_us", crlf, len(t.MoE), func(i int) string {
			return fmt.Sprintf("%d,%d,%s", t.MoE[i].Tokens, t.MoE[i].ActivatedExperts, six(t.MoE[i].TimeUS))
		}),
		write(perfio.SkewFile, "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha", "\n", len(t.Skew), func(i int) string {
			s := t.Skew[i]
			alpha := ""
			if s.HasAlpha {
				alpha = short(s.Alpha, 4)
			}
			return fmt.Sprintf("%s,%d,%d,%s,%s,%d,%d,%d,%d,%d,%s,%s,%s,%s", s.Regime, s.N, s.NB, short(s.Ratio, 4), short(s.Skew, 6),
				s.PC, s.KP, s.KVS, s.KVBig, s.KVMean, short(s.TMeanUS, 3), short(s.TMaxUS, 3), short(s.TSkewUS, 3), alpha)
		}),
		write(perfio.SkewFitFile, "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples", crlf, len(t.SkewFit), func(i int) string {
			s := t.SkewFit[i]
			return fmt.Sprintf("%d,%s,%s,%s,%s,%s,%d", s.PC, s.NLabel, s.SkewRateLabel, s.KVBigLabel, s.KPLabel, short(s.Alpha, 4), s.NSamples)
		}),
	} {
		if err != nil {
			return err
		}
	}
	for name, rows := range map[string][]perfio.BatchRow{perfio.BatchesFile: t.Batches, ValidationFile: validation} {
		if len(rows) == 0 {
			continue
		}
		text, err := batchLines(rows)
		if err == nil {
			err = replaceFile(filepath.Join(dir, name), text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
