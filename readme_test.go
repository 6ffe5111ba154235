package layerprof_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

// README's commands are typed in a checkout, so they run in a copy of one.
func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("builds both programs anew")
	}
	doctest.Run(t, "README.md", doctest.Options{
		Setup: copyCheckout,
		Env:   goCaches(t), // HOME is another there
	})
}

// So do those of the page on servers.
func TestServingPage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs anew")
	}
	doctest.Run(t, "docs/serving.md", doctest.Options{Setup: copyCheckout, Env: goCaches(t)})
}

func TestExampleBundle(t *testing.T) {
	doctest.Run(t, "examples/bundle/README.md", doctest.Options{
		Binaries: map[string]string{"profile": "./cmd/profile", "perfcheck": "./cmd/perfcheck"},
	})
}

// The bundle that ships is what its README's command makes.
func TestExampleBundleIsMade(t *testing.T) {
	text, err := os.ReadFile("examples/bundle/README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)\$ (profile run .*?)\n\$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("README shows no profile run")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "profile")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/profile").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := strings.Fields(strings.ReplaceAll(string(found[1]), "\\\n", " "))[1:]
	run := exec.Command(program, args...)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const tables = "H200/meta-llama/Llama-3.1-8B/bf16/tp1"
	for _, name := range []string{"dense.csv", "per_sequence.csv", "attention.csv", "skew.csv", "skew_fit.csv"} {
		want, err := os.ReadFile(filepath.Join(dir, "bundle", tables, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("examples/bundle", tables, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("examples/bundle: %s is not what its README's command makes", name)
		}
	}
}

// The program in README is a program, and answers.
func TestREADMEProgram(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```go file=lookup.go\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatal("README shows no program")
	}
	file := filepath.Join(t.TempDir(), "lookup.go")
	if err := os.WriteFile(file, found[1], 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "run", file).CombinedOutput()
	if err != nil || !regexp.MustCompile(`^[1-9][0-9]+ true\n$`).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExamples(t *testing.T) {
	for example, want := range map[string]string{"lookup": "whole step", "bundled": " true\n", "steptime": "us"} {
		out, err := exec.Command("go", "run", "./examples/"+example).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", example, err, out)
		}
	}
}

// goCaches are the caches of the go command, as environment variables.
func goCaches(t *testing.T) []string {
	t.Helper()
	var env []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	return env
}

// copyCheckout copies this checkout into a folder, but for hidden files.
func copyCheckout(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			err = os.CopyFS(filepath.Join(dir, e.Name()), os.DirFS(e.Name()))
		default:
			var data []byte
			if data, err = os.ReadFile(e.Name()); err == nil {
				err = os.WriteFile(filepath.Join(dir, e.Name()), data, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
