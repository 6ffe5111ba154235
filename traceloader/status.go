package traceloader

import "fmt"

// Status says how an answer came about. A greater one is to be trusted less.
type Status uint8

const (
	// Unanswered: nothing was measured that could answer, or Options.Refuse
	// refused.
	Unanswered Status = iota
	// Measured: a measured point, unchanged; of attention by the accurate rules,
	// a batch that was measured, with what its neighbours say of its noise.
	Measured
	// Interpolated between measured points.
	Interpolated
	// Clamped to the edge of the measured range.
	Clamped
	// Extrapolated beyond the measured range.
	Extrapolated
	// Borrowed from a neighbouring slice of the attention grid, because the
	// one that was asked for was not measured.
	Borrowed
	// Fallback: a default stood in for a missing entry, such as the pooled
	// skew alpha for a bucket that was not measured.
	Fallback
)

var statusNames = [...]string{"unanswered", "measured", "interpolated", "clamped", "extrapolated", "borrowed", "fallback"}

// String returns the lower-case name.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// MarshalText writes the name, for JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Answer tells how a latency was found. Status is the worst of all that
// counted; the other fields say more where the lookup has more to say.
type Answer struct {
	Status Status
	// The axes of an attention lookup, each the worst of the points that had
	// a weight. Zero for other lookups.
	PrefillChunk Status
	KVPrefill    Status
	NDecode      Status
	KVDecode     Status
	// Corners borrowed from another slice, of the four of an attention lookup.
	BorrowedCorners int
	// Alpha is the skew correction that was applied, and AlphaStatus where it
	// stood: Measured for a fitted bucket, Fallback for a default, Unanswered
	// where no correction was asked for.
	Alpha       float64
	AlphaStatus Status
	// Sigma is one standard error of the latency, relative; 0 where the rules
	// do not know.
	Sigma float64
}

func worse(a, b Status) Status { return max(a, b) }

// merge is the answer of two lookups that both count.
func (a Answer) merge(b Answer) Answer {
	a.Status = worse(a.Status, b.Status)
	a.PrefillChunk = worse(a.PrefillChunk, b.PrefillChunk)
	a.KVPrefill = worse(a.KVPrefill, b.KVPrefill)
	a.NDecode = worse(a.NDecode, b.NDecode)
	a.KVDecode = worse(a.KVDecode, b.KVDecode)
	a.BorrowedCorners = max(a.BorrowedCorners, b.BorrowedCorners)
	return a
}
