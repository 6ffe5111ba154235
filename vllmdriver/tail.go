package vllmdriver

import (
	"bytes"
	"io"
	"sync"
)

// tailBytes is how much of a worker's log is kept for messages.
const tailBytes = 16 << 10

// tail keeps the end of what is written to it, and passes all of it on.
type tail struct {
	mu   sync.Mutex
	kept []byte
	cut  bool
	pass io.Writer // nil: nowhere
}

// Write never fails: a log that cannot be written must not stop a measurement.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailBytes; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
		t.cut = true
	}
	if t.pass != nil {
		_, _ = t.pass.Write(p)
	}
	return len(p), nil
}

// String is what is kept, beginning with a whole line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept
	if t.cut {
		if i := bytes.IndexByte(kept, '\n'); i >= 0 {
			kept = kept[i+1:]
		}
	}
	return string(bytes.ToValidUTF8(bytes.TrimSpace(kept), []byte("?")))
}
