package bundletest

import (
	"bytes"
	"fmt"
	"strings"
	"testing/fstest"

	"github.com/layerprof/layerprof/perfio"
)

// Damage is one way in which a bundle is broken.
type Damage struct {
	Name string
	// Want are the problems that it must give, each one in full as
	// file:line:column: field: message, with files named from the bundle's
	// folder, in the order in which Validate yields them.
	Want  []string
	apply func(fstest.MapFS)
}

// Files are the clean bundle's files with the damage done.
func (d Damage) Files() fstest.MapFS {
	files := Files()
	d.apply(files)
	return files
}

// replace changes the first from in a file to to. It panics where there is
// none, since then the damage would be none.
func replace(name, from, to string) func(fstest.MapFS) {
	return func(files fstest.MapFS) {
		before := files[name].Data
		after := bytes.Replace(before, []byte(from), []byte(to), 1)
		if bytes.Equal(before, after) {
			panic(fmt.Sprintf("bundletest: %s does not hold %q", name, from))
		}
		files[name] = &fstest.MapFile{Data: after, Mode: 0o644}
	}
}

// rewrite changes a whole file.
func rewrite(name string, change func(text string) string) func(fstest.MapFS) {
	return func(files fstest.MapFS) {
		files[name] = &fstest.MapFile{Data: []byte(change(string(files[name].Data))), Mode: 0o644}
	}
}

func remove(prefix string) func(fstest.MapFS) {
	return func(files fstest.MapFS) {
		for name := range files {
			if strings.HasPrefix(name, prefix) {
				delete(files, name)
			}
		}
	}
}

// Damages lists the corpus.
func Damages() []Damage {
	const (
		dense     = "tp1/" + perfio.DenseFile
		attention = "tp1/" + perfio.AttentionFile
		skew      = "tp2/" + perfio.SkewFile
		fit       = "tp1/" + perfio.SkewFitFile
		meta      = perfio.MetaFile
		batches   = "tp1/" + perfio.BatchesFile
		aKey      = "expected an integer from 0 to 67108864"
		aTime     = "expected a number above 0 and at most 1e+12"
	)
	one := func(name, want string, apply func(fstest.MapFS)) Damage {
		return Damage{Name: name, Want: []string{want}, apply: apply}
	}
	return []Damage{
		one("missing column", dense+":1: tokens: found no such column in the header, expected tokens",
			replace(dense, "tokens", "token")),
		{"two missing columns", []string{
			attention + ":1: kv_prefill: found no such column in the header, expected kv_prefill",
			attention + ":1: time_us: found no such column in the header, expected time_us",
		}, rewrite(attention, func(s string) string { return strings.NewReplacer("kv_prefill", "kvp", "time_us", "t").Replace(s) })},
		one("column twice", dense+":1:22: tokens: found the column a second time, expected it once",
			rewrite(dense, func(s string) string { return strings.Replace(s, "time_us\r", "time_us,tokens\r", 1) })),
		one("nan", dense+":2:13: time_us: found \"nan\", "+aTime, replace(dense, "embedding,1,2.125", "embedding,1,nan")),
		one("infinity", dense+":2:13: time_us: found \"inf\", "+aTime, replace(dense, "embedding,1,2.125", "embedding,1,inf")),
		one("overflow", dense+":2:13: time_us: found \"1e999\", "+aTime, replace(dense, "embedding,1,2.125", "embedding,1,1e999")),
		one("zero time", dense+":2:13: time_us: found \"0\", "+aTime, replace(dense, "embedding,1,2.125", "embedding,1,0")),
		one("negative time", attention+":3:12: time_us: found \"-7\", "+aTime, replace(attention, "0,0,1,1024,7", "0,0,1,1024,-7")),
		one("hexadecimal time", attention+":3:12: time_us: found \"0x7\", "+aTime, replace(attention, "0,0,1,1024,7", "0,0,1,1024,0x7")),
		one("negative key", attention+":3:7: kv_decode: found \"-1024\", "+aKey, replace(attention, "0,0,1,1024,7", "0,0,1,-1024,7")),
		one("fractional key", attention+":3:7: kv_decode: found \"1024.5\", "+aKey, replace(attention, "0,0,1,1024,7", "0,0,1,1024.5,7")),
		one("huge key", attention+":3:7: kv_decode: found \"1000000000\", "+aKey, replace(attention, "0,0,1,1024,7", "0,0,1,1000000000,7")),
		one("key beyond 64 bits", attention+":3:7: kv_decode: found \"99999999999999999999\", "+aKey,
			replace(attention, "0,0,1,1024,7", "0,0,1,99999999999999999999,7")),
		one("empty key", attention+":3:7: kv_decode: found nothing, "+aKey, replace(attention, "0,0,1,1024,7", "0,0,1,,7")),
		one("empty layer", dense+":2:1: layer: found nothing, expected text of 1 to 256 bytes", replace(dense, "embedding,1,", ",1,")),
		one("control character", dense+":2:1: layer: found \"embed\\x00ding\", expected text of 1 to 256 bytes",
			replace(dense, "embedding,1,", "embed\x00ding,1,")),
		one("text after a number", dense+":2:13: time_us: found \"2.125us\", "+aTime, replace(dense, "2.125", "2.125us")),
		one("blank before a number", dense+":2:11: tokens: found \" 1\", "+aKey, replace(dense, "embedding,1,", "embedding, 1,")),
		one("duplicate key", dense+":3:1: layer,tokens: found a second row of key (embedding, 1), expected only the one on line 2",
			replace(dense, "embedding,2,", "embedding,1,")),
		one("duplicate key far apart", attention+":25:1: prefill_chunk,kv_prefill,n_decode,kv_decode: found a second row of key (0, 0, 1, 16), expected only the one on line 2",
			rewrite(attention, func(s string) string { return s[:strings.LastIndex(s, "64,256,8,1024")] + "0,0,1,16,9\r\n" })),
		one("duplicate bucket", fit+":3:1: pc,n_label,skew_rate_label,kv_big_label,kp_label: found a second row of key pc=0|n<=2|sr<=70%|kvB<=1k|kp=0, expected only the one on line 2",
			replace(fit, "n<=4,sr<=40%", "n<=2,sr<=70%")),
		one("too few fields", dense+":2:12: found 2 fields, expected 3 as in the header", replace(dense, "embedding,1,2.125", "embedding,1")),
		one("too many fields", dense+":2:20: found 4 fields, expected 3 as in the header", replace(dense, "embedding,1,2.125", "embedding,1,2.125,9")),
		one("truncated last line", attention+":25:14: found the end of the file, expected a line end (is the file truncated?)",
			rewrite(attention, func(s string) string { return strings.TrimSuffix(s, ",57\r\n") })),
		one("open quote", dense+":2:1: found an open quote, expected a closing one on the line", replace(dense, "embedding,1,", "\"embedding,1,")),
		one("empty file", dense+":1: found an empty file, expected a header line", rewrite(dense, func(string) string { return "" })),
		one("long line", dense+":2: found a line of more than 65536 bytes, expected a shorter one",
			replace(dense, "embedding", strings.Repeat("x", 1<<20))),
		one("skew time", skew+":2:34: t_mean_us: found \"0.0\", "+aTime,
			rewrite(skew, func(s string) string { return replaceField(s, 2, 10, "0.0") })),
		one("skew alpha", skew+":2:50: alpha: found \"none\", expected a finite number",
			rewrite(skew, func(s string) string { return replaceField(s, 2, 13, "none") })),
		one("fit alpha", fit+":2:29: alpha: found nothing, expected a finite number", replace(fit, "0.125", "")),
		{"several files", []string{
			meta + ":6:14: tp_degrees: found \"0\", expected an integer from 1 to 65536",
			dense + ":2:11: tokens: found \"-1\", " + aKey,
			"tp2/moe.csv:1: activated_experts: found no such column in the header, expected activated_experts",
		}, func(files fstest.MapFS) {
			replace(meta, "[1, 2]", "[0, 2]")(files)
			replace(dense, "embedding,1,", "embedding,-1,")(files)
			files["tp2/moe.csv"] = &fstest.MapFile{Data: []byte("tokens,time_us\r\n"), Mode: 0o644}
		}},
		one("no meta", meta+": file does not exist", remove(meta)),
		one("no degree", meta+": found no tp<N> folder beside it, expected one or more", func(files fstest.MapFS) {
			replace(meta, "tp_degrees: [1, 2]\n", "")(files)
			remove("tp")(files)
		}),
		one("empty degree", "tp3: found none of the tables, expected one or more CSV files", func(files fstest.MapFS) {
			files["tp3/notes.txt"] = &fstest.MapFile{Data: []byte("later"), Mode: 0o644}
		}),
		one("meta syntax", meta+":2: found character that cannot start any token", replace(meta, "architecture: ", "architecture: @")),
		one("meta is a list", meta+":1:1: found a list, expected a mapping", rewrite(meta, func(string) string { return "- 1\n" })),
		one("meta twice", meta+":33:1: found a second document, expected one", rewrite(meta, func(s string) string { return s + "---\n" + s })),
		one("meta key twice", meta+":2:1: hardware: found the key a second time, expected only the one on line 1",
			rewrite(meta, func(s string) string { return "hardware: A\n" + s })),
		one("meta limit", meta+":8:15: engine_effective.block_size: found \"many\", expected an integer from 0",
			replace(meta, "block_size: 16", "block_size: many")),
		one("meta statistic", meta+":13:17: skew_statistic: found \"median\", expected one of [\"sum\" \"mean\"]",
			replace(meta, "skew_statistic: mean", "skew_statistic: median")),
		one("fit labels", meta+":18:15: skew_fit.bucket_axes.n_labels: found 2 labels, expected 3, one fewer than n_bins",
			replace(meta, "[n<=2, n<=4, n>4]", "[n<=2, n>2]")),
		one("fit default", meta+":21:22: skew_fit.per_tp.1.alpha_default: found \".nan\", expected a finite number",
			replace(meta, "alpha_default: 0.125", "alpha_default: .nan")),
		one("fit outside", meta+":22:21: skew_fit.per_tp.1.bucket_table: found \"../x.csv\", expected a path inside the bundle",
			replace(meta, "tp1/skew_fit.csv", "../x.csv")),
		one("alias bomb", meta+":1:5: b17: found more than 1048576 nodes once aliases are expanded, expected fewer",
			rewrite(meta, func(s string) string { return bomb() + s })),
		one("batch syntax", batches+":1:17: invalid character 'x' after array element", replace(batches, "[[16,", "[[16x,")),
		one("batch without requests", batches+":1:2: requests: found 0 requests, expected 1 to 65536", replace(batches, "[[16,0],[1,100]]", "[]")),
		one("batch kind", batches+":1:68: kind: found \"mixd\", expected one of [\"decode\" \"decode_skew\" \"prefill\" \"mixed\" \"mixed_skew\" \"multi\"]",
			replace(batches, `"mixed"`, `"mixd"`)),
		one("batch truncated", batches+":1:40: unexpected end of JSON input",
			rewrite(batches, func(s string) string { return s[:40] })),
	}
}

// replaceField changes field (from 0) of a line (from 1).
func replaceField(text string, line, field int, to string) string {
	lines := strings.SplitAfter(text, "\n")
	fields := strings.Split(strings.TrimSuffix(lines[line-1], "\n"), ",")
	fields[field] = to
	lines[line-1] = strings.Join(fields, ",") + "\n"
	return strings.Join(lines, "")
}

// bomb is a document of 20 lines that stands for 2^20 nodes.
func bomb() string {
	var b strings.Builder
	b.WriteString("b0: &a0 [x, x]\n")
	for i := 1; i <= 20; i++ {
		fmt.Fprintf(&b, "b%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	return b.String()
}
