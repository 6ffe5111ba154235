package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// lookupRow is one row of a query file: one lookup, and what it is expected to
// answer.
type lookupRow struct {
	TP     int
	Lookup string
	Layer  string
	// Args are columns a to f as far as the lookup uses them.
	Args []int
	// Expected is the file's own latency_ns, where it has one.
	Expected    int64
	HasExpected bool
	// Fields are the row as it stands in the file; Line its first line there.
	Fields []string
	Line   int
}

// lookupArity is how many of the columns a to f each lookup takes.
var lookupArity = map[string]int{
	"dense":          1,
	"per_sequence":   1,
	"moe":            2,
	"attention":      4,
	"attention_skew": 6,
}

// queryColumns are the columns of a query file, in the order written.
var queryColumns = []string{"tp", "lookup", "layer", "a", "b", "c", "d", "e", "f", "latency_ns"}

// openQueryFile opens a file of queries, gzipped or not (seen by its first bytes); "-" is
// standard input.
func openQueryFile(path string, stdin io.Reader) (io.Reader, func() error, error) {
	closeFile := func() error { return nil }
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		in, closeFile = f, f.Close
	}
	r := bufio.NewReaderSize(in, 1<<16)
	if head, _ := r.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), closeFile())
		}
		return z, closeFile, nil
	}
	return r, closeFile, nil
}

// queryReader reads a query file row by row.
type queryReader struct {
	file    string
	csv     *csv.Reader
	columns map[string]int
}

func newQueryReader(file string, r io.Reader) (*queryReader, error) {
	q := &queryReader{file: file, csv: csv.NewReader(r), columns: map[string]int{}}
	header, err := q.csv.Read()
	if err == io.EOF {
		return nil, fmt.Errorf("%s:1:1: header: found an empty file, expected %s", file, strings.Join(queryColumns, ","))
	}
	if err != nil {
		return nil, q.positioned(err)
	}
	for i, name := range header {
		q.columns[strings.TrimSpace(name)] = i
	}
	for _, name := range queryColumns[:4] {
		if _, ok := q.columns[name]; !ok && name != "layer" {
			return nil, fmt.Errorf("%s:1:1: %s: found no such column, expected %s", file, name, strings.Join(queryColumns, ","))
		}
	}
	return q, nil
}

func (q *queryReader) positioned(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("%s:%d:%d: row: %w", q.file, parse.Line, parse.Column, parse.Err)
	}
	return fmt.Errorf("%s: %w", q.file, err)
}

// next gives the next row, io.EOF after the last.
func (q *queryReader) next() (lookupRow, error) {
	fields, err := q.csv.Read()
	if err == io.EOF {
		return lookupRow{}, io.EOF
	}
	if err != nil {
		return lookupRow{}, q.positioned(err)
	}
	line, _ := q.csv.FieldPos(0)
	row := lookupRow{Fields: fields, Line: line, TP: 1}
	row.Lookup = q.text(fields, "lookup")
	row.Layer = q.text(fields, "layer")
	if text := q.text(fields, "tp"); text != "" {
		if row.TP, err = strconv.Atoi(text); err != nil || row.TP < 1 {
			return row, q.fieldError("tp", text, "a tensor-parallel degree")
		}
	}
	arity, ok := lookupArity[row.Lookup]
	if !ok {
		return row, q.fieldError("lookup", row.Lookup, "dense, per_sequence, moe, attention or attention_skew")
	}
	for _, name := range queryColumns[3 : 3+arity] {
		text := q.text(fields, name)
		value, err := strconv.Atoi(text)
		if err != nil {
			return row, q.fieldError(name, text, "a whole number")
		}
		row.Args = append(row.Args, value)
	}
	if text := q.text(fields, "latency_ns"); text != "" {
		if row.Expected, err = strconv.ParseInt(text, 10, 64); err != nil {
			return row, q.fieldError("latency_ns", text, "whole nanoseconds")
		}
		row.HasExpected = true
	}
	return row, nil
}

func (q *queryReader) text(fields []string, column string) string {
	if i, ok := q.columns[column]; ok && i < len(fields) {
		return fields[i]
	}
	return ""
}

func (q *queryReader) fieldError(column, found, expected string) error {
	i := q.columns[column]
	line, col := q.csv.FieldPos(i)
	return fmt.Errorf("%s:%d:%d: %s: found %q, expected %s", q.file, line, col, column, found, expected)
}
