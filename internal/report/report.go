// Package report writes one HTML file that shows bundles: what they hold and
// where it comes from, every curve and grid, what the lookup rules make of it,
// and what lint finds. The file needs no network and runs no script but its
// own; whatever comes from a bundle is text in it.
//
//	err := report.Write(w, []report.Source{{Name: "perf/H200/…", Files: fsys}})
//
// Its figures are the plots of uPlot (assets/uplot) and tables. Their ids, and
// those of findings, are those of package lint.
package report

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/perfio"
)

// MaxBundles is how many bundles one report shows side by side.
const MaxBundles = 4

// Source is a bundle to show.
type Source struct {
	Name  string // its path, for people
	Files fs.FS  // the bundle's folder
	// Folder is the same on disk, for the journal that a run left there; ""
	// for a packed bundle, which has none.
	Folder string
}

// Write writes the report of bundles.
func Write(w io.Writer, sources []Source) error {
	r, err := New(sources)
	if err != nil {
		return err
	}
	return r.Write(w)
}

// Report is a page ready to be written.
type Report struct{ page *page }

// Write writes the page.
func (r *Report) Write(w io.Writer) error { return r.page.write(w) }

// New reads bundles and makes their page. One that cannot be read whole is an
// error.
func New(sources []Source) (*Report, error) {
	if len(sources) == 0 || len(sources) > MaxBundles {
		return nil, fmt.Errorf("report: found %d bundles, expected 1 to %d", len(sources), MaxBundles)
	}
	p := &page{Title: "layerprof report"}
	var all []*perfio.Bundle
	for i, s := range sources {
		b, err := perfio.ReadBundle(s.Files, ".")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		b.Dir = s.Name
		all = append(all, b)
		p.Bundles = append(p.Bundles, newBundleView(i, b))
	}
	for i, s := range sources {
		if err := p.add(i, s, all); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		if i > 0 {
			p.compare(all[0], all[i], i)
		}
	}
	p.finish()
	return &Report{p}, nil
}

//go:embed assets
var assets embed.FS

// pageTemplate escapes by context: what comes from a bundle is text, whatever
// it looks like.
var pageTemplate = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"clean": chart.Printable,
	"thousands": func(n int) string {
		text := fmt.Sprint(n)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		return text
	},
	"percent": func(share float64) string { return fmt.Sprintf("%.2f", 100*share) },
	"limit": func(n int) string {
		if n == 0 {
			return "not recorded"
		}
		return fmt.Sprint(n)
	},
}).ParseFS(assets, "assets/report.html"))

// asset is an embedded file with the hash that lets a browser run it.
func asset(names ...string) (text, hash string, err error) {
	var all bytes.Buffer
	for _, name := range names {
		data, err := assets.ReadFile("assets/" + name)
		if err != nil {
			return "", "", err
		}
		// A browser hashes the text with its line ends normalized.
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		if path.Base(name) == "LICENSE" { // goes with what it licenses
			data = slices.Concat([]byte("/*!\n"), data, []byte("*/\n"))
		}
		all.Write(data)
	}
	sum := sha256.Sum256(all.Bytes())
	return all.String(), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
}

func (p *page) write(w io.Writer) error {
	style, styleHash, err1 := asset("uplot/LICENSE", "uplot/uPlot.min.css", "report.css")
	library, libraryHash, err2 := asset("uplot/LICENSE", "uplot/uPlot.iife.min.js")
	script, scriptHash, err3 := asset("report.js")
	// Marshal escapes <, > and &: no name ends the element.
	data, err4 := json.Marshal(&p.Data)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	err := pageTemplate.Execute(out, struct {
		*page
		Policy          string
		Style           template.CSS
		Library, Script template.JS
		JSON            template.JS
	}{
		p, "default-src 'none'; style-src " + styleHash + "; script-src " + libraryHash + " " + scriptHash + "; base-uri 'none'; form-action 'none'",
		template.CSS(style), template.JS(library), template.JS(script), template.JS(data),
	})
	return errors.Join(err, out.Flush())
}
