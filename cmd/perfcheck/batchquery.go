package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/traceloader"
)

// batchQuery answers a file of lookups.
type batchQuery struct {
	resolver *resolver
	status   bool
	json     bool
}

// each runs visit over the rows of a file.
func (q *batchQuery) each(cmd *cobra.Command, file string, visit func(r *queryReader, row lookupRow) error) (err error) {
	in, closeFile, err := openQueryFile(file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFile()) }()
	name := file
	if file == "-" {
		name = "stdin"
	}
	r, err := newQueryReader(name, in)
	if err != nil {
		return err
	}
	for {
		row, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(r, row); err != nil {
			return fmt.Errorf("%s:%d: %w", name, row.Line, err)
		}
	}
}

// answer is one row's latency; no answer is an error, never a zero.
func (q *batchQuery) answer(row lookupRow) (int64, traceloader.Answer, error) {
	var (
		ns     int64
		answer traceloader.Answer
		err    error
	)
	if q.status || q.json {
		ns, answer, err = q.resolver.explain(row)
	} else {
		ns, err = q.resolver.latency(row)
	}
	if err == nil && ns == 0 {
		err = fmt.Errorf("%s: no answer within the measured range", row.Lookup)
	}
	return ns, answer, err
}

// expect compares the answers with the file's own.
func (q *batchQuery) expect(cmd *cobra.Command, file string) error {
	const most = 10
	total, differ := 0, 0
	out := cmd.OutOrStdout()
	type difference struct {
		Line     int      `json:"line"`
		Row      []string `json:"row"`
		Expected int64    `json:"expected_ns"`
		Got      int64    `json:"latency_ns"`
	}
	var first []difference
	err := q.each(cmd, file, func(_ *queryReader, row lookupRow) error {
		if !row.HasExpected {
			return errors.New("latency_ns: found nothing, expected what to compare with")
		}
		ns, err := q.resolver.latency(row)
		if err != nil {
			return err
		}
		total++
		if ns != row.Expected {
			if differ++; differ <= most {
				first = append(first, difference{row.Line, append([]string(nil), row.Fields...), row.Expected, ns})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("%s: found no queries", file)
	}
	if q.json {
		err = json.NewEncoder(out).Encode(struct {
			Queries int          `json:"queries"`
			Differ  int          `json:"differ"`
			First   []difference `json:"first,omitempty"`
		}{total, differ, first})
	} else {
		for _, d := range first {
			fmt.Fprintf(out, "%s:%d: latency_ns: found %d, expected %d\n", file, d.Line, d.Got, d.Expected)
		}
		_, err = fmt.Fprintf(out, "%d queries, %d differ\n", total, differ)
	}
	if err == nil && differ > 0 {
		err = errProblems
	}
	return err
}

// fill writes the rows with latency_ns, and status and sigma where asked for,
// filled in.
func (q *batchQuery) fill(cmd *cobra.Command, file string) error {
	buffered := bufio.NewWriter(cmd.OutOrStdout())
	sigmas := q.resolver.table.Rules() == traceloader.Accurate // parity knows none
	w := csv.NewWriter(buffered)
	encoder := json.NewEncoder(buffered)
	if !q.json {
		header := queryColumns
		if q.status {
			header = append(append([]string(nil), header...), "status")
			if sigmas {
				header = append(header, "sigma")
			}
		}
		if err := w.Write(header); err != nil {
			return err
		}
	}
	err := q.each(cmd, file, func(r *queryReader, row lookupRow) error {
		ns, found, err := q.answer(row)
		if err != nil {
			return err
		}
		if q.json {
			return encoder.Encode(struct {
				TP        int     `json:"tp"`
				Lookup    string  `json:"lookup"`
				Layer     string  `json:"layer,omitempty"`
				Args      []int   `json:"args"`
				LatencyNS int64   `json:"latency_ns"`
				Sigma     float64 `json:"sigma,omitempty"`
				Status    string  `json:"status"`
			}{row.TP, row.Lookup, row.Layer, row.Args, ns, found.Sigma, found.Status.String()})
		}
		fields := make([]string, 0, len(queryColumns)+2)
		for _, name := range queryColumns[:len(queryColumns)-1] {
			fields = append(fields, r.text(row.Fields, name))
		}
		fields = append(fields, strconv.FormatInt(ns, 10))
		if q.status {
			fields = append(fields, found.Status.String())
			if sigmas {
				fields = append(fields, strconv.FormatFloat(found.Sigma, 'f', 4, 64))
			}
		}
		return w.Write(fields)
	})
	w.Flush()
	return errors.Join(err, w.Error(), buffered.Flush())
}
