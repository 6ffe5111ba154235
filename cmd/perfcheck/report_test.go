package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/lint"
)

// What is in the page is tested in internal/report; here is the verb.
func TestReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "SYNTHETIC", "example", "Toy-MoE", "bf16")
	if err := bundletest.Write(dir, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	status, stdout, stderr := call(t, "", "report", dir, "-o", file)
	if status != exitOK || stdout != "" || stderr != file+": 1 bundles\n" {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A packed bundle gives the same page, but for its name and the journal's absence.
	packed := filepath.Join(t.TempDir(), "b.tar.zst")
	if status, _, stderr := call(t, "", "pack", dir, "-o", packed); status != exitOK {
		t.Fatal(stderr)
	}
	status, other, stderr := call(t, "", "report", packed, "-o", "-")
	if status != exitOK {
		t.Fatal(stderr)
	}
	same := func(s, name string) string {
		s = strings.ReplaceAll(s, name, "NAME")
		return regexp.MustCompile(`(A packed bundle|The bundle&#39;s folder) holds no journal`).ReplaceAllString(s, "NO JOURNAL")
	}
	if diff := cmp.Diff(strings.Split(same(string(page), dir), "\n"), strings.Split(same(other, packed), "\n")); diff != "" {
		t.Errorf("the page of a packed bundle differs: %s", diff)
	}
	for _, test := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"report"}, exitUsage, "the bundles to show"},
		{[]string{"report", dir}, exitUsage, "--output"},
		{[]string{"report", dir, dir, dir, dir, dir, "-o", file}, exitUsage, "at most 4"},
		{[]string{"report", filepath.Join(dir, "absent"), "-o", file}, exitFailed, "absent"},
		{[]string{"report", dir, "-o", filepath.Join(dir, "absent", "report.html")}, exitFailed, "absent"},
	} {
		if status, _, stderr := call(t, "", test.args...); status != test.status || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%v: status %d, %s", test.args, status, stderr)
		}
	}
	// What cannot be read whole is not shown in part, and the old page stays.
	files := bundletest.Files()
	files["tp1/dense.csv"].Data = append(files["tp1/dense.csv"].Data, "qkv_proj,x,1\r\n"...)
	bad := t.TempDir()
	if err := bundletest.Write(bad, files); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := call(t, "", "report", bad, "-o", file); status != exitFailed || !strings.Contains(stderr, "tp1/dense.csv:") {
		t.Errorf("a damaged bundle: status %d, %s", status, stderr)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(page) {
		t.Errorf("the page was replaced: %v", err)
	}
	// Lint's findings have the page's ids.
	files = bundletest.Files()
	files["tp2/dense.csv"].Data = []byte(strings.Replace(string(files["tp2/dense.csv"].Data), "layernorm,2,", "layernorm,2,1", 1))
	if err := bundletest.Write(bad, files); err != nil {
		t.Fatal(err)
	}
	_, text, _ := call(t, "", "report", bad, "-o", "-")
	_, lines, _ := call(t, "", "lint", "--json", bad)
	found := 0
	for _, m := range regexp.MustCompile(`"id":"([^"]+)".*"plot":"([^"]+)"`).FindAllStringSubmatch(lines, -1) {
		found++
		if !strings.Contains(text, `<tr id="`+m[1]+`">`) || !strings.Contains(text, `id="`+m[2]+`"`) {
			t.Errorf("the page has no finding %s or no figure %s", m[1], m[2])
		}
	}
	if found == 0 || !strings.Contains(lines, `"id":"tp-copies-tp2-dense-final_layernorm"`) {
		t.Errorf("lint says %s", lines)
	}
	if lint.Slug("</script>") == lint.Slug("<script>") || strings.ContainsAny(lint.Slug("</script> \u202e"), "</> \u202e") {
		t.Errorf("ids of names: %q", lint.Slug("</script>"))
	}
}
