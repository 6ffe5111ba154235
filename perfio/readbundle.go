package perfio

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// ReadOption changes how a bundle is read.
type ReadOption func(*readOptions)

type readOptions struct {
	lenient bool
	only    []string // nil: all
	without []string
	limit   int
}

// Lenient takes the first of duplicate keys, as LLMServingSim does, and files a
// warning in place of an error.
func Lenient() ReadOption { return func(o *readOptions) { o.lenient = true } }

// Only reads just these of a tp folder's files (AttentionFile, …); the others
// are nil, as if absent. meta.yaml is always read.
func Only(files ...string) ReadOption {
	return func(o *readOptions) { o.only = append([]string{}, files...) }
}

// Without leaves these of a tp folder's files out.
func Without(files ...string) ReadOption {
	return func(o *readOptions) { o.without = append(o.without, files...) }
}

// MaxProblems caps how many problems the error lists; 100 where nothing is
// said. It is a cap for each file while reading, so that memory stays bounded.
func MaxProblems(n int) ReadOption { return func(o *readOptions) { o.limit = max(1, n) } }

const defaultMaxProblems = 100

func (o *readOptions) wants(file string) bool {
	return (o.only == nil || slices.Contains(o.only, file)) && !slices.Contains(o.without, file)
}

// OpenBundle reads the bundle in a folder of the file system. Symbolic links
// that leave the folder are refused.
func OpenBundle(dir string, opts ...ReadOption) (*Bundle, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &ParseError{File: dir, Err: ioCause(err)}
	}
	b, err := readBundle(root.FS(), ".", dir, opts)
	return b, errors.Join(err, root.Close())
}

// ReadBundle reads the bundle in folder dir of fsys. It fails closed: if
// anything is wrong there is no bundle, and the error lists what is, a
// *ParseError or a *ProblemsError. Files are read in parallel: fsys must be safe
// for concurrent use, as those of the standard library are.
//
// Symbolic links are followed as fsys does it: os.DirFS follows them anywhere,
// os.Root.FS and OpenBundle only inside the root.
func ReadBundle(fsys fs.FS, dir string, opts ...ReadOption) (*Bundle, error) {
	return readBundle(fsys, dir, dir, opts)
}

// readBundle reads folder dir, which messages call shown.
func readBundle(fsys fs.FS, dir, shown string, opts []ReadOption) (*Bundle, error) {
	options := readOptions{limit: defaultMaxProblems}
	for _, o := range opts {
		o(&options)
	}
	l := newLoad(fsys, dir, shown, options)
	l.plan()
	l.runParallel()
	return l.result()
}

// load is one reading of a bundle: first the folder and meta.yaml, which say
// what there is to read, then the files.
type load struct {
	fsys    fs.FS
	dir     string
	shown   string
	options readOptions
	bundle  *Bundle
	head    problems // of the folder and meta.yaml
	jobs    []job
}

// job reads one file into its place in the bundle.
type job struct {
	name string // path in fsys
	file string // as messages name it
	run  func(r io.Reader, size int64, p *problems)
	// absent, if set, is what to warn of where the file does not exist.
	absent *ParseError
	p      problems
}

func newLoad(fsys fs.FS, dir, shown string, options readOptions) *load {
	l := &load{fsys: fsys, dir: path.Clean(dir), shown: shown, options: options, bundle: &Bundle{Dir: shown}}
	l.head.limit = options.limit
	return l
}

// file is how messages name a file of the bundle.
func (l *load) file(name string) string {
	if l.shown == "" || l.shown == "." {
		return name
	}
	return strings.TrimSuffix(l.shown, "/") + "/" + name
}

// plan reads meta.yaml, lists the tp folders and what is to be read of each.
func (l *load) plan() {
	file := l.file(MetaFile)
	data, err := readDocument(l.fsys, path.Join(l.dir, MetaFile))
	if err != nil {
		l.head.add(&ParseError{File: file, Err: ioCause(err)})
	} else {
		l.bundle.Meta = parseMeta(data, file, &l.head)
	}
	if l.options.wants(CalibrationFile) {
		l.readCalibration()
	}
	degrees, err := l.degrees()
	if err != nil {
		l.head.add(&ParseError{File: l.shown, Err: ioCause(err)})
		return
	}
	for _, degree := range degrees {
		l.bundle.TPs = append(l.bundle.TPs, TP{Degree: degree})
	}
	if len(degrees) == 0 {
		l.head.add(&ParseError{File: file, Err: &MismatchError{"no tp<N> folder beside it", "one or more"}})
	}
	for _, degree := range l.promised() {
		if degree >= 1 && l.bundle.TP(degree) == nil {
			n := l.bundle.Meta.Get("tp_degrees")
			e := yamlProblem(file, n, "tp_degrees", fmt.Sprintf("degree %d", degree), fmt.Sprintf("only degrees with a folder (there is no tp%d)", degree))
			e.Warning = true
			l.head.add(e)
		}
	}
	var fit *SkewFit
	if l.bundle.Meta != nil {
		fit = l.bundle.Meta.SkewFit()
	}
	for i := range l.bundle.TPs {
		l.planTP(&l.bundle.TPs[i], fit)
	}
}

// readCalibration takes the file as it is. A bundle is whole without it.
func (l *load) readCalibration() {
	data, err := readDocument(l.fsys, path.Join(l.dir, CalibrationFile))
	switch {
	case err == nil:
		l.bundle.Calibration = data
	case !errors.Is(err, fs.ErrNotExist):
		l.head.add(&ParseError{File: l.file(CalibrationFile), Warning: true, Err: ioCause(err)})
	}
}

// promised are the degrees that meta.yaml names.
func (l *load) promised() []int {
	if l.bundle.Meta == nil {
		return nil
	}
	return l.bundle.Meta.TPDegrees()
}

func (l *load) degrees() ([]int, error) {
	entries, err := fs.ReadDir(l.fsys, l.dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "tp")
		if !ok {
			continue
		}
		degree, ok := degreeOf(digits)
		if !ok {
			continue // tp01, tp-old, tp0: siblings that are not ours
		}
		info, err := fs.Stat(l.fsys, path.Join(l.dir, e.Name()))
		if err != nil {
			l.head.add(&ParseError{File: l.file(e.Name()), Err: ioCause(err)})
			continue
		}
		if info.IsDir() {
			out = append(out, degree)
		}
	}
	slices.Sort(out)
	return out, nil
}

// planTP lists one folder's files.
func (l *load) planTP(tp *TP, fit *SkewFit) {
	folder := fmt.Sprintf("tp%d", tp.Degree)
	if !l.measured(folder) {
		l.head.add(&ParseError{File: l.file(folder), Err: &MismatchError{"none of the tables", "one or more CSV files"}})
		return
	}
	addTable(l, folder, denseCodec, &tp.Dense)
	addTable(l, folder, perSequenceCodec, &tp.PerSequence)
	addTable(l, folder, attentionCodec, &tp.Attention)
	addTable(l, folder, moeCodec, &tp.MoE)
	addTable(l, folder, skewCodec, &tp.Skew)
	addTable(l, folder, stepCodec, &tp.Steps)
	addTable(l, folder, collectivesCodec, &tp.Collectives)
	if l.options.wants(SkewFitFile) {
		l.addSkewFit(folder, tp, fit.Entry(tp.Degree))
	}
	if l.options.wants(BatchesFile) {
		l.jobs = append(l.jobs, job{
			name: path.Join(l.dir, folder, BatchesFile), file: l.file(folder + "/" + BatchesFile),
			run: func(r io.Reader, size int64, p *problems) {
				tp.Batches = readBatches(r, l.file(folder+"/"+BatchesFile), p)
			},
		})
	}
}

// measured says whether a folder holds any table. One that cannot be read
// counts: its job will say why.
func (l *load) measured(folder string) bool {
	return slices.ContainsFunc(tables, func(t *Table) bool {
		_, err := fs.Stat(l.fsys, path.Join(l.dir, folder, t.File))
		return !errors.Is(err, fs.ErrNotExist)
	})
}

func addTable[T any](l *load, folder string, c *codec[T], rows *[]T) {
	if l.options.wants(c.schema.File) {
		l.jobs = append(l.jobs, tableJob(l, folder+"/"+c.schema.File, c, rows))
	}
}

func tableJob[T any](l *load, name string, c *codec[T], rows *[]T) job {
	file := l.file(name)
	j := job{name: path.Join(l.dir, name), file: file, run: func(r io.Reader, size int64, p *problems) {
		*rows = readTable(r, file, size, c, l.options.lenient, p)
	}}
	if c.schema.Expected {
		j.absent = &ParseError{File: file, Warning: true, Err: &MismatchError{"no such file", "one (its lookups will find nothing)"}}
	}
	return j
}

// addSkewFit reads the table that meta.yaml names, else the usual one.
func (l *load) addSkewFit(folder string, tp *TP, entry *TPFit) {
	name := folder + "/" + SkewFitFile
	named := entry != nil && entry.BucketTable != "" && fs.ValidPath(entry.BucketTable)
	if named {
		name = entry.BucketTable
	}
	j := tableJob(l, name, skewFitCodec, &tp.SkewFit)
	if named && entry.AlphaByBucket == nil {
		n := l.bundle.Meta.Get("skew_fit", "per_tp", fmt.Sprint(tp.Degree), "bucket_table")
		e := yamlProblem(l.file(MetaFile), n, fmt.Sprintf("skew_fit.per_tp.%d.bucket_table", tp.Degree),
			quoted(name)+", which is missing", "a table (without it only alpha_default is used)")
		e.Warning = true
		j.absent = e
	}
	l.jobs = append(l.jobs, j)
}

// runParallel reads the files, as many at a time as there are processors.
func (l *load) runParallel() {
	workers := min(len(l.jobs), max(2, runtime.GOMAXPROCS(0)))
	next := make(chan int, len(l.jobs))
	for _, i := range l.largestFirst() {
		next <- i
	}
	close(next)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range next {
				l.jobs[i].p.limit = l.options.limit
				l.jobs[i].read(l.fsys)
			}
		})
	}
	wait.Wait()
}

// largestFirst keeps one processor from ending alone on a large file.
func (l *load) largestFirst() []int {
	sizes, order := make([]int64, len(l.jobs)), make([]int, len(l.jobs))
	for i, j := range l.jobs {
		order[i] = i
		if info, err := fs.Stat(l.fsys, j.name); err == nil {
			sizes[i] = info.Size()
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sizes[b], sizes[a]) })
	return order
}

func (j *job) read(fsys fs.FS) {
	f, size, err := openRegular(fsys, j.name, MaxTableBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if j.absent != nil {
			j.p.add(j.absent)
		}
		return
	case err != nil:
		j.p.add(&ParseError{File: j.file, Err: ioCause(err)})
		return
	}
	j.run(f, size, &j.p)
	if err := f.Close(); err != nil {
		j.p.add(&ParseError{File: j.file, Err: ioCause(err)})
	}
}

// result is the bundle, or what is wrong with it.
func (l *load) result() (*Bundle, error) {
	all := problems{limit: l.options.limit}
	l.eachProblems(func(p *problems) {
		for _, e := range slices.Concat(p.found, p.warnings) {
			all.add(e)
		}
		all.more += p.more
	})
	if err := all.err(); err != nil {
		return nil, err
	}
	l.bundle.Warnings = all.warnings
	return l.bundle, nil
}

func (l *load) eachProblems(do func(*problems)) {
	do(&l.head)
	for i := range l.jobs {
		do(&l.jobs[i].p)
	}
}

// Validate hands every problem of the bundle in folder dir of fsys to yield,
// errors and warnings, in the order of files and, but for duplicate keys, of
// lines, without a cap. It stops where yield returns false. Files are read one
// after the other and options that leave some out are honoured.
func Validate(fsys fs.FS, dir string, yield func(*ParseError) bool, opts ...ReadOption) {
	validate(fsys, dir, dir, yield, opts)
}

// ValidateDir is Validate over a folder of the file system; symbolic links that
// leave it are problems. The error is of the folder itself.
func ValidateDir(dir string, yield func(*ParseError) bool, opts ...ReadOption) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return &ParseError{File: dir, Err: ioCause(err)}
	}
	validate(root.FS(), ".", dir, yield, opts)
	return root.Close()
}

func validate(fsys fs.FS, dir, shown string, yield func(*ParseError) bool, opts []ReadOption) {
	var options readOptions
	for _, o := range opts {
		o(&options)
	}
	options.limit = 0
	l := newLoad(fsys, dir, shown, options)
	l.head.yield = yield
	l.plan()
	if l.head.stopped {
		return
	}
	for i := range l.jobs {
		j := &l.jobs[i]
		j.p.yield = yield
		j.read(fsys)
		if j.p.stopped {
			return
		}
	}
}
