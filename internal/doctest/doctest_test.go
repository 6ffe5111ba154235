package doctest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	page := "# Page\n\n```yaml file=a/b.yaml\nx: 1\n```\n\n```console\n$ cat \\\n    a/b.yaml\nx: 1\n$ false # exit 1\n```\n\n```go\n$ no session\n```\n"
	got, err := Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Line: 3, File: "a/b.yaml", Text: "x: 1\n"},
		{Line: 8, Command: "cat a/b.yaml", Output: []string{"x: 1"}},
		{Line: 11, Command: "false", Status: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"```console\n$ x\n", "```console\nno prompt\n```\n"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		shown  []string
		output string
		want   bool
	}{
		{nil, "anything", true},
		{[]string{"a", "b"}, "a\nb\n", true},
		{[]string{"a", "b"}, "a\nb\nc\n", false},
		{[]string{"a", "b"}, "a\n", false},
		{[]string{"a", "..."}, "a\nb\nc\n", true},
		{[]string{"a", "..."}, "a\n", true},
		{[]string{"...", "c"}, "a\nb\nc", true},
		{[]string{"...", "c"}, "a\nb\nd", false},
		{[]string{"took ... s", "end"}, "took 1.5 s\nend\n", true},
		{[]string{"took ... s"}, "took 1.5 m\n", false},
		{[]string{"a.c"}, "abc\n", false},
		{[]string{"a", ""}, "a  \n\n", true},
	} {
		if got := Matches(test.shown, test.output); got != test.want {
			t.Errorf("Matches(%q, %q) = %v", test.shown, test.output, got)
		}
	}
}
