package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/profile"
)

func planJSON(t *testing.T, args ...string) profile.Summary {
	t.Helper()
	got := runCommand(t, append([]string{"plan", "--json"}, args...)...)
	if got.status != exitOK || got.stderr != "" {
		t.Fatalf("plan %v: status %d, %s", args, got.status, got.stderr)
	}
	var s profile.Summary
	if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
		t.Fatalf("plan %v: %v in %s", args, err, got.stdout)
	}
	return s
}

func TestPlanJSON(t *testing.T) {
	for _, args := range [][]string{
		{"--max-num-batched-tokens", "2048", "--max-num-seqs", "256", "--attention-max-kv", "16384"},
		{"--model", "meta-llama/Llama-3.1-8B"},
	} {
		s := planJSON(t, args...)
		found := make(map[profile.Category]profile.CategorySummary)
		sum, unique := 0, 0
		for _, c := range s.Categories {
			found[c.Category] = c
			sum += c.Shots
			unique += c.UniqueShots
		}
		if found[profile.Attention].Shots != 8643 || found[profile.Skew].Cases != 13009 || found[profile.Skew].Shots != 3*13009 || found[profile.Attention].TP != 1 {
			t.Errorf("%v: %+v", args, s)
		}
		if s.TotalShots != sum || s.UniqueShots != unique || s.MeasuredShots != unique {
			t.Errorf("%v: totals %d, %d, %d, the categories have %d and %d", args, s.TotalShots, s.UniqueShots, s.MeasuredShots, sum, unique)
		}
	}
}

func TestPlanUnderADriversLimits(t *testing.T) {
	args := []string{"--model", "meta-llama/Llama-3.1-8B", "--driver", "roofline", "--hardware", "H200", "--tp", "1,2", "--only", "attention,dense"}
	whole, bounded := planJSON(t, args...), planJSON(t, append(args, "--kv-blocks", "1000")...)
	if whole.EstimateIsGuess || len(whole.Categories) != 4 || bounded.TotalShots >= whole.TotalShots {
		t.Errorf("%+v, with 1000 KV blocks %+v", whole, bounded)
	}
	// tp_stable layers are measured at the lowest degree only.
	if one, two := len(whole.Categories[0].Layers), len(whole.Categories[2].Layers); one != 9 || two != 7 {
		t.Errorf("%d dense layers at tp1 and %d at tp2, expected 9 and 7", one, two)
	}
	// The lean plan goes by the engine's attention kernel.
	lean := planJSON(t, "--model", "meta-llama/Llama-3.1-8B", "--driver", "roofline", "--hardware", "H200", "--plan", "lean")
	if lean.Categories[2].Shots != 195 {
		t.Errorf("lean on a FlashAttention-3 device: %+v", lean)
	}
}

func TestPlanFileIsGivenBack(t *testing.T) {
	args := []string{"--model", "meta-llama/Llama-3.1-8B", "--max-num-batched-tokens", "64", "--max-num-seqs", "8", "--attention-max-kv", "512", "--random-batches", "5"}
	printed := runCommand(t, append([]string{"plan", "--shots", "--tp", "1,2"}, args...)...)
	if printed.status != exitOK {
		t.Fatal(printed.stderr)
	}
	lines := strings.SplitAfter(printed.stdout, "\n")
	file := writeFile(t, "shots.jsonl", strings.Join(lines[1:], ""))
	given, want := planJSON(t, append(args, "--plan-file", file)...), planJSON(t, append(args, "--tp", "1,2")...)
	if given.TotalShots != want.TotalShots-1 {
		t.Errorf("%d shots given back, expected one fewer than %d", given.TotalShots, want.TotalShots)
	}
	got := runCommand(t, "plan", "--plan-file", writeFile(t, "bad.jsonl", "{}\n"))
	if got.status != exitFailure || !strings.Contains(got.stderr, "bad.jsonl:1: tp: found 0") {
		t.Errorf("status %d, %s", got.status, got.stderr)
	}
}

func TestPlanFromBundle(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "reference", "perf", "RTXPRO6000", "Qwen", "Qwen3-30B-A3B-Instruct-2507", "bf16")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data beside the repository: %v", err)
	}
	s := planJSON(t, "--from-bundle", dir)
	var got []string
	for _, c := range s.Categories {
		got = append(got, string(c.Category))
		if c.Category == profile.Attention && c.Shots != 19364 {
			t.Errorf("tp%d: %d attention shots, expected 19364", c.TP, c.Shots)
		}
	}
	if want := "dense per_sequence attention moe skew dense per_sequence attention skew"; strings.Join(got, " ") != want {
		t.Errorf("categories %v", got)
	}
}

// A model that ships with nobody comes from the hub, and a gated one says what
// to set, without the token.
func TestModelFromTheHub(t *testing.T) {
	const token = "hf_verysecret"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/org/gated/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeFile(w, r, filepath.Join("..", "..", "perfio", "models", "Qwen--Qwen3-32B.json"))
	}))
	defer server.Close()
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_TOKEN", token)
	t.Setenv("HF_HUB_OFFLINE", "")
	s := planJSON(t, "--model", "org/other", "--only", "dense")
	if !strings.Contains(strings.Join(s.Categories[0].Layers, " "), "qk_norm") {
		t.Errorf("layers %v, expected Qwen3's", s.Categories[0].Layers)
	}
	got := runCommand(t, "plan", "--model", "org/gated")
	if got.status != exitFailure || !strings.Contains(got.stderr, "gated") || strings.Contains(got.stdout+got.stderr, token) {
		t.Errorf("status %d, %q", got.status, got.stderr)
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	if got := runCommand(t, "plan", "--model", "org/other"); got.status != exitFailure || !strings.Contains(got.stderr, "HF_HUB_OFFLINE") {
		t.Errorf("offline: status %d, %q", got.status, got.stderr)
	}
}
