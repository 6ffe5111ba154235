package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/layerprof/layerprof/vllmdriver"
)

// openWorker makes the driver over a worker process; command is nil for the
// embedded one.
func openWorker(f *sweepFlags, command []string) (*vllmdriver.Driver, error) {
	options := vllmdriver.Options{Command: command, Python: f.Python, LogPath: f.EngineLog, BootDeadline: f.BootDeadline}
	for _, name := range slices.Sorted(maps.Keys(f.Env)) {
		options.Env = append(options.Env, name+"="+f.Env[name])
	}
	if f.EngineLog == "-" {
		options.LogPath, options.Log = "", os.Stderr
	}
	return vllmdriver.New(options)
}

// splitCommand splits a command line at blanks; quotes, single or double, keep
// blanks together. There is no other shell syntax.
func splitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case unicode.IsSpace(r):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, usageErrorf("driver: exec: a %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, usageErrorf("driver: exec: found no command, expected exec:CMD")
	}
	return words, nil
}
