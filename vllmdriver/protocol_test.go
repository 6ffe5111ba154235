package vllmdriver

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

func TestDecodeReply(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"id":1,"result":{}}`, ""},
		{`{"id":1,"result":{},"later":1}`, ""},
		{`{"id":null,"error":{"code":"bad_request","message":"?"}}`, ""},
		{`{"id":1,"shot":0,"status":"ok"}`, ""},
		{`{"id":1,"started":0}`, ""},
		{`{"id":1}`, "found 0 of result"},
		{`{"id":1,"result":null}`, "found 0 of result"},
		{`{"id":1,"result":{},"shot":0}`, "found 2 of result"},
		{`{"id":1,"result":[]}`, "expected an object"},
		{`{"result":{}}`, "id: found none"},
		{`{"id":1,"error":{"message":"?"}}`, "error.code: found none"},
		{`{"id":1.5,"result":{}}`, "cannot unmarshal"},
		{`{"id":1,"shot":0,"layers":{"a":{"us":[NaN]}}}`, "invalid character"},
		{`{"id":1,"result":{}} {}`, "after top-level value"},
		{`[]`, "expected a JSON object"},
		{``, "expected a JSON object"},
		{"{\"id\":1,\"result\":{\"a\":\"\xff\"}}", "not UTF-8"},
	} {
		_, err := decodeReply([]byte(c.line))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: found %v", c.line, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrProtocol)):
			t.Errorf("%s: found %v, expected ErrProtocol with %q", c.line, err, c.want)
		}
	}
}

func TestShotReplyCheck(t *testing.T) {
	requests := []perfio.Request{{NewTokens: 1, KVHistory: 9}, {NewTokens: 8}}
	for _, c := range []struct{ line, want string }{
		{`{"status":"ok","layers":{"a":{"us":[1,2],"calls":1,"launches":3,"kernels":{"flash":[1,0]}}},"step_us":[5,6],"unaccounted":0.01}`, ""},
		{`{"status":"ok","executed":[[8,0],[1,9]]}`, ""},
		{`{"status":"out_of_memory","message":"?"}`, ""},
		{`{"status":"fine"}`, `status: found "fine"`},
		{`{}`, `status: found ""`},
		{`{"status":"ok","layers":{"a":{"us":[1],"calls":1}}}`, "layers.a.us: found 1 samples, expected 2"},
		{`{"status":"ok","layers":{"a":{"us":[1,0],"calls":1}}}`, "layers.a.us: found 0, expected a positive time"},
		{`{"status":"ok","layers":{"a":{"us":[1,-2],"calls":1}}}`, "layers.a.us: found -2"},
		{`{"status":"ok","layers":{"a":{"us":[1,1]}}}`, "layers.a: found 0 calls"},
		{`{"status":"ok","layers":{"a":{"us":[1,1],"calls":1,"kernels":{"flash":[1]}}}}`, "kernels.flash: found 1 samples"},
		{`{"status":"ok","layers":{"a":{"us":[1,1],"calls":1,"ranks_us":[1,0]}}}`, "layers.a.ranks_us: found 0"},
		{`{"status":"ok","step_us":[0]}`, "step_us: found 0"},
		{`{"status":"ok","collectives":[{"layer":"a","kind":"all_reduce","rows":9,"bytes":18,"ranks":2,"calls":1,"us":[1,2],"wait_us":[0,3]}]}`, ""},
		{`{"status":"ok","collectives":[{"layer":"a","kind":"all_reduce","rows":9,"bytes":18,"ranks":2,"calls":1,"us":[1,2],"wait_us":[0]}]}`, "collectives: all_reduce of a: found 2 samples and 1 of waiting, expected 2"},
		{`{"status":"ok","collectives":[{"layer":"a","kind":"all_reduce","rows":9,"bytes":18,"ranks":2,"calls":1,"us":[1,0],"wait_us":[0,3]}]}`, "found 0 us and 3 us of waiting"},
		{`{"status":"ok","collectives":[{"layer":"a","kind":"all_reduce","rows":9,"bytes":18,"ranks":2,"calls":1,"us":[1,2],"wait_us":[-1,3]}]}`, "found 1 us and -1 us of waiting"},
		{`{"status":"ok","collectives":[{"layer":"a","kind":"all_reduce","rows":9,"bytes":18,"ranks":1,"calls":1,"us":[1,2],"wait_us":[0,3]}]}`, "1 ranks and 1 calls"},
		{`{"status":"ok","unaccounted":1.5}`, "unaccounted: found 1.5"},
		{`{"status":"ok","executed":[[8,0],[8,0]]}`, "executed: found other requests"},
	} {
		r, err := decodeReply([]byte(`{"id":1,"shot":0,` + c.line[1:]))
		if c.line == `{}` {
			r, err = decodeReply([]byte(`{"id":1,"shot":0}`))
		}
		if err != nil {
			t.Fatalf("%s: %v", c.line, err)
		}
		err = r.shotReply.check(2, requests)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: found %v, expected %q", c.line, err, c.want)
		}
	}
}

func TestFrameReader(t *testing.T) {
	const limit = 100_000 // longer than the buffer
	long := strings.Repeat("x", limit-1)
	for _, c := range []struct {
		name, in string
		lines    int
		err      error
	}{
		{"empty", "", 0, io.EOF},
		{"two", "a\nb\n", 2, io.EOF},
		{"ends inside", "a\nb", 1, io.ErrUnexpectedEOF},
		{"longest", long + "\n", 1, io.EOF},
		{"too long", long + "x\n", 0, ErrProtocol},
	} {
		f := newFrameReader(strings.NewReader(c.in), limit)
		n := 0
		for {
			_, err := f.next()
			if err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("%s: found %v, expected %v", c.name, err, c.err)
				}
				break
			}
			n++
		}
		if n != c.lines {
			t.Errorf("%s: found %d lines, expected %d", c.name, n, c.lines)
		}
	}
}

// FuzzReplies reads any bytes as a worker's replies: no panic, bounded lines,
// and only sound shots pass.
func FuzzReplies(f *testing.F) {
	lines, err := readTranscript(transcriptPath)
	if err != nil {
		f.Fatal(err)
	}
	serving, err := readTranscript(servingTranscriptPath)
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range append(lines, serving...) {
		f.Add(append(bytes.Clone(l.Line), '\n'))
	}
	f.Add([]byte("{\"id\":1,\"shot\":0,\"status\":\"ok\",\"layers\":{\"a\":{\"us\":[1e400]}}}\n{"))
	if text, err := os.ReadFile(transcriptPath); err == nil {
		f.Add(text)
	}
	const limit = 1 << 16
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := newFrameReader(bytes.NewReader(data), limit)
		for {
			line, err := frames.next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrProtocol) {
					t.Fatalf("found %v", err)
				}
				return
			}
			if len(line) > limit {
				t.Fatalf("a line of %d bytes", len(line))
			}
			r, err := decodeReply(line)
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatalf("found %v", err)
				}
				return
			}
			if r.Shot == nil || r.check(1, nil) != nil || r.Status != profile.OK {
				continue
			}
			for name, layer := range r.Layers {
				if len(layer.US) != 1 || !(layer.US[0] > 0) {
					t.Fatalf("layer %s passes with %v", name, layer.US)
				}
			}
		}
	})
}
