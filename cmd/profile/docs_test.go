package main

import (
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

func TestPages(t *testing.T) {
	for _, page := range []string{"docs/running.md", "docs/skew.md", "docs/architectures.md"} {
		t.Run(page, func(t *testing.T) {
			doctest.Run(t, page, doctest.Options{Binaries: map[string]string{"profile": "./cmd/profile"}})
		})
	}
}
