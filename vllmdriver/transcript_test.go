package vllmdriver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/profile"
)

var update = flag.Bool("update", false, "record testdata/transcript.jsonl anew with the example worker")

const transcriptPath = "testdata/transcript.jsonl"

// transcriptLine is one line of a conversation.
type transcriptLine struct {
	From string          `json:"from"` // driver or worker
	Line json.RawMessage `json:"line"`
}

func readTranscript(path string) ([]transcriptLine, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []transcriptLine
	for line := range bytes.Lines(text) {
		var l transcriptLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, len(lines)+1, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// comparable is a line without what differs from run to run.
func comparable(text []byte) (any, error) {
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	delete(v, "deadline_s")
	if result, ok := v["result"].(map[string]any); ok {
		delete(result, "python") // of probe
	}
	return v, nil
}

// converse is the driver's part of the transcript.
func converse(t *testing.T, d *Driver) []profile.Result {
	t.Helper()
	if _, err := d.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	boot(t, d)
	shots := []profile.Shot{
		{Groups: []profile.Group{{Count: 2, NewTokens: 1, KVHistory: 1000}, {Count: 1, NewTokens: 128, KVHistory: 0}}},
		{Groups: []profile.Group{{Count: 1, NewTokens: 64, KVHistory: 64}}},
	}
	var results []profile.Result
	keep := func(r profile.Result) error { results = append(results, r); return nil }
	if err := d.Measure(t.Context(), shots, profile.MeasureOptions{Warmup: 1, Iterations: 2}, keep); err != nil {
		t.Fatal(err)
	}
	if err := d.Measure(t.Context(), shots[:1], profile.MeasureOptions{Iterations: 3, Layers: []string{"attention", "lm_head"}}, keep); err != nil {
		t.Fatal(err)
	}
	// Close only ends the requests; this is the protocol's own end.
	if err := d.drop(d.client, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	return results
}

// TestTranscriptDriver replays the worker's side to the driver: the test binary
// plays the worker, wants the recorded requests and gives the recorded replies.
func TestTranscriptDriver(t *testing.T) {
	path, err := filepath.Abs(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		record(t, path)
	}
	d := newDriver(t, Options{Command: []string{os.Args[0], path}, Env: []string{roleVariable + "=player"}})
	results := converse(t, d)
	lines, err := readTranscript(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range lines {
		var r reply
		if l.From != "worker" {
			continue
		}
		if err := json.Unmarshal(l.Line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Shot == nil {
			continue
		}
		if n == len(results) {
			t.Fatalf("found %d results, the transcript has more", n)
		}
		got := make(map[string][]float64)
		for _, layer := range results[n].Layers {
			got[layer.Layer] = layer.SamplesUS
		}
		want := make(map[string][]float64)
		for name, layer := range r.Layers {
			want[name] = layer.US
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result %d: layers (-transcript +driver):\n%s", n, diff)
		}
		if diff := cmp.Diff(r.Telemetry, results[n].Telemetry); diff != "" {
			t.Errorf("result %d: telemetry (-transcript +driver):\n%s", n, diff)
		}
		if diff := cmp.Diff(r.StepUS, results[n].StepUS); diff != "" || results[n].Status != r.Status {
			t.Errorf("result %d: status %s, step_us (-transcript +driver):\n%s", n, results[n].Status, diff)
		}
		n++
	}
	if n != 3 || n != len(results) {
		t.Errorf("found %d results, %d in the transcript, expected 3", len(results), n)
	}
}

// record has the same conversation with the example worker through a tap.
func record(t *testing.T, path string) {
	command := exampleWorker(t)
	d := newDriver(t, Options{Command: []string{os.Args[0], path, command[0], command[1]}, Env: []string{roleVariable + "=player"}})
	converse(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("recorded %s", path)
}

// playWorker is the worker of the transcript's tests. With a command it records
// the conversation with that worker; without, it replays the one recorded.
func playWorker() {
	fail := func(err error) {
		fmt.Println(err)
		os.Exit(1)
	}
	requests, replies := bufio.NewScanner(os.NewFile(3, "requests")), os.NewFile(4, "replies")
	requests.Buffer(nil, MaxFrameBytes)
	if len(os.Args) > 2 {
		if err := tap(requests, replies, os.Args[1], os.Args[2:]); err != nil {
			fail(err)
		}
		os.Exit(0)
	}
	lines, err := readTranscript(os.Args[1])
	if err != nil {
		fail(err)
	}
	for _, l := range lines {
		if l.From == "worker" {
			if _, err := replies.Write(append(bytes.Clone(l.Line), '\n')); err != nil {
				fail(err)
			}
			continue
		}
		if !requests.Scan() {
			os.Exit(0)
		}
		got, err := comparable(requests.Bytes())
		if err != nil {
			fail(err)
		}
		want, err := comparable(l.Line)
		if err != nil {
			fail(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			fail(fmt.Errorf("request (-transcript +driver):\n%s", diff))
		}
	}
	os.Exit(0)
}

// tap passes lines on between the driver and a worker, and keeps them.
func tap(requests *bufio.Scanner, replies *os.File, path string, command []string) error {
	p, err := startProcess(processSpec{Command: command, Env: os.Environ()})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	keep := func(from string, line []byte) error {
		text, err := json.Marshal(transcriptLine{From: from, Line: line})
		out.Write(append(text, '\n'))
		return err
	}
	lines := newFrameReader(p.replies, MaxFrameBytes)
	for requests.Scan() {
		var head request
		if err := json.Unmarshal(requests.Bytes(), &head); err != nil {
			return err
		}
		if err := keep("driver", requests.Bytes()); err != nil {
			return err
		}
		if _, err := p.requests.Write(append(bytes.Clone(requests.Bytes()), '\n')); err != nil {
			return err
		}
		for ended := false; !ended; {
			line, err := lines.next()
			if err != nil {
				return err
			}
			r, err := decodeReply(line)
			if err != nil {
				return err
			}
			ended = r.Result != nil || r.Error != nil
			if err := keep("worker", line); err != nil {
				return err
			}
			if ended && head.Op == "shutdown" {
				if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
					return err
				}
			}
			if _, err := replies.Write(append(line, '\n')); err != nil {
				return err
			}
		}
	}
	return p.stop(time.Second)
}

// TestTranscriptWorker replays the driver's side to the example worker.
func TestTranscriptWorker(t *testing.T) {
	lines, err := readTranscript(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(processSpec{Command: exampleWorker(t), Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.stop(5 * time.Second); err != nil {
			t.Error(err)
		}
	}()
	replies := newFrameReader(p.replies, MaxFrameBytes)
	for i, l := range lines {
		if l.From == "driver" {
			if _, err := p.requests.Write(append(bytes.Clone(l.Line), '\n')); err != nil {
				t.Fatal(err)
			}
			continue
		}
		line, err := replies.next()
		if err != nil {
			t.Fatalf("line %d: %v; %s", i+1, err, p.tail)
		}
		got, err := comparable(line)
		if err != nil {
			t.Fatal(err)
		}
		want, err := comparable(l.Line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("line %d (-transcript +worker):\n%s", i+1, diff)
		}
	}
}
