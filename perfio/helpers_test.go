package perfio_test

import "os"

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// failingWriter takes a number of bytes and fails then, as a full disk does.
type failingWriter struct {
	room int
	err  error
}

func (w *failingWriter) Write(b []byte) (int, error) {
	if len(b) > w.room {
		n := w.room
		w.room = 0
		return n, w.err
	}
	w.room -= len(b)
	return len(b), nil
}
