package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/vllmdriver"
)

// workerCommand is the command that --driver names, nil for the embedded worker.
func workerCommand(driver string) ([]string, error) {
	name, rest, found := strings.Cut(driver, ":")
	switch {
	case name == "exec":
		return splitCommand(rest)
	case name == "vllm" && !found:
		return nil, nil
	case name == "vllm":
		return nil, usageErrorf("driver: found %q, expected vllm; --python, --env and --engine-arg say more", driver)
	}
	return nil, usageErrorf("driver: found %q, expected a worker: vllm or exec:CMD", driver)
}

// openWorker makes the driver over a worker process.
func openWorker(f *sweepFlags) (profile.Driver, error) {
	command, err := workerCommand(f.Driver)
	if err != nil {
		return nil, err
	}
	driver, err := vllmdriver.New(workerOptions(f, command))
	if err != nil {
		return nil, err
	}
	return driver, nil
}

func workerOptions(f *sweepFlags, command []string) vllmdriver.Options {
	options := vllmdriver.Options{Command: command, Python: f.Python, LogPath: f.EngineLog, BootDeadline: f.BootDeadline}
	for _, name := range slices.Sorted(maps.Keys(f.Env)) {
		options.Env = append(options.Env, name+"="+f.Env[name])
	}
	if f.EngineLog == "-" {
		options.LogPath, options.Log = "", os.Stderr
	}
	return options
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
