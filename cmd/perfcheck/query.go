package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/traceloader"
)

func newQueryCommand() *cobra.Command {
	var (
		flags        tableFlags
		engine       stepFlags
		tp           int
		batch, shots string
		expect       bool
		status       bool
	)
	cmd := &cobra.Command{
		Use:   "query --bundle B | --root R --hardware H --model M --variant V  [LOOKUP ARGUMENT…]",
		Short: "Answer one lookup, a file of lookups, or whole batches",
		Long: "Query answers in integer nanoseconds. One lookup on the command line:\n" +
			"  dense LAYER TOKENS | per_sequence LAYER SEQUENCES | moe TOKENS EXPERTS\n" +
			"  attention PREFILL_CHUNK KV_PREFILL N_DECODE KV_DECODE\n" +
			"  attention_skew PREFILL_CHUNK KV_PREFILL N_DECODE KV_MEAN KV_MAX KV_MIN\n" +
			"Many: --batch FILE, a CSV (gzipped or not, - for standard input) with the columns\n" +
			strings.Join(queryColumns, ",") + "; the rows are written with latency_ns filled in.\n" +
			"Whole batches: --shots FILE, JSON lines {\"requests\":[[new_tokens,kv_history],…]}.",
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, _ := cmd.Flags().GetBool("json")
			chosen := 0
			for _, given := range []bool{len(args) > 0, batch != "", shots != ""} {
				if given {
					chosen++
				}
			}
			if chosen != 1 {
				return usagef("found %d of a lookup, --batch and --shots, expected one of them", chosen)
			}
			if expect && batch == "" {
				return usagef("found --expect without --batch")
			}
			for _, flag := range []string{"mode", "steps-from", "depth"} {
				if shots == "" && cmd.Flags().Changed(flag) {
					return usagef("found --%s without --shots: single lookups are no steps", flag)
				}
			}
			if tp < 1 {
				return usagef("--tp: found %d, expected at least 1", tp)
			}
			var one lookupRow
			if len(args) > 0 {
				var err error
				if one, err = parseLookup(tp, args); err != nil {
					return err
				}
			}
			table, err := flags.open(cmd)
			if err != nil {
				return err
			}
			switch {
			case batch != "":
				q := batchQuery{resolver: newResolver(table), status: status, json: asJSON}
				if expect {
					return q.expect(cmd, batch)
				}
				return q.fill(cmd, batch)
			case shots != "":
				return queryShots(cmd, table, tp, engine, shots, asJSON)
			}
			return queryOne(cmd, table, one, asJSON, status)
		},
	}
	flags.register(cmd)
	engine.register(cmd)
	cmd.Flags().IntVar(&tp, "tp", 1, "tensor-parallel degree of a lookup and of --shots")
	cmd.Flags().StringVar(&batch, "batch", "", "a file of lookups; - is standard input")
	cmd.Flags().StringVar(&shots, "shots", "", "a file of batches, gzipped or not; - is standard input")
	cmd.Flags().BoolVar(&expect, "expect", false, "compare with the file's own latency_ns; exit status 5 where any differs")
	cmd.Flags().BoolVar(&status, "status", false, "also say how each answer was found, and its standard error where the rules know it")
	return cmd
}

// parseLookup reads a lookup from the command line.
func parseLookup(tp int, args []string) (lookupRow, error) {
	row := lookupRow{TP: tp, Lookup: args[0]}
	arity, ok := lookupArity[row.Lookup]
	if !ok {
		return row, usagef("found lookup %q, expected dense, per_sequence, moe, attention or attention_skew", row.Lookup)
	}
	rest := args[1:]
	if row.Lookup == "dense" || row.Lookup == "per_sequence" {
		if len(rest) == 0 {
			return row, usagef("%s: found no layer", row.Lookup)
		}
		row.Layer, rest = rest[0], rest[1:]
	}
	if len(rest) != arity {
		return row, usagef("%s: found %d numbers, expected %d", row.Lookup, len(rest), arity)
	}
	for _, text := range rest {
		n, err := strconv.Atoi(text)
		if err != nil {
			return row, usagef("%s: found %q, expected a whole number", row.Lookup, text)
		}
		row.Args = append(row.Args, n)
	}
	return row, nil
}

func queryOne(cmd *cobra.Command, table *traceloader.Table, row lookupRow, asJSON, withStatus bool) error {
	latency, answer, err := newResolver(table).explain(row)
	if err != nil {
		return err
	}
	if latency == 0 {
		return fmt.Errorf("%s: no answer within the measured range", row.Lookup)
	}
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		return json.NewEncoder(out).Encode(struct {
			LatencyNS int64   `json:"latency_ns"`
			Sigma     float64 `json:"sigma,omitempty"` // absent where it is not known, as under parity
			Status    string  `json:"status"`
			Rules     string  `json:"rules"`
		}{latency, answer.Sigma, answer.Status.String(), table.Rules().String()})
	case withStatus:
		_, err = fmt.Fprintf(out, "%d %s%s\n", latency, answer.Status, sigmaText(answer.Sigma))
	default:
		_, err = fmt.Fprintln(out, latency)
	}
	return err
}
