package perfio

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Reader reads the rows of one CSV file one by one. It is for one goroutine.
//
//	r := perfio.NewAttentionReader(f, "attention.csv")
//	for r.Scan() {
//		row, err := r.Record()
//		...
//	}
//	if err := r.Err(); err != nil { ... }
//
// It does not look for duplicate keys, for which it would have to keep the
// rows: ReadBundle and Validate do.
type Reader[T any] struct {
	scanner *rowScanner
	codec   *codec[T]
	row     T
	scanned bool
}

// NewDenseReader reads a dense.csv. file is its name in messages.
func NewDenseReader(in io.Reader, file string) *Reader[DenseRow] {
	return newReader(in, file, denseCodec)
}

// NewPerSequenceReader reads a per_sequence.csv.
func NewPerSequenceReader(in io.Reader, file string) *Reader[SequenceRow] {
	return newReader(in, file, perSequenceCodec)
}

// NewAttentionReader reads an attention.csv.
func NewAttentionReader(in io.Reader, file string) *Reader[AttentionRow] {
	return newReader(in, file, attentionCodec)
}

// NewMoEReader reads a moe.csv.
func NewMoEReader(in io.Reader, file string) *Reader[MoERow] {
	return newReader(in, file, moeCodec)
}

// NewSkewReader reads a skew.csv.
func NewSkewReader(in io.Reader, file string) *Reader[SkewRow] {
	return newReader(in, file, skewCodec)
}

// NewSkewFitReader reads a skew_fit.csv.
func NewSkewFitReader(in io.Reader, file string) *Reader[SkewFitRow] {
	return newReader(in, file, skewFitCodec)
}

// NewStepReader reads a step.csv.
func NewStepReader(in io.Reader, file string) *Reader[StepRow] {
	return newReader(in, file, stepCodec)
}

// NewCollectivesReader reads a collectives.csv.
func NewCollectivesReader(in io.Reader, file string) *Reader[CollectiveRow] {
	return newReader(in, file, collectivesCodec)
}

func newReader[T any](in io.Reader, file string, c *codec[T]) *Reader[T] {
	return &Reader[T]{scanner: newRowScanner(in, file, c.schema), codec: c}
}

// Scan goes to the next row, good or bad. It is false at the end of the file
// and on an error that the rest of the file cannot be read after.
func (r *Reader[T]) Scan() bool {
	var zero T
	r.row = zero
	r.scanned = r.scanner.next()
	if r.scanned {
		r.codec.decode(r.scanner, &r.row)
	}
	return r.scanned
}

// Record is the current row, the caller's to keep. If the row is bad, the
// error is a *ParseError or, of several, a *ProblemsError, and the row is not
// to be used. Without a row (before the first Scan, after the last) the error
// is ErrNoRow.
func (r *Reader[T]) Record() (T, error) {
	if !r.scanned {
		var zero T
		return zero, ErrNoRow
	}
	switch p := r.scanner.problems; len(p) {
	case 0:
		return r.row, nil
	case 1:
		return r.row, p[0]
	default:
		return r.row, &ProblemsError{Problems: p}
	}
}

// ErrNoRow is what Record gives where there is no row.
var ErrNoRow = errors.New("perfio: no row: Scan was not called or returned false")

// Line is the number of the current row's line, counting from 1.
func (r *Reader[T]) Line() int { return r.scanner.lineNum }

// Err is what ended the scan before the end of the file: the reader's error, a
// header without the columns, a line without an end. It is nil at the end of a
// file whose rows were bad.
func (r *Reader[T]) Err() error { return r.scanner.err }

// readTable reads a whole file. Bad rows go to p and are left out; the result
// is not nil.
func readTable[T any](in io.Reader, file string, size int64, c *codec[T], lenient bool, p *problems) []T {
	s := newRowScanner(in, file, c.schema)
	rows := make([]T, 0, rowsIn(size, c.schema))
	lines := make([]int32, 0, cap(rows))
	sorted, byKey := true, false
	for s.next() {
		n := len(rows)
		if n == MaxRows {
			p.add(tooManyRows(file, s.lineNum))
			return rows
		}
		// Decoded in place: a local variable would be allocated for every row.
		rows = append(rows, *new(T))
		c.decode(s, &rows[n])
		if len(s.problems) > 0 {
			rows = rows[:n]
			for _, e := range s.problems {
				if !p.add(e) {
					return rows
				}
			}
			continue
		}
		if n > 0 && sorted && c.compare != nil && c.compare(&rows[n-1], &rows[n]) >= 0 {
			sorted = false
		}
		if c.byKey != nil && c.byKey(&rows[n]) {
			sorted, byKey = false, true
		}
		lines = append(lines, int32(s.lineNum))
	}
	if s.err != nil {
		for _, e := range parseErrors(s.err, file) {
			p.add(e)
		}
	}
	if !sorted {
		rows = refuseDuplicates(rows, lines, file, c, byKey, lenient, p)
	}
	return rows
}

// rowsIn guesses how many rows a file of that size holds, rather too many.
func rowsIn(size int64, table *Table) int {
	return int(min(size/int64(4*len(table.Columns)), MaxRows))
}

func tooManyRows(file string, line int) *ParseError {
	return &ParseError{File: file, Line: line, Err: &MismatchError{fmt.Sprintf("more than %d rows", MaxRows), "fewer"}}
}

// refuseDuplicates files each row whose key an earlier row has. Where lenient,
// that is a warning and the row is left out, so that the first one counts.
func refuseDuplicates[T any](rows []T, lines []int32, file string, c *codec[T], byKey, lenient bool, p *problems) []T {
	compare := c.compare
	if byKey {
		compare = func(a, b *T) int { return cmp.Compare(c.key(a), c.key(b)) }
	}
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compare(&rows[a], &rows[b]) })
	first := 0
	repeated := map[int]int{} // row -> the first row of its key
	for i := 1; i < len(order); i++ {
		if compare(&rows[order[first]], &rows[order[i]]) == 0 {
			repeated[order[i]] = order[first]
		} else {
			first = i
		}
	}
	if len(repeated) == 0 {
		return rows
	}
	kept := rows[:0:0]
	for i := range rows {
		of, again := repeated[i]
		if !again {
			kept = append(kept, rows[i])
			continue
		}
		field := keyColumns(c.schema)
		if c.byKey != nil && c.byKey(&rows[i]) {
			field = "raw_key"
		}
		if !p.add(&ParseError{File: file, Line: int(lines[i]), Column: 1, Field: field, Warning: lenient, Err: &MismatchError{
			Found:    "a second row of key " + c.key(&rows[i]),
			Expected: fmt.Sprintf("only the one on line %d", lines[of]),
		}}) {
			break
		}
	}
	return kept
}

// keyColumns names the columns that make a row's key where it has no raw_key.
func keyColumns(t *Table) string {
	var names []string
	for _, c := range t.Columns {
		if c.Key && !c.Optional {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ",")
}

// parseErrors takes what ended a scan apart into positioned problems.
func parseErrors(err error, file string) []*ParseError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*ParseError
		for _, e := range joined.Unwrap() {
			out = append(out, parseErrors(e, file)...)
		}
		return out
	}
	if e, ok := err.(*ParseError); ok {
		return []*ParseError{e}
	}
	return []*ParseError{{File: file, Err: ioCause(err)}}
}
