package perfio

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseError is one problem of one file. It prints
// "file:line:column: field: cause"; Line and Column count from 1, Column in
// bytes (in characters for YAML), and are left out where they are 0.
type ParseError struct {
	File   string
	Line   int
	Column int
	Field  string // column, key path or "" where the problem is not a field's
	Err    error
	// Warning marks a problem that does not keep the bundle from being read.
	Warning bool
}

func (e *ParseError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(e.Line))
		if e.Column > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(e.Column))
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Message())
	return b.String()
}

// Message is the cause alone, without position and field.
func (e *ParseError) Message() string {
	if e.Err == nil {
		return "unknown problem"
	}
	return e.Err.Error()
}

// Unwrap gives the cause: a *MismatchError where something else was expected.
func (e *ParseError) Unwrap() error { return e.Err }

// MismatchError says what stood there and what should have.
type MismatchError struct {
	Found    string
	Expected string
}

func (e *MismatchError) Error() string {
	return "found " + e.Found + ", expected " + e.Expected
}

// ProblemsError is returned by ReadBundle: the bundle's problems in the order
// of files and lines, up to a cap. errors.As finds the single *ParseError.
type ProblemsError struct {
	Problems []*ParseError
	More     int // problems beyond the cap
}

func (e *ProblemsError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more problems", e.More)
	}
	return b.String()
}

// Unwrap gives the problems one by one.
func (e *ProblemsError) Unwrap() []error {
	out := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		out[i] = p
	}
	return out
}

// problems collects what is wrong with one file.
type problems struct {
	// limit caps found and warnings each; 0 means no cap.
	limit    int
	found    []*ParseError
	warnings []*ParseError
	more     int
	// yield, if set, is handed each problem in place of found and warnings.
	yield   func(*ParseError) bool
	stopped bool // yield wants no more
}

// add files e and reports whether the reading of the file is to go on.
func (p *problems) add(e *ParseError) bool {
	switch {
	case p.stopped:
	case p.yield != nil:
		p.stopped = !p.yield(e)
	case e.Warning:
		if p.limit == 0 || len(p.warnings) < p.limit {
			p.warnings = append(p.warnings, e)
		}
	case p.limit == 0 || len(p.found) < p.limit:
		p.found = append(p.found, e)
	default:
		p.more++
	}
	return !p.stopped
}

// err is nil where nothing but warnings was found.
func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	if len(p.found) == 1 && p.more == 0 {
		return p.found[0]
	}
	return &ProblemsError{Problems: p.found, More: p.more}
}

// quoted shortens what a file holds to what a message can carry.
func quoted(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
