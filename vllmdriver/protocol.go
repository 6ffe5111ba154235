package vllmdriver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// ProtocolVersion is the version of PROTOCOL.md that this package speaks.
const ProtocolVersion = 1

// MaxFrameBytes is the longest line of the protocol, its end included.
const MaxFrameBytes = 64 << 20

// ErrProtocol is wrapped by what is said of a worker that does not keep to the
// protocol.
var ErrProtocol = errors.New("protocol")

// WorkerError is a worker's own account of why it refused an operation.
type WorkerError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Fatal: the worker exits by itself.
	Fatal bool `json:"fatal"`
}

func (e *WorkerError) Error() string { return "worker: " + e.Code + ": " + e.Message }

// request is what every request begins with; the operations add their fields.
type request struct {
	ID int64  `json:"id"`
	Op string `json:"op"`
	// DeadlineS is how long the worker may take, in seconds.
	DeadlineS float64 `json:"deadline_s,omitempty"`
}

func (r *request) header() *request { return r }

// operation is any request.
type operation interface{ header() *request }

type helloRequest struct {
	request
	Protocol int `json:"protocol"`
}

// Hello is a worker's answer to hello.
type Hello struct {
	Protocol           int            `json:"protocol"`
	Name               string         `json:"name"`
	Version            string         `json:"version"`
	Origin             profile.Origin `json:"origin"`
	Capabilities       []string       `json:"capabilities"`
	BatchShots         int            `json:"batch_shots"`
	PaceShotsPerSecond float64        `json:"pace_shots_per_second"`
}

func (h *Hello) check() error {
	switch {
	case h.Protocol != ProtocolVersion:
		return fmt.Errorf("%w: hello: protocol: found %d, expected %d", ErrProtocol, h.Protocol, ProtocolVersion)
	case h.Name == "":
		return fmt.Errorf("%w: hello: name: found none", ErrProtocol)
	case h.Origin != profile.Measured && h.Origin != profile.Synthetic:
		return fmt.Errorf("%w: hello: origin: found %q, expected %s or %s", ErrProtocol, h.Origin, profile.Measured, profile.Synthetic)
	case h.BatchShots < 0 || h.PaceShotsPerSecond < 0:
		return fmt.Errorf("%w: hello: batch_shots, pace_shots_per_second: found %d and %v, expected none below 0",
			ErrProtocol, h.BatchShots, h.PaceShotsPerSecond)
	}
	return nil
}

type bootRequest struct {
	request
	Model               string            `json:"model"`
	Config              map[string]any    `json:"config"`
	TP                  int               `json:"tp"`
	TPMode              profile.TPMode    `json:"tp_mode,omitempty"`
	DType               string            `json:"dtype"`
	KVCacheDType        string            `json:"kv_cache_dtype"`
	MaxNumBatchedTokens int               `json:"max_num_batched_tokens"`
	MaxNumSeqs          int               `json:"max_num_seqs"`
	MaxModelLen         int               `json:"max_model_len"`
	Blocks              int               `json:"blocks"`
	Catalog             []catalogEntry    `json:"catalog"`
	EngineArgs          map[string]string `json:"engine_args"`
	Seed                int64             `json:"seed"`
}

type catalogEntry struct {
	Layer    string   `json:"layer"`
	Category string   `json:"category"`
	VLLM     []string `json:"vllm"`
	Within   string   `json:"within"`
}

type bootResult struct {
	Limits           bootLimits        `json:"limits"`
	GPU              string            `json:"gpu"`
	SMCount          int               `json:"sm_count"`
	AttentionBackend string            `json:"attention_backend"`
	ModelRunner      string            `json:"model_runner"`
	EngineVersion    string            `json:"engine_version"`
	CUDAVersion      string            `json:"cuda_version"`
	Fingerprint      map[string]string `json:"fingerprint"`
	Provenance       map[string]any    `json:"provenance"`
	Catalog          []struct {
		Layer   string   `json:"layer"`
		Modules []string `json:"modules"`
	} `json:"catalog"`
	UnmatchedModules []string `json:"unmatched_modules"`
}

// bootLimits are the engine's own; 0 means none.
type bootLimits struct {
	MaxNumBatchedTokens int `json:"max_num_batched_tokens"`
	MaxNumSeqs          int `json:"max_num_seqs"`
	MaxModelLen         int `json:"max_model_len"`
	CacheTokens         int `json:"cache_tokens"`
	BlockSize           int `json:"block_size"`
	NumExperts          int `json:"num_experts"`
	TopK                int `json:"top_k"`
}

func (l *bootLimits) check() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"max_num_batched_tokens", l.MaxNumBatchedTokens}, {"max_num_seqs", l.MaxNumSeqs}, {"max_model_len", l.MaxModelLen},
		{"cache_tokens", l.CacheTokens}, {"block_size", l.BlockSize}, {"num_experts", l.NumExperts}, {"top_k", l.TopK},
	} {
		if f.value < 0 {
			return fmt.Errorf("%w: boot: limits.%s: found %d, expected 0 or more", ErrProtocol, f.name, f.value)
		}
	}
	return nil
}

type measureRequest struct {
	request
	Shots      []shotRequest `json:"shots"`
	Warmup     int           `json:"warmup"`
	Iterations int           `json:"iterations"`
	FlushL2    bool          `json:"flush_l2"`
	Layers     []string      `json:"layers"`
	Seed       int64         `json:"seed"`
}

type shotRequest struct {
	Requests  []perfio.Request `json:"requests"`
	Experts   int              `json:"experts"`
	Histogram []int            `json:"histogram,omitempty"`
}

// shotReply is one shot's answer.
type shotReply struct {
	Status      profile.Status        `json:"status"`
	Message     string                `json:"message"`
	Layers      map[string]layerReply `json:"layers"`
	Collectives []collectiveReply     `json:"collectives"`
	StepUS      []float64             `json:"step_us"`
	Unaccounted float64               `json:"unaccounted"`
	Executed    []perfio.Request      `json:"executed"`
	Telemetry   *profile.Telemetry    `json:"telemetry"`
}

type layerReply struct {
	US       []float64            `json:"us"`
	Calls    int                  `json:"calls"`
	Launches int                  `json:"launches"`
	Kernels  map[string][]float64 `json:"kernels"`
	RanksUS  []float64            `json:"ranks_us"`
}

type collectiveReply struct {
	Layer  string    `json:"layer"`
	Kind   string    `json:"kind"`
	Rows   int       `json:"rows"`
	Bytes  int       `json:"bytes"`
	Ranks  int       `json:"ranks"`
	Calls  int       `json:"calls"`
	US     []float64 `json:"us"`
	WaitUS []float64 `json:"wait_us"`
	By     string    `json:"by"`
}

func (c *collectiveReply) check(iterations int) error {
	name := fmt.Sprintf("collectives: %s of %s", c.Kind, c.Layer)
	switch {
	case c.Kind == "" || c.Rows < 0 || c.Bytes < 0 || c.Ranks < 2 || c.Calls < 1:
		return fmt.Errorf("%w: %s: found %d rows, %d bytes, %d ranks and %d calls, expected none below 0, 2 ranks and 1 call",
			ErrProtocol, name, c.Rows, c.Bytes, c.Ranks, c.Calls)
	case len(c.US) != iterations || len(c.WaitUS) != iterations:
		return fmt.Errorf("%w: %s: found %d samples and %d of waiting, expected %d", ErrProtocol, name, len(c.US), len(c.WaitUS), iterations)
	}
	for i := range c.US {
		if us, wait := c.US[i], c.WaitUS[i]; !(us > 0) || !(wait >= 0) || math.IsInf(us, 0) || math.IsInf(wait, 0) {
			return fmt.Errorf("%w: %s: found %v us and %v us of waiting, expected a positive time and one of 0 or more", ErrProtocol, name, us, wait)
		}
	}
	return nil
}

// reply is one line of a worker. Exactly one of Result, Error, Shot, Started,
// Served and Steps is there.
type reply struct {
	ID      *int64          `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *WorkerError    `json:"error"`
	Shot    *int            `json:"shot"`
	Started *int            `json:"started"`
	// Of serve.
	Served *int                 `json:"served"`
	Steps  []profile.StepRecord `json:"steps"`
	shotReply
}

func decodeReply(line []byte) (*reply, error) {
	if !utf8.Valid(line) {
		return nil, fmt.Errorf("%w: a line that is not UTF-8", ErrProtocol)
	}
	if trimmed := bytes.TrimLeft(line, " \t"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, fmt.Errorf("%w: found %s, expected a JSON object", ErrProtocol, excerpt(line))
	}
	r := new(reply)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrProtocol, excerpt(line), err)
	}
	if string(r.Result) == "null" {
		r.Result = nil
	}
	kinds := 0
	for _, there := range []bool{r.Result != nil, r.Error != nil, r.Shot != nil, r.Started != nil, r.Served != nil, r.Steps != nil} {
		if there {
			kinds++
		}
	}
	switch {
	case r.ID == nil && r.Error == nil:
		return nil, fmt.Errorf("%w: %s: id: found none", ErrProtocol, excerpt(line))
	case kinds != 1:
		return nil, fmt.Errorf("%w: %s: found %d of result, error, shot, started, served and steps, expected one", ErrProtocol, excerpt(line), kinds)
	case r.Result != nil && r.Result[0] != '{':
		return nil, fmt.Errorf("%w: %s: result: expected an object", ErrProtocol, excerpt(line))
	case r.Error != nil && r.Error.Code == "":
		return nil, fmt.Errorf("%w: %s: error.code: found none", ErrProtocol, excerpt(line))
	}
	return r, nil
}

// check says what is wrong with a shot's answer, asked for with iterations
// samples of a batch of the given requests.
func (s *shotReply) check(iterations int, requests []perfio.Request) error {
	switch s.Status {
	case profile.OK:
	case profile.Infeasible, profile.Failed, profile.OutOfMemory:
		return nil
	default:
		return fmt.Errorf("%w: status: found %q, expected ok, infeasible, failed or out_of_memory", ErrProtocol, s.Status)
	}
	for name, layer := range s.Layers {
		if len(layer.US) != iterations {
			return fmt.Errorf("%w: layers.%s.us: found %d samples, expected %d", ErrProtocol, name, len(layer.US), iterations)
		}
		for _, us := range layer.US {
			if !(us > 0) || math.IsInf(us, 0) {
				return fmt.Errorf("%w: layers.%s.us: found %v, expected a positive time", ErrProtocol, name, us)
			}
		}
		if layer.Calls < 1 || layer.Launches < 0 {
			return fmt.Errorf("%w: layers.%s: found %d calls and %d launches", ErrProtocol, name, layer.Calls, layer.Launches)
		}
		for _, us := range layer.RanksUS {
			if !(us > 0) || math.IsInf(us, 0) {
				return fmt.Errorf("%w: layers.%s.ranks_us: found %v, expected a positive time", ErrProtocol, name, us)
			}
		}
		for kernel, times := range layer.Kernels {
			if len(times) != iterations {
				return fmt.Errorf("%w: layers.%s.kernels.%s: found %d samples, expected %d", ErrProtocol, name, kernel, len(times), iterations)
			}
			for _, us := range times {
				if !(us >= 0) || math.IsInf(us, 0) {
					return fmt.Errorf("%w: layers.%s.kernels.%s: found %v, expected a time", ErrProtocol, name, kernel, us)
				}
			}
		}
	}
	for i := range s.Collectives {
		if err := s.Collectives[i].check(iterations); err != nil {
			return err
		}
	}
	for _, us := range s.StepUS {
		if !(us > 0) || math.IsInf(us, 0) {
			return fmt.Errorf("%w: step_us: found %v, expected a positive time", ErrProtocol, us)
		}
	}
	if !(s.Unaccounted >= 0 && s.Unaccounted <= 1) {
		return fmt.Errorf("%w: unaccounted: found %v, expected 0 to 1", ErrProtocol, s.Unaccounted)
	}
	if s.Executed != nil && !sameRequests(s.Executed, requests) {
		return fmt.Errorf("%w: executed: found other requests than those of the shot", ErrProtocol)
	}
	return nil
}

// sameRequests compares two lists whatever their order.
func sameRequests(a, b []perfio.Request) bool {
	if len(a) != len(b) {
		return false
	}
	count := make(map[perfio.Request]int, len(a))
	for _, r := range a {
		count[r]++
	}
	for _, r := range b {
		if count[r]--; count[r] < 0 {
			return false
		}
	}
	return true
}

// excerpt is enough of a line to recognise it.
func excerpt(line []byte) string {
	const most = 120
	if len(line) > most {
		return fmt.Sprintf("%q and %d bytes more", line[:most], len(line)-most)
	}
	return fmt.Sprintf("%q", line)
}

// frameReader splits a stream into lines of bounded length.
type frameReader struct {
	r     *bufio.Reader
	limit int
	line  int
}

func newFrameReader(r io.Reader, limit int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

// next is the next line without its end, the caller's to keep. io.EOF comes
// only between lines; a stream that ends inside one is io.ErrUnexpectedEOF.
func (f *frameReader) next() ([]byte, error) {
	f.line++
	var line []byte
	for {
		part, err := f.r.ReadSlice('\n')
		if len(line)+len(part) > f.limit {
			return nil, fmt.Errorf("%w: line %d: longer than %d bytes", ErrProtocol, f.line, f.limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'}), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, fmt.Errorf("%w: line %d: %w", ErrProtocol, f.line, io.ErrUnexpectedEOF)
		default:
			return nil, err
		}
	}
}
