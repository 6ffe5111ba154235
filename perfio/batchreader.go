package perfio

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// BatchReader reads batches.jsonl and shots files line by line. It is for one
// goroutine, and used like Reader. Keys that it does not know are ignored.
type BatchReader struct {
	in      *bufio.Reader
	file    string
	line    []byte
	lineNum int
	read    int64
	row     BatchRow
	bad     *ParseError
	scanned bool
	err     error
}

// NewBatchReader reads JSON lines; file is their name in messages.
func NewBatchReader(in io.Reader, file string) *BatchReader {
	return &BatchReader{in: bufio.NewReaderSize(in, 64<<10), file: file}
}

// Scan goes to the next line, good or bad; blank lines are passed over.
func (r *BatchReader) Scan() bool {
	r.row, r.bad, r.scanned = BatchRow{}, nil, false
	for r.nextLine() {
		if len(bytes.TrimSpace(r.line)) == 0 {
			continue
		}
		r.scanned = true
		r.bad = r.decode()
		return true
	}
	return false
}

// Record is the current line's batch; if the line is bad, the error is a
// *ParseError. Without a line it is ErrNoRow.
func (r *BatchReader) Record() (BatchRow, error) {
	if !r.scanned {
		return BatchRow{}, ErrNoRow
	}
	if r.bad != nil {
		return r.row, r.bad
	}
	return r.row, nil
}

// Line is the number of the current line, counting from 1.
func (r *BatchReader) Line() int { return r.lineNum }

// Err is what ended the scan before the end of the file.
func (r *BatchReader) Err() error { return r.err }

func (r *BatchReader) nextLine() bool {
	if r.err != nil {
		return false
	}
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		r.read += int64(len(part))
		tooLong := len(r.line) > MaxBatchLineBytes
		if tooLong || r.read > MaxTableBytes {
			r.lineNum++
			found, expected := fmt.Sprintf("a line of more than %d bytes", MaxBatchLineBytes), "a shorter one"
			if !tooLong {
				found, expected = fmt.Sprintf("a file of more than %d bytes", MaxTableBytes), "a smaller one"
			}
			r.err = &ParseError{File: r.file, Line: r.lineNum, Err: &MismatchError{found, expected}}
			return false
		}
		switch {
		case err == nil, errors.Is(err, io.EOF) && len(r.line) > 0:
			r.lineNum++
			return true
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return false
		default:
			r.err = fmt.Errorf("%s: %w", r.file, err)
			return false
		}
	}
}

func (r *BatchReader) decode() *ParseError {
	if !utf8.Valid(r.line) {
		return r.problem(0, "", &MismatchError{"bytes that are not UTF-8", "JSON"})
	}
	if err := json.Unmarshal(r.line, &r.row); err != nil {
		return r.jsonProblem(err)
	}
	if field, err := r.row.check(); err != nil {
		column := 0
		if name, _, _ := strings.Cut(field, "."); name != "" {
			// Where the key stands; 0, unknown, where it cannot be found.
			column = bytes.Index(r.line, []byte(`"`+name+`"`)) + 1
		}
		return r.problem(column, field, err)
	}
	return nil
}

func (r *BatchReader) problem(column int, field string, err error) *ParseError {
	return &ParseError{File: r.file, Line: r.lineNum, Column: column, Field: field, Err: err}
}

func (r *BatchReader) jsonProblem(err error) *ParseError {
	var syntax *json.SyntaxError
	var mistyped *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return r.problem(int(syntax.Offset), "", errors.New(strings.TrimPrefix(syntax.Error(), "json: ")))
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return r.problem(int(mistyped.Offset), mistyped.Field, &MismatchError{"a JSON " + mistyped.Value, mistyped.Type.String()})
	}
	// From Request, whose decoder sees only its own bytes.
	return r.problem(bytes.Index(r.line, []byte(`"requests"`))+1, "requests",
		errors.New(strings.TrimPrefix(err.Error(), "requests: ")))
}

// kinds are the values of BatchRow.Kind.
var kinds = []string{KindDecode, KindDecodeSkew, KindPrefill, KindMixed, KindMixedSkew, KindMulti}

// maxRequests bounds a batch.
const maxRequests = 1 << 16

// check names the field that is wrong and how.
func (b *BatchRow) check() (field string, err error) {
	if len(b.Requests) == 0 || len(b.Requests) > maxRequests {
		return "requests", &MismatchError{fmt.Sprintf("%d requests", len(b.Requests)), fmt.Sprintf("1 to %d", maxRequests)}
	}
	for i, r := range b.Requests {
		if r.NewTokens < 1 || r.NewTokens > MaxKey || r.KVHistory < 0 || r.KVHistory > MaxKey {
			return "requests", &MismatchError{fmt.Sprintf("[%d,%d] as request %d", r.NewTokens, r.KVHistory, i),
				fmt.Sprintf("new tokens from 1 and KV history from 0, both at most %d", MaxKey)}
		}
	}
	for _, m := range []struct {
		name   string
		values map[string]float64
		zero   bool
	}{{"measured_us", b.MeasuredUS, false}, {"kernels_us", b.KernelsUS, true}, {"collectives_us", b.CollectivesUS, false},
		{"spread_us", b.SpreadUS, true}} {
		for _, name := range sortedKeys(m.values) {
			if v := m.values[name]; v < 0 || v == 0 && !m.zero || v > MaxTimeUS || math.IsNaN(v) {
				return m.name + "." + name, &MismatchError{fmt.Sprint(v), fmt.Sprintf("a number above 0 and at most %g", float64(MaxTimeUS))}
			}
		}
	}
	if b.N < 0 {
		return "n", &MismatchError{fmt.Sprint(b.N), "an integer from 0"}
	}
	if b.StepUS < 0 || b.StepUS > MaxTimeUS || math.IsNaN(b.StepUS) {
		return "step_us", &MismatchError{fmt.Sprint(b.StepUS), "a number above 0"}
	}
	if b.Kind != "" && !slices.Contains(kinds, b.Kind) {
		return "kind", &MismatchError{quoted(b.Kind), fmt.Sprintf("one of %q", kinds)}
	}
	return "", nil
}

func sortedKeys(m map[string]float64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readBatches reads a whole file; bad lines go to p and are left out.
func readBatches(in io.Reader, file string, p *problems) []BatchRow {
	r := NewBatchReader(in, file)
	rows := []BatchRow{}
	for r.Scan() {
		if r.bad != nil {
			if !p.add(r.bad) {
				return rows
			}
			continue
		}
		if len(rows) == MaxRows {
			p.add(tooManyRows(file, r.lineNum))
			return rows
		}
		rows = append(rows, r.row)
	}
	if r.err != nil {
		for _, e := range parseErrors(r.err, file) {
			p.add(e)
		}
	}
	return rows
}
