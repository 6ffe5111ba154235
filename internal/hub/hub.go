// Package hub finds a model's config.json by its Hugging Face id: in the local
// cache, else at the hub, as the hub's own tools do and by the same environment
// variables.
//
//	HF_HOME           the cache's folder (default ~/.cache/huggingface)
//	HF_HUB_CACHE      the folder of cached models (default $HF_HOME/hub)
//	HF_TOKEN          the access token; else the file $HF_HOME/token
//	HF_TOKEN_PATH     another token file
//	HF_ENDPOINT       the hub's address, e.g. a mirror's
//	HF_HUB_OFFLINE    1: look into the cache only
//
// The token is sent to the endpoint's own host and to no other, redirects
// included, and stands in no error.
package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// defaultEndpoint is the public hub.
const defaultEndpoint = "https://huggingface.co"

// maxConfigBytes bounds a download: a config.json has a few KiB.
const maxConfigBytes = 4 << 20

// The errors that callers tell apart.
var (
	ErrGated    = errors.New("the hub refuses access")
	ErrNotFound = errors.New("not found")
	ErrOffline  = errors.New("not in the cache, and HF_HUB_OFFLINE is set")
)

// Client finds config files. Its zero value goes by an empty environment.
type Client struct {
	Endpoint string // "": the public hub
	CacheDir string // the folder of models--ORG--NAME; "": no cache
	Token    string // "": none
	Offline  bool
	HTTP     *http.Client // nil: one with a timeout of a minute
}

// FromEnv sets a client up by the environment, as getenv has it.
func FromEnv(getenv func(string) string) (*Client, error) {
	home := getenv("HF_HOME")
	if home == "" {
		cache := getenv("XDG_CACHE_HOME")
		if cache == "" && getenv("HOME") != "" {
			cache = filepath.Join(getenv("HOME"), ".cache")
		}
		if cache != "" {
			home = filepath.Join(cache, "huggingface")
		}
	}
	c := &Client{Endpoint: getenv("HF_ENDPOINT"), CacheDir: getenv("HF_HUB_CACHE"), Token: strings.TrimSpace(getenv("HF_TOKEN"))}
	if c.CacheDir == "" && home != "" {
		c.CacheDir = filepath.Join(home, "hub")
	}
	switch strings.ToLower(getenv("HF_HUB_OFFLINE")) {
	case "", "0", "false", "no", "off":
	case "1", "true", "yes", "on":
		c.Offline = true
	default:
		return nil, fmt.Errorf("HF_HUB_OFFLINE: found %q, expected 1 or 0", getenv("HF_HUB_OFFLINE"))
	}
	tokenFile := getenv("HF_TOKEN_PATH")
	if tokenFile == "" && home != "" {
		tokenFile = filepath.Join(home, "token")
	}
	if c.Token == "" && tokenFile != "" {
		text, err := os.ReadFile(tokenFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("token file: %w", err)
		}
		c.Token = strings.TrimSpace(string(text))
	}
	if strings.ContainsAny(c.Token, " \t\r\n") {
		return nil, errors.New("HF_TOKEN: the token has spaces or line breaks in it")
	}
	return c, nil
}

// modelID is ORG/NAME or, for old models, NAME alone.
var modelID = regexp.MustCompile(`^(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$`)

// IsModelID says whether the text can be a model's id.
func IsModelID(id string) bool {
	return len(id) <= 200 && modelID.MatchString(id) && !strings.Contains(id, "..") && !strings.Contains(id, "--")
}

// Config returns a model's config.json and where it was found: a path or an
// address.
func (c *Client) Config(ctx context.Context, id string) (text []byte, source string, err error) {
	if !IsModelID(id) {
		return nil, "", fmt.Errorf("model: found %q, expected an id like org/name", id)
	}
	text, source, err = c.cached(id)
	if !errors.Is(err, ErrNotFound) {
		return text, source, err
	}
	if c.Offline {
		return nil, "", fmt.Errorf("%s: %w", id, ErrOffline)
	}
	return c.download(ctx, id)
}

// cached looks where the hub's tools keep what they have downloaded.
func (c *Client) cached(id string) ([]byte, string, error) {
	if c.CacheDir == "" {
		return nil, "", ErrNotFound
	}
	folder := filepath.Join(c.CacheDir, "models--"+strings.ReplaceAll(id, "/", "--"))
	revision, err := os.ReadFile(filepath.Join(folder, "refs", "main"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", ErrNotFound
	} else if err != nil {
		return nil, "", err
	}
	name := strings.TrimSpace(string(revision))
	if name == "" || !filepath.IsLocal(name) {
		return nil, "", fmt.Errorf("%s: found %q, expected a revision", filepath.Join(folder, "refs", "main"), name)
	}
	path := filepath.Join(folder, "snapshots", name, "config.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", ErrNotFound
	}
	return text, path, err
}

func (c *Client) download(ctx context.Context, id string) ([]byte, string, error) {
	endpoint := strings.TrimRight(cmp.Or(c.Endpoint, defaultEndpoint), "/")
	base, err := url.Parse(endpoint)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, "", errors.New("HF_ENDPOINT: expected an address like https://host")
	}
	address := endpoint + "/" + id + "/resolve/main/config.json"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, "", err
	}
	request.Header.Set("User-Agent", "layerprof")
	response, err := c.client(base).Do(request)
	if err != nil {
		return nil, "", c.redact(fmt.Errorf("%s: %w", id, err))
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, "", c.refused(id, response)
	case http.StatusNotFound:
		return nil, "", fmt.Errorf("%s: %w at %s: check the spelling, or give a folder or a config.json", id, ErrNotFound, base.Host)
	default:
		return nil, "", fmt.Errorf("%s: %s answers %s", id, base.Host, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxConfigBytes+1))
	switch {
	case err != nil:
		return nil, "", c.redact(fmt.Errorf("%s: %w", id, err))
	case len(text) > maxConfigBytes:
		return nil, "", fmt.Errorf("%s: its config.json has more than %d bytes", id, maxConfigBytes)
	case !json.Valid(text):
		return nil, "", fmt.Errorf("%s: what %s sends is no JSON", id, base.Host)
	}
	return text, address, nil
}

// client sends the token to the endpoint's host alone. The library drops a
// request's own headers on a redirect to another host, but not to another port
// or a subdomain, so the token is set here, hop by hop.
func (c *Client) client(base *url.URL) *http.Client {
	client := http.Client{Timeout: time.Minute}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	transport := client.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	client.Transport = tokenTransport{next: transport, token: c.Token, scheme: base.Scheme, host: base.Host}
	return &client
}

type tokenTransport struct {
	next                http.RoundTripper
	token, scheme, host string
}

func (t tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.token != "" && r.URL.Host == t.host && r.URL.Scheme == t.scheme {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+t.token)
	}
	return t.next.RoundTrip(r)
}

// refused says what to do about a 401 or 403.
func (c *Client) refused(id string, response *http.Response) error {
	advice := "HF_TOKEN is set: the model is gated, and the token's account has to be granted access on the model's page, or the token is no longer valid"
	if c.Token == "" {
		advice = "the model is gated or private, or does not exist: ask for access on its page and set HF_TOKEN (or the token file)"
	}
	return fmt.Errorf("%s: %w (%s): %s; a folder or a config.json works too", id, ErrGated, response.Status, advice)
}

// redact keeps the token out of errors that others have made, in case an
// address or a proxy's answer repeats it.
func (c *Client) redact(err error) error {
	if c.Token == "" || !strings.Contains(err.Error(), c.Token) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.Token, "***"))
}
