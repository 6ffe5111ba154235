package lint

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/internal/tidy"
)

// maxLines bounds the list of lines in a command, in bytes; beyond it the whole
// table is measured again.
const maxLines = 1000

// folder is the bundle as `profile` takes it, and a command that makes it where
// it is packed.
func (r *reporter) folder() (dir, before string) {
	dir = r.s.Dir
	switch {
	case dir == "":
		return "BUNDLE", ""
	case strings.HasSuffix(dir, ".tar.zst"):
		return "FOLDER", fmt.Sprintf("perfcheck unpack %s FOLDER && ", shellWord(dir))
	}
	return shellWord(dir), ""
}

// driver is what measured the bundle, as far as meta.yaml says it in full.
func (r *reporter) driver() string {
	if d := r.s.Meta.Text("driver"); d == "roofline" || d == "vllm" {
		return d
	}
	return "…"
}

// again are the commands that measure the rows of one table of one degree anew
// (nil: all of them), and put them in the place of the bundle's.
func (r *reporter) again(tp int, table string, rows []*tidy.Row) string {
	m := r.s.Meta
	dir, before := r.folder()
	mended := path.Join("NEW_ROOT", m.Hardware(), m.Model(), m.Variant())
	var run strings.Builder
	fmt.Fprintf(&run, "%sprofile run --model %s --hardware %s --variant %s", before, shellWord(m.Model()), shellWord(m.Hardware()), shellWord(m.Variant()))
	// What --from-bundle does not take from meta.yaml, where it is no default.
	for _, flag := range []struct{ name, value, standard string }{
		{"tp-mode", m.TPMode(), "emulated"}, {"kv-cache-dtype", m.Text("engine_effective", "kv_cache_dtype"), "auto"},
		{"order", map[bool]string{true: "prefill-first", false: "engine"}[m.PrefillFirst()], "engine"},
		{"blocks", m.Text("blocks"), "2"}, {"iterations", m.Text("measurement_iterations"), "3"},
	} {
		if flag.value != "" && flag.value != flag.standard {
			fmt.Fprintf(&run, " --%s %s", flag.name, shellWord(flag.value))
		}
	}
	if table == "collectives" {
		table, rows = "dense", nil // which they are measured with
	}
	fmt.Fprintf(&run, " --tp %d --only %s --from-bundle %s", tp, table, dir)
	if lines := linesOf(rows); lines != "" && len(lines) <= maxLines && table != "step" && table != "skew_fit" {
		fmt.Fprintf(&run, " --lines %s", lines)
	}
	fmt.Fprintf(&run, " --out NEW_ROOT --driver %s", r.driver())
	if table == "step" {
		return run.String() // whose rows no other bundle's take the place of
	}
	fmt.Fprintf(&run, " && perfcheck merge %s %s --keep-last -o MENDED", dir, shellWord(mended))
	if table == "skew" {
		run.WriteString(" && profile fit MENDED")
	}
	return run.String()
}

// linesOf lists the rows' lines, as in 155,160-170.
func linesOf(rows []*tidy.Row) string {
	var lines []int
	for _, row := range rows {
		lines = append(lines, row.Line)
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	var out []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		text := strconv.Itoa(lines[i])
		if j > i {
			text += "-" + strconv.Itoa(lines[j])
		}
		out = append(out, text)
		i = j + 1
	}
	return strings.Join(out, ",")
}

// goOn is the command that measures what a table lacks of the bundle's own
// plan, and writes the rows of one degree that others take as they are.
func (r *reporter) goOn(table string, more string) string {
	dir, before := r.folder()
	return fmt.Sprintf("%sprofile resume %s --only %s%s --driver %s", before, dir, table, more, r.driver())
}

// fitAgain is the command that fits the skew tables anew.
func (r *reporter) fitAgain() string {
	dir, before := r.folder()
	return before + "profile fit " + dir
}

// shellWord quotes a name for the shell, where it needs that: a bundle's names
// are a stranger's, and the command is there to be copied.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-+:@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
