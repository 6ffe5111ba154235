package perfio

// The kinds of batches. A prefill is a request with more than one new token.
const (
	KindDecode     = "decode"      // decodes of about equal length
	KindDecodeSkew = "decode_skew" // decodes, the longest above 1.25 times the mean
	KindPrefill    = "prefill"     // one prefill
	KindMixed      = "mixed"       // one prefill beside such decodes
	KindMixedSkew  = "mixed_skew"  // one prefill beside decodes with skew
	KindMulti      = "multi"       // more than one prefill
)

// KindOf is the kind of a batch, "" of an empty one.
func KindOf(requests []Request) string {
	prefills, decodes, sum, longest := 0, 0, 0, 0
	for _, r := range requests {
		if r.NewTokens > 1 {
			prefills++
			continue
		}
		decodes++
		sum += r.KVHistory
		longest = max(longest, r.KVHistory)
	}
	skew := 4*longest*decodes > 5*sum // longest > 1.25 * sum/decodes
	switch {
	case prefills > 1:
		return KindMulti
	case prefills == 1 && decodes == 0:
		return KindPrefill
	case prefills == 1 && skew:
		return KindMixedSkew
	case prefills == 1:
		return KindMixed
	case skew:
		return KindDecodeSkew
	case decodes > 0:
		return KindDecode
	}
	return ""
}
