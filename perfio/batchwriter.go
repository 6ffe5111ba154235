package perfio

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// WriteBatches writes a batches.jsonl or a shots file, a line a batch, in the
// order given. It refuses what BatchReader would refuse.
func WriteBatches(w io.Writer, rows []BatchRow) error {
	out := bufio.NewWriterSize(w, 64<<10)
	for i := range rows {
		if field, err := rows[i].check(); err != nil {
			return fmt.Errorf("batch %d: %s: %w", i+1, field, err)
		}
		line, err := json.Marshal(&rows[i])
		if err != nil {
			return fmt.Errorf("batch %d: %w", i+1, err)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return out.Flush()
}
