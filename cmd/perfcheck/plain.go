package main

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plain writes what may hold text of strangers' files: whatever would steer a
// terminal, which control characters do, or turn the direction of text is written as \u001b and the like,
// which in JSON is the same string. Line ends and tabs stay. Every verb's
// standard output and error go through one.
type plain struct {
	w    io.Writer
	rest []byte // the start of a character, whose end is still to come
}

func (p *plain) Write(text []byte) (int, error) {
	all := text
	if len(p.rest) > 0 {
		all = append(p.rest, text...)
		p.rest = nil
	}
	from, out := 0, []byte(nil)
	for i := 0; i < len(all); {
		c := all[i]
		if c >= ' ' && c < 0x7f || c == '\n' || c == '\t' {
			i++
			continue
		}
		if c == '\r' && i+1 == len(all) || !utf8.FullRune(all[i:]) {
			p.rest = bytes.Clone(all[i:])
			all = all[:i]
			break
		}
		r, size := utf8.DecodeRune(all[i:])
		if !(r == '\r' && all[i+1] == '\n' || harmless(r) && !(r == utf8.RuneError && size == 1)) {
			out = quoted(append(out, all[from:i]...), all[i:i+size])
			from = i + size
		}
		i += size
	}
	if out == nil {
		out = all
	} else {
		out = append(out, all[from:]...)
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}

// flush writes the rest, of which no end has come.
func (p *plain) flush() error {
	if len(p.rest) == 0 {
		return nil
	}
	rest := p.rest
	p.rest = nil
	_, err := p.w.Write(quoted(nil, rest))
	return err
}

func harmless(r rune) bool { return !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r) }

// quoted appends one character, or bytes that are none, as JSON and Go do.
func quoted(out, character []byte) []byte {
	r, size := utf8.DecodeRune(character)
	switch {
	case r == utf8.RuneError && size <= 1:
		for _, c := range character {
			out = fmt.Appendf(out, `\x%02x`, c)
		}
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
	default:
		out = fmt.Appendf(out, `\u%04x`, r)
	}
	return out
}

// raw is the writer below, for files as they are and for what steers a terminal
// on purpose.
func raw(w io.Writer) io.Writer {
	if p, ok := w.(*plain); ok {
		return p.w
	}
	return w
}
