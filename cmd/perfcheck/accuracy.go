package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/internal/judge"
	"github.com/layerprof/layerprof/perfio"
)

func newAccuracyCommand() *cobra.Command {
	var (
		tests  []string
		rules  []string
		tps    []int
		shots  string
		format string
	)
	cmd := &cobra.Command{
		Use:   "accuracy BUNDLE",
		Short: "Judge the lookup rules on measurements that they have not seen",
		Long: "Accuracy runs the tests T1 to T9 on a bundle that has the data for them: rows of its own files are held out\n" +
			"and predicted from the rest, by both sets of rules. With --shots FILE it judges the bundle by batches that\n" +
			"were measured apart, JSON lines {\"requests\":[[new_tokens,kv_history],…],\"measured_us\":{LAYER: TIME}}, by kind of\n" +
			"batch. Errors are |predicted/measured - 1| in percent; the bias is the median of the signed error. T3 and T4 hold\n" +
			"out all rows of a chunk or a number of decodes; T3-points and T4-points, which run only where --tests names them,\n" +
			"single points of lines.",
		Args: exactArgs(1, "one bundle"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON && !cmd.Flags().Changed("format") {
				format = "json"
			}
			if !slices.Contains([]string{"table", "csv", "json"}, format) {
				return usagef("--format: found %q, expected table, csv or json", format)
			}
			if err := known("--rules", rules, judge.RuleNames()); err != nil {
				return err
			}
			if err := known("--tests", tests, append(accuracy.Tests(), accuracy.Optional()...)); err != nil {
				return err
			}
			if shots != "" && cmd.Flags().Changed("tests") {
				return usagef("found --tests beside --shots, expected one of them: measured batches are judged by kind, without tests")
			}
			bundle, err := readBundle(args[0])
			if err != nil {
				return err
			}
			for _, degree := range tps {
				if bundle.TP(degree) == nil {
					return fmt.Errorf("%s: found no tp%d, expected one of: %s", args[0], degree, degreeNames(bundle))
				}
			}
			options := judge.Options{Tests: tests, TPs: tps, Rules: rules}
			if shots != "" {
				return judgeShots(cmd, bundle, shots, options, format)
			}
			report, err := judge.Tests(bundle, options)
			if err != nil {
				return err
			}
			if len(report.Tests) == 0 {
				why := ""
				for _, s := range report.Sweeps {
					if !s.Known() {
						why = fmt.Sprintf("; tp%d: %s, so that skew.csv is not used", s.TP, s.Ratios)
						break
					}
				}
				return fmt.Errorf("%s: found no rows that a test could hold out%s", args[0], why)
			}
			var rows []scoreRow
			for _, r := range report.Tests {
				rows = append(rows, scoreRow{[]string{r.Test, strconv.Itoa(r.TP), r.Rules}, r.Stats})
			}
			out := cmd.OutOrStdout()
			switch format {
			case "json":
				return json.NewEncoder(out).Encode(report)
			case "csv":
				return writeScoresCSV(out, []string{"test", "tp", "rules"}, rows)
			}
			for _, s := range report.Sweeps {
				fmt.Fprintf(out, "tp%d: %s\n", s.TP, s.Ratios)
				if !s.Known() {
					fmt.Fprintf(out, "tp%d: skew.csv is not used, and the tests that need it are left out\n", s.TP)
				}
			}
			return writeScores(out, []string{"test", "tp", "rules"}, rows)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&tests, "tests", nil, "only these tests, as in T1,T5")
	flags.StringSliceVar(&rules, "rules", nil, "only these rules, as in parity,accurate")
	flags.IntSliceVar(&tps, "tp", nil, "only these tensor-parallel degrees; with --shots the one that the batches were measured at")
	flags.StringVar(&shots, "shots", "", "a file of measured batches, gzipped or not; - is standard input")
	flags.StringVar(&format, "format", "table", "table, csv or json")
	return cmd
}

// known refuses what is not among the names.
func known(flag string, given, names []string) error {
	for _, g := range given {
		if !slices.Contains(names, g) {
			return usagef("%s: found %q, expected one of %v", flag, g, names)
		}
	}
	return nil
}

func judgeShots(cmd *cobra.Command, bundle *perfio.Bundle, file string, options judge.Options, format string) error {
	var shots []perfio.BatchRow
	if err := eachShot(cmd, file, func(_ int, shot perfio.BatchRow) error {
		shots = append(shots, shot)
		return nil
	}); err != nil {
		return err
	}
	report, err := judge.Shots(bundle, shots, options)
	if err != nil {
		return err
	}
	if len(report.Shots) == 0 {
		return fmt.Errorf("%s: found no measured layer that the bundle holds", file)
	}
	var rows []scoreRow
	for _, r := range report.Shots {
		rows = append(rows, scoreRow{[]string{r.Layer, r.Kind, strconv.Itoa(r.TP), r.Rules}, r.Stats})
	}
	out := cmd.OutOrStdout()
	names := []string{"layer", "kind", "tp", "rules"}
	switch format {
	case "json":
		return json.NewEncoder(out).Encode(report)
	case "csv":
		return writeScoresCSV(out, names, rows)
	}
	return writeScores(out, names, rows)
}

// scoreRow is one line of a table of errors.
type scoreRow struct {
	names []string
	stats accuracy.Stats
}

func writeScores(out io.Writer, names []string, rows []scoreRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, n := range names {
		fmt.Fprintf(w, "%s\t", n)
	}
	fmt.Fprintln(w, "n\tp50\tp90\tp99\tmax\tbias\twithin 1, 2 sigma")
	for _, r := range rows {
		for _, n := range r.names {
			fmt.Fprintf(w, "%s\t", n)
		}
		s := r.stats
		fmt.Fprintf(w, "%d\t%.2f\t%.2f\t%.2f\t%.2f\t%+.2f", s.N, s.P50, s.P90, s.P99, s.Max, s.Bias)
		if s.Within2 > 0 {
			fmt.Fprintf(w, "\t%.0f%%, %.0f%%", s.Within1, s.Within2)
		}
		if s.Unanswered > 0 {
			fmt.Fprintf(w, "\t%d unanswered", s.Unanswered)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func writeScoresCSV(out io.Writer, names []string, rows []scoreRow) error {
	w := csv.NewWriter(out)
	if err := w.Write(append(slices.Clone(names), "n", "p50", "p90", "p99", "max", "bias", "unanswered", "within_1_sigma", "within_2_sigma")); err != nil {
		return err
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', 4, 64) }
	within := func(s accuracy.Stats, x float64) string {
		if s.Within2 == 0 { // these rules give no sigma
			return ""
		}
		return number(x)
	}
	for _, r := range rows {
		s := r.stats
		if err := w.Write(append(slices.Clone(r.names), strconv.Itoa(s.N), number(s.P50), number(s.P90), number(s.P99),
			number(s.Max), number(s.Bias), strconv.Itoa(s.Unanswered), within(s, s.Within1), within(s, s.Within2))); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
