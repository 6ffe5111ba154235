package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
)

// recordKind is the first field of every journal record.
type recordKind string

const (
	recordEnvironment recordKind = "env"    // a fingerprint under its id
	recordAccept      recordKind = "accept" // measurements of one id count for another
	recordShot        recordKind = "shot"   // what came of one shot
	recordAnchor      recordKind = "anchor" // what came of one anchor shot
	recordBlock       recordKind = "block"  // the end of a block of shots
	// What follows tells who watches a run; nothing is derived from it.
	recordPlan  recordKind = "plan"  // how many shots a category has, and how many were measured before
	recordBegin recordKind = "begin" // a category's shots follow
	recordEnd   recordKind = "end"   // the run ended by itself
)

// record is one line of a journal. Times are wall clock, for people: nothing is
// ordered or decided by them, since clocks jump.
type record struct {
	Kind   recordKind `json:"k"`
	TimeMS int64      `json:"t,omitempty"`
	Env    string     `json:"env,omitempty"`
	TP     int        `json:"tp,omitempty"`

	// Plans and begins: the category, and of a plan its shots and the run's
	// degrees. An end has its outcome as Message.
	Category Category `json:"cat,omitempty"`
	Done     int      `json:"done,omitempty"`
	Total    int      `json:"total,omitempty"`
	Degrees  []int    `json:"tps,omitempty"`

	// Shots and anchors. Scope is empty where the measurement is shared by all
	// that need a shot of this shape, else it names the one that does.
	Scope   string        `json:"for,omitempty"`
	Shape   string        `json:"shape,omitempty"`
	Block   int           `json:"b,omitempty"`
	Status  Status        `json:"st,omitempty"`
	Message string        `json:"msg,omitempty"`
	Layers  []layerRecord `json:"ly,omitempty"`
	StepUS  []float64     `json:"step,omitempty"`
	// Collectives are kept whatever layers the shot was for: they are few.
	Collectives []collectiveRecord `json:"co,omitempty"`
	Unacc       float64            `json:"un,omitempty"`
	Executed    []Group            `json:"ex,omitempty"`
	Telemetry   *Telemetry         `json:"tel,omitempty"`
	// Imported marks a row taken from a CSV file: one value, spread unknown.
	Imported bool     `json:"csv,omitempty"`
	Alpha    *float64 `json:"alpha,omitempty"` // of an imported skew row

	// Environments.
	Fingerprint map[string]string `json:"fp,omitempty"`
	Accepts     string            `json:"old,omitempty"`
	Place       string            `json:"at,omitempty"` // the host and device, for people

	// Blocks.
	Redone bool `json:"redone,omitempty"`

	// Whole steps.
	Steps *stepsRecord `json:"steps,omitempty"`
}

// layerRecord is one layer's samples in a shot.
type layerRecord struct {
	Layer    string               `json:"l"`
	US       []float64            `json:"us"`
	Calls    int                  `json:"c,omitempty"`
	Launches int                  `json:"n,omitempty"`
	Kernels  map[string][]float64 `json:"kn,omitempty"`
	RanksUS  []float64            `json:"rk,omitempty"`
}

// collectiveRecord is one layer's collectives of a kind in a shot.
type collectiveRecord struct {
	Layer  string    `json:"l"`
	Kind   string    `json:"k"`
	Rows   int       `json:"r"`
	Bytes  int       `json:"b"`
	Ranks  int       `json:"n"`
	Calls  int       `json:"c"`
	US     []float64 `json:"us"`
	WaitUS []float64 `json:"w"`
	By     string    `json:"by,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumSize is the length of the checksum and the space behind it.
const checksumSize = 9

// appendRecord appends the record's line to b: the CRC-32C of the JSON text as
// eight hexadecimal digits, a space, the JSON text, a line end. A line can be
// read with any text tool, and no part of one passes for a whole.
func appendRecord(b []byte, r *record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(text, castagnoli))
	b = append(b, text...)
	return append(b, '\n'), nil
}

// parseRecord reads a line without its line end.
func parseRecord(line []byte) (*record, error) {
	if len(line) < checksumSize || line[checksumSize-1] != ' ' {
		return nil, fmt.Errorf("found %q, expected a checksum and a record", clip(line, 40))
	}
	want, err := strconv.ParseUint(string(line[:checksumSize-1]), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("found %q, expected eight hexadecimal digits", line[:checksumSize-1])
	}
	text := line[checksumSize:]
	if got := crc32.Checksum(text, castagnoli); got != uint32(want) {
		return nil, fmt.Errorf("checksum: found %08x, the record's text gives %08x", want, got)
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	return r, nil
}

func clip(b []byte, n int) []byte {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		return b[:n]
	}
	return b
}
