package perfio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// rowScanner splits a CSV file into rows and fields with their positions.
//
// It is our own, not encoding/csv: that package allocates a string a field,
// which on 13,000 rows of skew.csv takes longer (BenchmarkReadSkew) than the
// whole bundle may take to open. It reads what bundles hold: comma, CRLF or LF, quotes where a field
// needs them, one row a line. A quoted line break is refused.
type rowScanner struct {
	in    io.Reader
	file  string
	table *Table

	buf        []byte
	start, end int   // unread part of buf
	read       int64 // bytes taken from in
	inErr      error

	line    []byte // the current line, without its end
	lineNum int
	// position of each field of the header in the table's columns, -1 for an
	// extra column
	columns []int
	// fields of the current row by the table's columns: begin < 0 where the
	// column is absent
	fields []span
	texts  map[string]string // interned text fields

	problems []*ParseError // of the current row
	err      error         // ends the scan
}

// span is a field's bytes in the line. at is where the field begins; the value
// of a quoted field stands in quoted.
type span struct {
	begin, end int
	at         int
	quoted     []byte
}

var errLineTooLong = errors.New("line too long")

func newRowScanner(in io.Reader, file string, table *Table) *rowScanner {
	return &rowScanner{in: in, file: file, table: table, buf: make([]byte, 32<<10), texts: map[string]string{}}
}

// fatal ends the scan.
func (s *rowScanner) fatal(column int, field string, err error) bool {
	s.err = &ParseError{File: s.file, Line: s.lineNum, Column: column, Field: field, Err: err}
	return false
}

// nextLine reads one line into s.line. It is false at the end and on error.
func (s *rowScanner) nextLine() bool {
	if s.err != nil {
		return false
	}
	searched := 0
	for {
		if i := bytes.IndexByte(s.buf[s.start+searched:s.end], '\n'); i >= 0 {
			s.line = s.buf[s.start : s.start+searched+i]
			s.start += searched + i + 1
			s.lineNum++
			if n := len(s.line); n > 0 && s.line[n-1] == '\r' {
				s.line = s.line[:n-1]
			}
			if len(s.line) > MaxLineBytes {
				return s.fatal(0, "", &MismatchError{errLineTooLong.Error(), fmt.Sprintf("at most %d bytes", MaxLineBytes)})
			}
			return true
		}
		searched = s.end - s.start
		if searched > MaxLineBytes {
			s.lineNum++
			return s.fatal(0, "", &MismatchError{"a line of more than " + fmt.Sprint(MaxLineBytes) + " bytes", "a shorter one"})
		}
		if s.inErr != nil {
			if s.inErr != io.EOF {
				s.err = fmt.Errorf("%s: %w", s.file, s.inErr)
				return false
			}
			if searched == 0 {
				return false
			}
			s.lineNum++
			return s.fatal(searched+1, "", &MismatchError{"the end of the file", "a line end (is the file truncated?)"})
		}
		s.fill()
	}
}

// fill reads more of the input behind what is unread.
func (s *rowScanner) fill() {
	if s.start > 0 {
		copy(s.buf, s.buf[s.start:s.end])
		s.end -= s.start
		s.start = 0
	}
	if s.end == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	for range 100 { // as bufio: a reader that gives nothing is broken
		n, err := s.in.Read(s.buf[s.end:])
		s.end += n
		s.read += int64(n)
		if s.read > MaxTableBytes {
			err = &MismatchError{"a file of more than " + fmt.Sprint(MaxTableBytes) + " bytes", "a smaller one"}
		}
		if n > 0 || err != nil {
			s.inErr = err
			return
		}
	}
	s.inErr = io.ErrNoProgress
}

// header reads the first line and finds the columns.
func (s *rowScanner) header() bool {
	if !s.nextLine() {
		if s.err == nil {
			s.lineNum = 1
			s.fatal(0, "", &MismatchError{"an empty file", "a header line"})
		}
		return false
	}
	s.fields = make([]span, len(s.table.Columns))
	if bytes.HasPrefix(s.line, []byte("\xef\xbb\xbf")) {
		return s.fatal(1, "", &MismatchError{"a byte order mark", "the header"})
	}
	names, err := s.split(nil)
	if err != nil {
		s.err = err
		return false
	}
	seen := make([]int, len(s.table.Columns))
	var missing []error
	for _, f := range names {
		name := strings.TrimSpace(string(s.value(f)))
		at := -1
		for i, c := range s.table.Columns {
			if c.Name == name {
				at = i
			}
		}
		if at >= 0 {
			if seen[at] > 0 {
				return s.fatal(f.at+1, name, &MismatchError{"the column a second time", "it once"})
			}
			seen[at]++
		}
		s.columns = append(s.columns, at)
	}
	for i, c := range s.table.Columns {
		if seen[i] == 0 && !c.Optional {
			missing = append(missing, &ParseError{File: s.file, Line: s.lineNum, Field: c.Name,
				Err: &MismatchError{"no such column in the header", c.Name}})
		}
	}
	switch len(missing) {
	case 0:
		return true
	case 1:
		s.err = missing[0]
	default:
		s.err = errors.Join(missing...)
	}
	return false
}

// next goes to the next row, good or bad; problems of the row's shape are in
// s.problems. It is false at the end and on an error that ends the file.
func (s *rowScanner) next() bool {
	s.problems = nil
	if s.columns == nil && (s.err != nil || !s.header()) {
		return false
	}
	for s.nextLine() {
		if len(s.line) == 0 {
			continue // as every CSV reader does
		}
		s.splitRow()
		return true
	}
	return false
}

// splitRow fills s.fields.
func (s *rowScanner) splitRow() {
	for i := range s.fields {
		s.fields[i].begin = -1
	}
	line, n := s.line, 0
	if bytes.IndexByte(line, '"') >= 0 {
		s.splitQuoted()
		return
	}
	for begin := 0; ; n++ {
		end := begin
		for end < len(line) && line[end] != ',' {
			end++
		}
		if n < len(s.columns) {
			if c := s.columns[n]; c >= 0 {
				s.fields[c] = span{begin: begin, end: end, at: begin}
			}
		}
		if end == len(line) {
			break
		}
		begin = end + 1
	}
	s.checkCount(n + 1)
}

func (s *rowScanner) splitQuoted() {
	fields, err := s.split(nil)
	if err != nil {
		s.problems = append(s.problems, err)
		return
	}
	for i, f := range fields {
		if i < len(s.columns) && s.columns[i] >= 0 {
			s.fields[s.columns[i]] = f
		}
	}
	s.checkCount(len(fields))
}

func (s *rowScanner) checkCount(n int) {
	if n != len(s.columns) {
		s.problem(len(s.line), "", &MismatchError{fmt.Sprintf("%d fields", n), fmt.Sprintf("%d as in the header", len(s.columns))})
	}
}

// split is the general way to split the line, with quotes.
func (s *rowScanner) split(fields []span) ([]span, *ParseError) {
	line := s.line
	for at := 0; ; {
		f := span{begin: at, at: at}
		if at < len(line) && line[at] == '"' {
			value, next := []byte{}, at+1
			for {
				i := bytes.IndexByte(line[next:], '"')
				if i < 0 {
					return nil, &ParseError{File: s.file, Line: s.lineNum, Column: at + 1,
						Err: &MismatchError{"an open quote", "a closing one on the line"}}
				}
				value = append(value, line[next:next+i]...)
				next += i + 1
				if next >= len(line) || line[next] != '"' {
					break
				}
				value = append(value, '"')
				next++
			}
			if next < len(line) && line[next] != ',' {
				return nil, &ParseError{File: s.file, Line: s.lineNum, Column: next + 1,
					Err: &MismatchError{"text after a quoted field", "a comma"}}
			}
			f.quoted, f.end = value, next
		} else if i := bytes.IndexByte(line[at:], ','); i >= 0 {
			f.end = at + i
		} else {
			f.end = len(line)
		}
		fields = append(fields, f)
		if f.end >= len(line) {
			return fields, nil
		}
		at = f.end + 1
	}
}

func (s *rowScanner) value(f span) []byte {
	if f.quoted != nil {
		return f.quoted
	}
	return s.line[f.begin:f.end]
}

// problem files one of the current row; at is the 0-based byte of the line.
func (s *rowScanner) problem(at int, field string, err error) {
	s.problems = append(s.problems, &ParseError{File: s.file, Line: s.lineNum, Column: at + 1, Field: field, Err: err})
}

// field is the value of column i; ok is false where the row does not have it
// (which checkCount has told) or where it is empty and must not be.
func (s *rowScanner) field(i int) (value []byte, ok bool) {
	f := s.fields[i]
	if f.begin < 0 {
		return nil, false
	}
	value = s.value(f)
	if len(value) == 0 {
		if c := &s.table.Columns[i]; !c.Empty {
			s.problem(f.at, c.Name, &MismatchError{"nothing", c.expected()})
		}
		return nil, false
	}
	return value, true
}

// integer is column i as an integer in the column's range.
func (s *rowScanner) integer(i int) int {
	value, ok := s.field(i)
	if !ok {
		return 0
	}
	n := 0
	for _, c := range value {
		// The overflow check rests on every Max being far below MaxInt64/10.
		if c < '0' || c > '9' || n > math32 {
			s.badNumber(i, value)
			return 0
		}
		n = n*10 + int(c-'0')
	}
	if c := &s.table.Columns[i]; float64(n) > c.Max || float64(n) < c.Min {
		s.badNumber(i, value)
		return 0
	}
	return n
}

const math32 = 1 << 32

// number is column i as a finite number in the column's range.
func (s *rowScanner) number(i int) float64 {
	value, ok := s.field(i)
	if !ok {
		return 0
	}
	x, ok := parseDecimal(value)
	c := &s.table.Columns[i]
	if !ok || x < c.Min || x > c.Max || c.Positive && x <= 0 {
		s.badNumber(i, value)
		return 0
	}
	return x
}

func (s *rowScanner) badNumber(i int, value []byte) {
	c := &s.table.Columns[i]
	s.problem(s.fields[i].at, c.Name, &MismatchError{quoted(string(value)), c.expected()})
}

// text is column i as a string; equal texts of a file share one.
func (s *rowScanner) text(i int) string {
	value, ok := s.field(i)
	if !ok {
		return ""
	}
	if t, ok := s.texts[string(value)]; ok {
		return t
	}
	c := &s.table.Columns[i]
	if len(value) > MaxTextBytes || !utf8.Valid(value) || bytes.IndexFunc(value, unicode.IsControl) >= 0 {
		s.problem(s.fields[i].at, c.Name, &MismatchError{quoted(string(value)), c.expected()})
		return ""
	}
	t := string(value)
	s.texts[t] = t
	return t
}

// has says whether the row has a value in column i.
func (s *rowScanner) has(i int) bool {
	f := s.fields[i]
	return f.begin >= 0 && len(s.value(f)) > 0
}
