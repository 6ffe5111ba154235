package vllmdriver

import "strings"

// StartError is a worker or an engine that did not come up.
type StartError struct {
	Err error
	// LastWords is the tail of what was printed; "" if nothing was.
	LastWords string
}

func (e *StartError) Error() string {
	if e.LastWords == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "\nthe worker's last words:\n" + indent(lastLines(e.LastWords, 25))
}

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }
