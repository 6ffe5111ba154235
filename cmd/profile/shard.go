package main

import (
	"os"
	"strings"

	"github.com/layerprof/layerprof/profile"
)

// shard is --shard; zero where it was not given.
func (f *runFlags) shard() (profile.Shard, error) {
	if f.Shard == "" && !f.given("shard") { // else a script's variable was empty
		return profile.Shard{}, nil
	}
	shard, err := profile.ParseShard(f.Shard)
	if err != nil {
		return shard, &exitError{Status: exitUsage, Err: err}
	}
	return shard, nil
}

// place says where this process runs: the host, and the devices that it sees
// where somebody chose them.
func place() string {
	host := hostName()
	if devices := os.Getenv("CUDA_VISIBLE_DEVICES"); devices != "" {
		host += " GPU " + devices
	}
	return strings.TrimSpace(host)
}

// hostName is Slurm's name for the node, where there is one.
func hostName() string {
	if node := os.Getenv("SLURMD_NODENAME"); node != "" {
		return node
	}
	host, _ := os.Hostname() // for people; a host without a name has none
	return host
}
