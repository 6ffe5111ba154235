package perfio

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// WriteDense writes a dense.csv, rows sorted as SCHEMA says (of a copy). Like
// the other writers it refuses what the readers would refuse, and returns the
// writer's errors; then the output is incomplete.
func WriteDense(w io.Writer, rows []DenseRow) error { return writeTable(w, denseCodec, rows) }

// WritePerSequence writes a per_sequence.csv, sorted.
func WritePerSequence(w io.Writer, rows []SequenceRow) error {
	return writeTable(w, perSequenceCodec, rows)
}

// WriteAttention writes an attention.csv, sorted.
func WriteAttention(w io.Writer, rows []AttentionRow) error {
	return writeTable(w, attentionCodec, rows)
}

// WriteCollectives writes a collectives.csv, sorted.
func WriteCollectives(w io.Writer, rows []CollectiveRow) error {
	return writeTable(w, collectivesCodec, rows)
}

// WriteMoE writes a moe.csv, sorted.
func WriteMoE(w io.Writer, rows []MoERow) error { return writeTable(w, moeCodec, rows) }

// WriteSkew writes a skew.csv in the order given, which is the plan's. The
// caller has dropped repeated cases and computed Alpha from unrounded times.
func WriteSkew(w io.Writer, rows []SkewRow) error { return writeTable(w, skewCodec, rows) }

// WriteSkewFit writes a skew_fit.csv, sorted; the column raw_key only where a
// row has one.
func WriteSkewFit(w io.Writer, rows []SkewFitRow) error { return writeTable(w, skewFitCodec, rows) }

// WriteStep writes a step.csv in the order given. A time that is NaN has no
// value and becomes an empty field.
func WriteStep(w io.Writer, rows []StepRow) error { return writeTable(w, stepCodec, rows) }

func writeTable[T any](out io.Writer, c *codec[T], rows []T) error {
	if c.compare != nil {
		rows = slices.Clone(rows)
		slices.SortStableFunc(rows, func(a, b T) int { return c.compare(&a, &b) })
	}
	seen := map[string]bool{} // of byKey rows only: sorting brings the others together
	byKey := false
	w := &rowWriter{out: bufio.NewWriterSize(out, 64<<10), schema: c.schema}
	for i := range rows {
		if c.byKey != nil && c.byKey(&rows[i]) {
			byKey = true
		}
	}
	w.leaveOut = func(i int) bool { return w.schema.Columns[i].Optional && !byKey }
	w.header()
	for i := range rows {
		twice := c.compare != nil && i > 0 && c.compare(&rows[i-1], &rows[i]) == 0
		if byKey {
			k := c.key(&rows[i])
			twice = twice || seen[k]
			seen[k] = true
		}
		if twice {
			return fmt.Errorf("%s: found two rows of key %s, expected one", c.schema.File, c.key(&rows[i]))
		}
		c.values(&rows[i], w)
		if err := w.endRow(); err != nil {
			return fmt.Errorf("%s: row %d: %w", c.schema.File, i+1, err)
		}
	}
	return w.out.Flush()
}

// rowWriter writes rows field by field, each checked against its column.
type rowWriter struct {
	out      *bufio.Writer
	schema   *Table
	leaveOut func(column int) bool

	line   []byte
	column int
	fields int
	err    error // of the current row, the first
}

func (w *rowWriter) header() {
	for i, c := range w.schema.Columns {
		if !w.leaveOut(i) {
			w.begin()
			w.line = append(w.line, c.Name...)
		}
	}
	_ = w.endRow() // the names are ours
}

func (w *rowWriter) begin() {
	if w.fields > 0 {
		w.line = append(w.line, ',')
	}
	w.fields++
}

// endRow writes the line, or says what is wrong with it. The output's own
// errors stay with w.out until Flush, but end the rows at once.
func (w *rowWriter) endRow() error {
	if w.schema.CRLF {
		w.line = append(w.line, '\r')
	}
	w.line = append(w.line, '\n')
	err := w.err
	if err == nil {
		_, err = w.out.Write(w.line)
	}
	w.line, w.column, w.fields, w.err = w.line[:0], 0, 0, nil
	return err
}

func (w *rowWriter) refuse(c *Column, found string) {
	if w.err == nil {
		w.err = fmt.Errorf("%s: %w", c.Name, &MismatchError{found, c.expected()})
	}
}

func (w *rowWriter) text(s string) {
	i := w.column
	c := &w.schema.Columns[i]
	w.column++
	if w.leaveOut(i) {
		return
	}
	w.begin()
	if s == "" && !c.Empty || len(s) > MaxTextBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) ||
		s != "" && c.Values != nil && !slices.Contains(c.Values, s) {
		w.refuse(c, quoted(s))
		return
	}
	if strings.ContainsAny(s, `,"`) {
		s = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	w.line = append(w.line, s...)
}

func (w *rowWriter) integer(n int) {
	c := &w.schema.Columns[w.column]
	w.column++
	w.begin()
	if n < 0 || float64(n) < c.Min || float64(n) > c.Max {
		w.refuse(c, strconv.Itoa(n))
		return
	}
	w.line = strconv.AppendInt(w.line, int64(n), 10)
}

func (w *rowWriter) number(x float64) {
	c := &w.schema.Columns[w.column]
	w.column++
	w.begin()
	at := len(w.line)
	if math.IsNaN(x) || x < c.Min || x > c.Max {
		w.refuse(c, fmt.Sprint(x))
		return
	}
	w.line = appendNumber(w.line, x, c.Format)
	// A time may be above 0 and still be written as 0.0.
	if written, ok := parseDecimal(w.line[at:]); c.Positive && (!ok || written <= 0) {
		w.refuse(c, string(w.line[at:]))
	}
}

func (w *rowWriter) nothing() {
	w.column++
	w.begin()
}
