package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"plain, µ …\t|\r\n":               "plain, µ …\t|\r\n",
		"a\x1b[31mb":                      `a\u001b[31mb`,
		"title \x1b]0;x\a":                `title \u001b]0;x\u0007`,
		"over\rwritten":                   `over\u000dwritten`,
		"\u202eevil\u2066":                `\u202eevil\u2066`,
		"8 bits \u009b31m, \x9b31m, \xe2": `8 bits \u009b31m, \x9b31m, \xe2`,
		"no space\u00a0, joined\u200d":    "no space\u00a0, joined\u200d", // a name's own, in CSV too
		"\ufffd":                          "\ufffd",
		"end\r":                           `end\u000d`,
	} {
		for _, chunk := range []int{1, 2, 3, 1000} { // characters may be cut anywhere
			var out bytes.Buffer
			p := &plain{w: &out}
			for rest := []byte(in); len(rest) > 0; {
				n := min(chunk, len(rest))
				if got, err := p.Write(rest[:n]); got != n || err != nil {
					t.Fatalf("%q: %d, %v", in, got, err)
				}
				rest = rest[n:]
			}
			if err := p.flush(); err != nil {
				t.Fatal(err)
			}
			if out.String() != want {
				t.Errorf("%q by %d: %q, want %q", in, chunk, out.String(), want)
			}
		}
	}
}

// No text of a bundle reaches the terminal as it is, by any verb, and JSON holds
// it whole.
func TestHostileText(t *testing.T) {
	const hostile, layer = "\x1b[31mRED\x1b]0;title\a\u202e\u009b", "</script>\u202e" // perfio refuses a layer of control characters
	files := bundletest.Files()
	quotedName := `"\e[31mRED\e]0;title\a\u202e\x9b"`
	files["meta.yaml"].Data = []byte("gpu: " + quotedName + "\nvllm_version: " + quotedName + "\n" +
		strings.Replace(string(files["meta.yaml"].Data), "hardware: SYNTHETIC", "hardware: "+quotedName, 1))
	for _, tp := range []string{"tp1", "tp2"} {
		name := tp + "/dense.csv"
		files[name].Data = []byte(strings.Replace(string(files[name].Data), "qkv_proj,16,", layer+",16,", 1))
	}
	work := t.TempDir()
	dir, broken := filepath.Join(work, hostile), filepath.Join(work, "broken")
	if err := bundletest.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	files["tp1/dense.csv"].Data = []byte(strings.Replace(string(files["tp1/dense.csv"].Data), "qkv_proj,64,", "qkv_proj,"+hostile+",", 1))
	if err := bundletest.Write(broken, files); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"validate", dir}, {"validate", broken}, {"validate", "--format", "github", broken}, {"validate", "--json", broken}, {"inspect", dir}, {"inspect", broken},
		{"inspect", "--json", dir}, {"lint", dir}, {"lint", "--json", dir}, {"diff", dir, cleanBundle(t)}, {"tp", dir, dir}, {"query", "--bundle", dir, "dense", layer, "16"},
		{"query", "--bundle", dir, "--lenient", "attention", "1", "2", "3", "4"}, {"accuracy", dir}, {"calibrate", dir}, {"export", dir},
		{"plot", "--bundle", dir, "dense", layer}, {"plot", "--bundle", dir, "attention", "16", "0"}, {"merge", dir, cleanBundle(t), "-o", filepath.Join(work, "merged")},
		{"merge", dir, dir, "-o", filepath.Join(work, hostile+"2")}, {"report", dir, "-o", filepath.Join(work, hostile+".html")}, {"pack", broken, "-o", filepath.Join(work, "b.tar.zst")},
		{"pack", dir, "-o", filepath.Join(work, hostile+".tar.zst")}, {"inspect", filepath.Join(work, hostile+".tar.zst")}, {"unpack", filepath.Join(work, hostile+".tar.zst"), dir},
		{"watch", dir}, {"steps", "--bundle", dir, "--steps", filepath.Join(work, hostile)}, {hostile}, {"inspect", "--" + hostile},
	} {
		_, stdout, stderr := call(t, "", args...)
		if text := stdout + stderr; strings.ContainsAny(text, "\x1b\a\u202e\u009b") {
			t.Errorf("%q: %q", args, text)
		}
	}
	if _, stdout, stderr := call(t, "", "inspect", dir); !strings.Contains(stdout, `\u001b[31mRED\u001b]0;title\u0007\u202e\u009b`) {
		t.Errorf("inspect: %q%q", stdout, stderr)
	}
	_, stdout, _ := call(t, "", "inspect", "--json", dir)
	var in struct{ Hardware string }
	if err := json.Unmarshal([]byte(stdout), &in); err != nil || in.Hardware != hostile {
		t.Errorf("inspect --json: %v, %q", err, in.Hardware)
	}
}
