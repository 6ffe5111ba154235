package vllmdriver

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// vllmEnvironment is set for the embedded worker whatever this process has;
// --env overrules it. VLLM.md, section 4, says why.
func vllmEnvironment() map[string]string {
	env := map[string]string{
		"VLLM_CPU_KVCACHE_SPACE":         "1",
		"VLLM_HOST_IP":                   "127.0.0.1",
		"GLOO_SOCKET_IFNAME":             "lo",
		"HF_HUB_OFFLINE":                 "1",
		"VLLM_NO_USAGE_STATS":            "1",
		"DO_NOT_TRACK":                   "1",
		"VLLM_CPU_CI_ENV":                "1",
		"VLLM_ENABLE_V1_MULTIPROCESSING": "0",
		"PYTHONUNBUFFERED":               "1",
	}
	// Its default is in the temporary folder, which is the worker's own and goes
	// with it: every boot would compile again.
	if cache, err := os.UserCacheDir(); err == nil {
		env["TORCHINDUCTOR_CACHE_DIR"] = filepath.Join(cache, "layerprof", "torchinductor")
	}
	return env
}

// recorded are the variables that can change what is measured.
var recorded = regexp.MustCompile(`^(VLLM_|CUDA_|NCCL_|NVSHMEM_|GLOO_|TORCH|PYTORCH_|TRITON_|OMP_|MKL_|KMP_|GOMP_|HF_HUB_OFFLINE$|HF_HOME$|LD_PRELOAD$|LD_LIBRARY_PATH$|PYTHON|VIRTUAL_ENV$|DO_NOT_TRACK$)`)

// secret are names whose values never go into a bundle.
var secret = regexp.MustCompile(`(?i)(token|secret|password|passwd|credential|api_?key|_key$)`)

// environment merges what this process has with the worker's own, and returns
// the whole and what of it is recorded. overrides are "NAME=value"; a bare NAME
// removes the variable.
func environment(inherited []string, own map[string]string, overrides []string) (env []string, record map[string]string) {
	merged := make(map[string]string)
	for _, kv := range inherited {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			merged[k] = v
		}
	}
	maps.Copy(merged, own)
	given := make(map[string]bool)
	for _, kv := range overrides {
		k, v, ok := strings.Cut(kv, "=")
		given[k] = true
		if ok {
			merged[k] = v
		} else {
			delete(merged, k)
		}
	}
	record = make(map[string]string)
	for _, k := range slices.Sorted(maps.Keys(merged)) {
		env = append(env, k+"="+merged[k])
		_, mine := own[k]
		if (mine || given[k] || recorded.MatchString(k)) && !secret.MatchString(k) {
			record[k] = merged[k]
		}
	}
	return env, record
}
