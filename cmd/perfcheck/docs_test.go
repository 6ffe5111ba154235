package main

import (
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

func TestPage(t *testing.T) {
	doctest.Run(t, "docs/judging.md", doctest.Options{Binaries: map[string]string{"perfcheck": "./cmd/perfcheck", "profile": "./cmd/profile"}})
}
