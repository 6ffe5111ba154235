package perfio

import (
	"cmp"
	"strconv"
)

// codec ties a schema to its Go type: the columns are named by their index in
// the schema.
type codec[T any] struct {
	schema *Table
	decode func(s *rowScanner, row *T)
	// values gives the row back field by field, for the writer.
	values func(row *T, w *rowWriter)
	// compare orders rows as the writer does and is 0 for equal keys; nil where
	// the order is the caller's.
	compare func(a, b *T) int
	// key is the row's key as messages show it.
	key func(row *T) string
	// byKey, if set, says that a row's identity is key alone and not what
	// compare looks at.
	byKey func(row *T) bool
}

var denseCodec = &codec[DenseRow]{
	schema: denseSchema,
	decode: func(s *rowScanner, r *DenseRow) {
		r.Layer, r.Tokens, r.TimeUS = s.text(0), s.integer(1), s.number(2)
	},
	values: func(r *DenseRow, w *rowWriter) {
		w.text(r.Layer)
		w.integer(r.Tokens)
		w.number(r.TimeUS)
	},
	compare: func(a, b *DenseRow) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Tokens, b.Tokens))
	},
	key: func(r *DenseRow) string { return "(" + r.Layer + ", " + strconv.Itoa(r.Tokens) + ")" },
}

var perSequenceCodec = &codec[SequenceRow]{
	schema: perSequenceSchema,
	decode: func(s *rowScanner, r *SequenceRow) {
		r.Layer, r.Sequences, r.TimeUS = s.text(0), s.integer(1), s.number(2)
	},
	values: func(r *SequenceRow, w *rowWriter) {
		w.text(r.Layer)
		w.integer(r.Sequences)
		w.number(r.TimeUS)
	},
	compare: func(a, b *SequenceRow) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Sequences, b.Sequences))
	},
	key: func(r *SequenceRow) string { return "(" + r.Layer + ", " + strconv.Itoa(r.Sequences) + ")" },
}

var attentionCodec = &codec[AttentionRow]{
	schema: attentionSchema,
	decode: func(s *rowScanner, r *AttentionRow) {
		r.PrefillChunk, r.KVPrefill = s.integer(0), s.integer(1)
		r.NDecode, r.KVDecode = s.integer(2), s.integer(3)
		r.TimeUS = s.number(4)
	},
	values: func(r *AttentionRow, w *rowWriter) {
		w.integer(r.PrefillChunk)
		w.integer(r.KVPrefill)
		w.integer(r.NDecode)
		w.integer(r.KVDecode)
		w.number(r.TimeUS)
	},
	// Written out for speed: this runs over every row that is read.
	compare: func(a, b *AttentionRow) int {
		switch {
		case a.PrefillChunk != b.PrefillChunk:
			return cmp.Compare(a.PrefillChunk, b.PrefillChunk)
		case a.KVPrefill != b.KVPrefill:
			return cmp.Compare(a.KVPrefill, b.KVPrefill)
		case a.NDecode != b.NDecode:
			return cmp.Compare(a.NDecode, b.NDecode)
		}
		return cmp.Compare(a.KVDecode, b.KVDecode)
	},
	key: func(r *AttentionRow) string { return integers(r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode) },
}

var moeCodec = &codec[MoERow]{
	schema: moeSchema,
	decode: func(s *rowScanner, r *MoERow) {
		r.Tokens, r.ActivatedExperts, r.TimeUS = s.integer(0), s.integer(1), s.number(2)
	},
	values: func(r *MoERow, w *rowWriter) {
		w.integer(r.Tokens)
		w.integer(r.ActivatedExperts)
		w.number(r.TimeUS)
	},
	compare: func(a, b *MoERow) int {
		return cmp.Or(cmp.Compare(a.Tokens, b.Tokens), cmp.Compare(a.ActivatedExperts, b.ActivatedExperts))
	},
	key: func(r *MoERow) string { return integers(r.Tokens, r.ActivatedExperts) },
}

var skewCodec = &codec[SkewRow]{
	schema: skewSchema,
	decode: func(s *rowScanner, r *SkewRow) {
		r.Regime = s.text(0)
		r.N, r.NB = s.integer(1), s.integer(2)
		r.Ratio, r.Skew = s.number(3), s.number(4)
		r.PC, r.KP, r.KVS = s.integer(5), s.integer(6), s.integer(7)
		r.KVBig, r.KVMean = s.integer(8), s.integer(9)
		r.TMeanUS, r.TMaxUS, r.TSkewUS = s.number(10), s.number(11), s.number(12)
		r.HasAlpha = s.has(13)
		r.Alpha = s.number(13)
	},
	values: func(r *SkewRow, w *rowWriter) {
		w.text(r.Regime)
		w.integer(r.N)
		w.integer(r.NB)
		w.number(r.Ratio)
		w.number(r.Skew)
		w.integer(r.PC)
		w.integer(r.KP)
		w.integer(r.KVS)
		w.integer(r.KVBig)
		w.integer(r.KVMean)
		w.number(r.TMeanUS)
		w.number(r.TMaxUS)
		w.number(r.TSkewUS)
		if r.HasAlpha {
			w.number(r.Alpha)
		} else {
			w.nothing()
		}
	},
}

var skewFitCodec = &codec[SkewFitRow]{
	schema: skewFitSchema,
	decode: func(s *rowScanner, r *SkewFitRow) {
		r.PC, r.NLabel, r.SkewRateLabel = s.integer(0), s.text(1), s.text(2)
		r.KVBigLabel, r.KPLabel = s.text(3), s.text(4)
		r.Alpha, r.NSamples = s.number(5), s.integer(6)
		r.RawKey = s.text(7)
	},
	values: func(r *SkewFitRow, w *rowWriter) {
		w.integer(r.PC)
		w.text(r.NLabel)
		w.text(r.SkewRateLabel)
		w.text(r.KVBigLabel)
		w.text(r.KPLabel)
		w.number(r.Alpha)
		w.integer(r.NSamples)
		w.text(r.RawKey)
	},
	compare: func(a, b *SkewFitRow) int {
		return cmp.Or(cmp.Compare(a.PC, b.PC), cmp.Compare(a.NLabel, b.NLabel),
			cmp.Compare(a.SkewRateLabel, b.SkewRateLabel), cmp.Compare(a.KVBigLabel, b.KVBigLabel),
			cmp.Compare(a.KPLabel, b.KPLabel), cmp.Compare(a.RawKey, b.RawKey))
	},
	key:   (*SkewFitRow).Key,
	byKey: func(r *SkewFitRow) bool { return r.RawKey != "" },
}

var collectivesCodec = &codec[CollectiveRow]{
	schema: collectivesSchema,
	decode: func(s *rowScanner, r *CollectiveRow) {
		r.Layer, r.Collective, r.Tokens = s.text(0), s.text(1), s.integer(2)
		r.Ranks, r.Bytes, r.Calls = s.integer(3), s.integer(4), s.integer(5)
		r.TimeUS, r.WaitUS = s.number(6), s.number(7)
	},
	values: func(r *CollectiveRow, w *rowWriter) {
		w.text(r.Layer)
		w.text(r.Collective)
		w.integer(r.Tokens)
		w.integer(r.Ranks)
		w.integer(r.Bytes)
		w.integer(r.Calls)
		w.number(r.TimeUS)
		w.number(r.WaitUS)
	},
	compare: func(a, b *CollectiveRow) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Collective, b.Collective),
			cmp.Compare(a.Tokens, b.Tokens), cmp.Compare(a.Bytes, b.Bytes))
	},
	key: func(r *CollectiveRow) string {
		return "(" + r.Layer + ", " + r.Collective + ", " + strconv.Itoa(r.Tokens) + ", " + strconv.Itoa(r.Bytes) + ")"
	},
}

func integers(v ...int) string {
	b := []byte{'('}
	for i, n := range v {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(append(b, ')'))
}

// Key is the bucket's key in the skew table: RawKey where there is one, else
// pc=<pc>|<n>|<skew rate>|<kv big>|<kp>.
func (r *SkewFitRow) Key() string {
	if r.RawKey != "" {
		return r.RawKey
	}
	return "pc=" + strconv.Itoa(r.PC) + "|" + r.NLabel + "|" + r.SkewRateLabel + "|" + r.KVBigLabel + "|" + r.KPLabel
}
