package perfio_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

var update = flag.Bool("update", false, "rewrite the documents' tables from the schema")

// The documents' tables are those of the schema in code.
func TestDocumentsHoldTheSchema(t *testing.T) {
	for _, d := range []struct{ file, begin, end, text string }{
		{"doc.go", "// The files of a tp<N> folder. Columns may stand in any order and beside others.\n//\n", "package perfio\n", commentTables()},
		{"../docs/bundle.md", "<!-- tables: written by go test ./perfio -run Schema -update -->\n", "<!-- end of tables -->\n", markdownTables()},
	} {
		data, err := os.ReadFile(d.file)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok := strings.Cut(string(data), d.begin)
		found, after, ok2 := strings.Cut(rest, d.end)
		if !ok || !ok2 {
			t.Errorf("%s: the place of the tables is not marked", d.file)
			continue
		}
		if found == d.text {
			continue
		}
		if !*update {
			t.Errorf("%s does not hold the schema as it is in code; run with -update. Want:\n%s", d.file, d.text)
			continue
		}
		if err := os.WriteFile(d.file, []byte(before+d.begin+d.text+d.end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s rewritten", d.file)
	}
}

func markdownTables() string {
	var b strings.Builder
	for _, table := range perfio.Schema() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", table.File, sentence(table))
		b.WriteString("| column | type | unit | range | written as | required | meaning |\n|---|---|---|---|---|---|---|\n")
		for _, c := range table.Columns {
			fmt.Fprintf(&b, "| %s%s | %s | %s | %s | %s | %s | %s |\n", c.Name, keyMark(c), c.Type, c.Unit, rangeOf(c), c.Format, required(c),
				strings.ReplaceAll(c.Doc, "|", `\|`))
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func commentTables() string {
	var b strings.Builder
	for _, table := range perfio.Schema() {
		fmt.Fprintf(&b, "// %s: %s\n//\n", table.File, sentence(table))
		for _, c := range table.Columns {
			line := fmt.Sprintf("//\t%-19s %-8s %-9s %-26s %-8s %s", c.Name+keyMark(c), c.Type, c.Unit, rangeOf(c), required(c), c.Doc)
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		b.WriteString("//\n")
	}
	b.WriteString("// * is part of the row's key.\n")
	return b.String()
}

func sentence(t perfio.Table) string {
	ends, unique, expected := "LF", "keys may repeat", "optional"
	if t.CRLF {
		ends = "CRLF"
	}
	if t.Unique {
		unique = "keys are unique"
	}
	if t.Expected {
		expected = "a warning where absent"
	}
	return fmt.Sprintf("%s; %s; %s; written in order of %s, %s.", t.Doc, expected, unique, t.Order, ends)
}

func keyMark(c perfio.Column) string {
	if c.Key {
		return "*"
	}
	return ""
}

func rangeOf(c perfio.Column) string {
	switch {
	case c.Values != nil && c.Empty:
		return strings.Join(c.Values, ", ") + " or empty"
	case c.Values != nil:
		return strings.Join(c.Values, ", ")
	case c.Type == perfio.Text && c.Empty:
		return fmt.Sprintf("0 to %d bytes", perfio.MaxTextBytes)
	case c.Type == perfio.Text:
		return fmt.Sprintf("1 to %d bytes", perfio.MaxTextBytes)
	case c.Positive:
		return fmt.Sprintf("above 0, at most %g", c.Max)
	case c.Min < 0 && c.Empty:
		return "finite, or empty"
	case c.Min < 0:
		return "finite"
	case c.Type == perfio.Number && c.Empty:
		return "0 or above, or empty"
	case c.Type == perfio.Number:
		return "0 or above, finite"
	}
	return fmt.Sprintf("%.0f to %.0f", c.Min, c.Max)
}

func required(c perfio.Column) string {
	if c.Optional {
		return "no"
	}
	return "yes"
}

// Every number in the prose of docs/bundle.md that is a limit is the code's.
func TestDocumentHoldsTheLimits(t *testing.T) {
	data, err := os.ReadFile("../docs/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("| key of a row | %d |", perfio.MaxKey),
		fmt.Sprintf("| time | %g us |", float64(perfio.MaxTimeUS)),
		fmt.Sprintf("| tensor-parallel degree | %d |", perfio.MaxTP),
		fmt.Sprintf("| CSV or JSON lines file | %d MiB |", perfio.MaxTableBytes>>20),
		fmt.Sprintf("| rows of a table | %d |", perfio.MaxRows),
		fmt.Sprintf("| line of a CSV file | %d KiB |", perfio.MaxLineBytes>>10),
		fmt.Sprintf("| line of batches.jsonl | %d KiB |", perfio.MaxBatchLineBytes>>10),
		fmt.Sprintf("| meta.yaml, architecture file, config.json | %d MiB |", perfio.MaxDocumentBytes>>20),
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("docs/bundle.md has no line %q", want)
		}
	}
}
