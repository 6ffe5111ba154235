package hub

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	token = "hf_secret0123456789"
	model = "org/some-model"
)

// env is an environment with a home of its own.
func env(t *testing.T, values map[string]string) func(string) string {
	home := t.TempDir()
	return func(name string) string {
		if v, ok := values[name]; ok {
			return v
		}
		if name == "HOME" {
			return home
		}
		return ""
	}
}

func newClient(t *testing.T, values map[string]string) *Client {
	t.Helper()
	c, err := FromEnv(env(t, values))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, text string, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDownloadSendsToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/org/some-model/resolve/main/config.json" || r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"model_type":"llama"}`))
	}))
	defer server.Close()
	tokenFile := put(t, token+"\n", t.TempDir(), "token")
	for name, values := range map[string]map[string]string{
		"HF_TOKEN":      {"HF_ENDPOINT": server.URL + "/", "HF_TOKEN": token},
		"HF_TOKEN_PATH": {"HF_ENDPOINT": server.URL, "HF_TOKEN_PATH": tokenFile},
		"HF_HOME":       {"HF_ENDPOINT": server.URL, "HF_HOME": filepath.Dir(tokenFile)},
	} {
		text, source, err := newClient(t, values).Config(t.Context(), model)
		if err != nil || string(text) != `{"model_type":"llama"}` || !strings.HasPrefix(source, server.URL) {
			t.Errorf("%s: %q from %q, %v", name, text, source, err)
		}
	}
}

func TestCacheComesFirst(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("asked the hub for what is cached")
		http.NotFound(w, nil)
	}))
	defer server.Close()
	home := t.TempDir()
	folder := filepath.Join(home, "hub", "models--org--some-model")
	put(t, "abc123", folder, "refs", "main")
	want := put(t, `{"cached":true}`, folder, "snapshots", "abc123", "config.json")
	for _, offline := range []string{"0", "1"} {
		c := newClient(t, map[string]string{"HF_HOME": home, "HF_ENDPOINT": server.URL, "HF_HUB_OFFLINE": offline})
		text, source, err := c.Config(t.Context(), model)
		if err != nil || string(text) != `{"cached":true}` || source != want {
			t.Errorf("offline %s: %q from %q, %v", offline, text, source, err)
		}
	}
	put(t, "../../other", folder, "refs", "main")
	if _, _, err := newClient(t, map[string]string{"HF_HOME": home}).Config(t.Context(), model); err == nil || !strings.Contains(err.Error(), "expected a revision") {
		t.Errorf("a revision that leads out of the cache: %v", err)
	}
}

func TestOffline(t *testing.T) {
	_, _, err := newClient(t, map[string]string{"HF_HUB_OFFLINE": "1"}).Config(t.Context(), model)
	if !errors.Is(err, ErrOffline) || !strings.Contains(err.Error(), model) {
		t.Errorf("error %v, expected ErrOffline", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		token  string
		want   error
		text   string
	}{
		{"401 without a token", 401, "", ErrGated, "set HF_TOKEN"},
		{"403 with a token", 403, token, ErrGated, "granted access"},
		{"404", 404, token, ErrNotFound, "spelling"},
		{"500", 500, token, nil, "500"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				// A hub that repeats the token must not bring it into our errors.
				http.Error(w, r.Header.Get("Authorization"), test.status)
			}))
			defer server.Close()
			c := newClient(t, map[string]string{"HF_ENDPOINT": server.URL, "HF_TOKEN": test.token})
			_, _, err := c.Config(t.Context(), model)
			if err == nil || !strings.Contains(err.Error(), test.text) || (test.want != nil && !errors.Is(err, test.want)) {
				t.Fatalf("error %v, expected %v and %q", err, test.want, test.text)
			}
			if strings.Contains(err.Error(), token) {
				t.Errorf("the token stands in the error: %v", err)
			}
		})
	}
}

func TestTokenStaysWithItsHost(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the token was sent to the host of a redirect")
		}
		_, _ = w.Write([]byte(`{"from":"other"}`))
	}))
	defer other.Close()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	// To itself, where the token is wanted, then to another port of the same host.
	mux.HandleFunc("/org/some-model/resolve/main/config.json", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/moved", http.StatusFound)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the token is missing after a redirect within the host")
		}
		http.Redirect(w, r, other.URL+"/file", http.StatusFound)
	})
	text, _, err := newClient(t, map[string]string{"HF_ENDPOINT": server.URL, "HF_TOKEN": token}).Config(t.Context(), model)
	if err != nil || string(text) != `{"from":"other"}` {
		t.Errorf("%q, %v", text, err)
	}

	// A redirect that cannot be followed and repeats the token in its address.
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/?t="+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), http.StatusFound)
	}))
	defer bad.Close()
	_, _, err = newClient(t, map[string]string{"HF_ENDPOINT": bad.URL, "HF_TOKEN": token}).Config(t.Context(), model)
	if err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("error %v, expected one without the token", err)
	}
}

func TestBadAnswersAndNames(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer server.Close()
	if _, _, err := newClient(t, map[string]string{"HF_ENDPOINT": server.URL}).Config(t.Context(), model); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Errorf("a page in place of a config: %v", err)
	}
	for _, id := range []string{"", "a/b/c", "../x", "org/", "/abs", "org/na me", "org/a?b", "org/.."} {
		if _, _, err := (&Client{}).Config(t.Context(), id); err == nil || !strings.Contains(err.Error(), "expected an id") {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if _, _, err := (&Client{Endpoint: "no address"}).Config(t.Context(), model); err == nil || !strings.Contains(err.Error(), "HF_ENDPOINT") {
		t.Errorf("endpoint: %v", err)
	}
	for name, values := range map[string]map[string]string{
		"HF_HUB_OFFLINE": {"HF_HUB_OFFLINE": "maybe"},
		"HF_TOKEN":       {"HF_TOKEN": "two\nlines"},
	} {
		if _, err := FromEnv(env(t, values)); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "lines\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
