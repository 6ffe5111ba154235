// Package perfio reads, checks and writes bundles: the folder of CSV files and
// meta.yaml in which layer latencies measured by a profiler reach a simulator.
// It also knows the architecture files, which say of which layers a decoder
// block is made, and model configs.
//
//	b, err := perfio.OpenBundle("perf/H200/meta-llama/Llama-3.1-8B/bf16")
//	if err != nil {
//		log.Fatal(err) // every problem, each on a line of its own
//	}
//	for _, row := range b.TP(1).Attention {
//		fmt.Println(row.PrefillChunk, row.NDecode, row.TimeUS)
//	}
//
// ReadBundle does the same over any fs.FS (an archive, an embedded folder),
// Validate hands over every problem without a cap, and the Readers read one
// file row by row. The Write functions write what the readers took, byte for
// byte; WriteBundle replaces files atomically.
//
// Errors of a file's contents are *ParseError, of several *ProblemsError, whose
// text is "file:line:column: field: found X, expected Y"; errors.As finds them.
// A Bundle, an Architecture and a ModelConfig are plain data: they may be read
// from any number of goroutines as long as none changes them. A Reader is for
// one goroutine.
//
// # Schema
//
// The files of a tp<N> folder. Columns may stand in any order and beside others.
//
// dense.csv: layers whose work goes by the step's tokens; a warning where absent; keys are unique; written in order of layer, tokens, CRLF.
//
//	layer*              text               1 to 256 bytes             yes      layer's name in the architecture's catalog
//	tokens*             integer  tokens    0 to 67108864              yes      tokens that the step computes
//	time_us             number   us        above 0, at most 1e+12     yes      latency of one call
//
// per_sequence.csv: layers whose work goes by the sequences that are sampled; a warning where absent; keys are unique; written in order of layer, sequences, CRLF.
//
//	layer*              text               1 to 256 bytes             yes      layer's name in the architecture's catalog
//	sequences*          integer  sequences 0 to 67108864              yes      sequences in the step
//	time_us             number   us        above 0, at most 1e+12     yes      latency of one call
//
// attention.csv: attention of one prefill chunk beside decodes of equal length; a warning where absent; keys are unique; written in order of prefill_chunk, kv_prefill, n_decode, kv_decode, CRLF.
//
//	prefill_chunk*      integer  tokens    0 to 67108864              yes      tokens of the prefill chunk; 0: pure decode
//	kv_prefill*         integer  tokens    0 to 67108864              yes      KV history of the prefill chunk
//	n_decode*           integer  requests  0 to 67108864              yes      decode requests; 0: pure prefill
//	kv_decode*          integer  tokens    0 to 67108864              yes      KV history of each decode
//	time_us             number   us        above 0, at most 1e+12     yes      latency of one call
//
// moe.csv: the whole sparse block, gate included, of one rank (tp1 only); optional; keys are unique; written in order of tokens, activated_experts, CRLF.
//
//	tokens*             integer  tokens    0 to 67108864              yes      tokens of the rank
//	activated_experts*  integer  experts   0 to 67108864              yes      distinct experts that the rank's tokens activate
//	time_us             number   us        above 0, at most 1e+12     yes      latency of one call
//
// skew.csv: attention of decodes of unequal length, against their mean and their largest; optional; keys may repeat; written in order of the plan (as given), LF.
//
//	regime              text               1 to 256 bytes             yes      pure (pc is 0) or mixed
//	n*                  integer  requests  0 to 67108864              yes      decode requests
//	nb*                 integer  requests  0 to 67108864              yes      of these, the long ones
//	ratio               number   1         0 or above, finite         yes      nb/n
//	skew*               number   1         0 or above, finite         yes      kv_big/kvs as planned
//	pc*                 integer  tokens    0 to 67108864              yes      prefill chunk; 0: none
//	kp*                 integer  tokens    0 to 67108864              yes      KV history of the prefill chunk
//	kvs*                integer  tokens    0 to 67108864              yes      KV history of the short decodes
//	kv_big              integer  tokens    0 to 67108864              yes      KV history of the long decodes
//	kv_mean             integer  tokens    0 to 67108864              yes      floor of the mean KV history
//	t_mean_us           number   us        above 0, at most 1e+12     yes      all decodes at kv_mean
//	t_max_us            number   us        above 0, at most 1e+12     yes      all decodes at kv_big
//	t_skew_us           number   us        above 0, at most 1e+12     yes      nb decodes at kv_big, the others at kvs
//	alpha               number   1         finite, or empty           yes      (t_skew - t_mean)/(t_max - t_mean) of the unrounded times; empty where t_max <= t_mean
//
// skew_fit.csv: alpha by bucket, fitted to skew.csv; optional; keys are unique; written in order of pc, then the labels as text, CRLF.
//
//	pc*                 integer  tokens    0 to 67108864              yes      prefill chunk
//	n_label*            text               1 to 256 bytes             yes      bucket of the number of decodes
//	skew_rate_label*    text               1 to 256 bytes             yes      bucket of (mean - min)/(max - min)
//	kv_big_label*       text               1 to 256 bytes             yes      bucket of the longest KV history
//	kp_label*           text               1 to 256 bytes             yes      bucket of the prefill chunk's KV history
//	alpha               number   1         finite                     yes      weight of t_max against t_mean
//	n_samples           integer  rows      0 to 2147483647            yes      rows of skew.csv behind alpha
//	raw_key*            text               0 to 256 bytes             no       takes the place of the key made of pc and the labels
//
// step.csv: whole steps of the engine serving requests: the host's parts and the device's; optional; keys may repeat; written in order of mode, then as measured, LF.
//
//	mode                text               graph_sync, graph_async, eager_sync, eager_async yes      graphs or eager launches, scheduling synchronous or behind the device
//	layers              integer  layers    0 to 67108864              yes      depth of the model that was booted
//	graph               text               FULL, PIECEWISE, NONE or empty yes      what the forward pass was launched as
//	padded_tokens       integer  tokens    0 to 67108864              yes      tokens of the forward pass, padding included
//	n_decode            integer  requests  0 to 67108864              yes      requests with one new token and a history
//	kv_decode_mean      number   tokens    0 or above, finite         yes      mean of their histories, in the middle step
//	kv_decode_max       integer  tokens    0 to 67108864              yes      the longest
//	kv_decode_min       integer  tokens    0 to 67108864              yes      the shortest
//	n_prefill           integer  requests  0 to 67108864              yes      the other requests
//	prefill_chunk       integer  tokens    0 to 67108864              yes      sum of the new tokens of prefills
//	kv_prefill          integer  tokens    0 to 67108864              yes      sum of their histories
//	admitted            integer  requests  0 to 67108864              yes      requests that are in their first step
//	finished            integer  requests  0 to 67108864              yes      requests that ended with the step before
//	steps               integer  steps     1 to 67108864              yes      measured steps behind the row, which holds their medians
//	schedule_us         number   us        0 or above, or empty       yes      the scheduler's call
//	dispatch_us         number   us        0 or above, or empty       yes      to the call that executes the step
//	prepare_us          number   us        0 or above, or empty       yes      to the forward's call
//	launch_us           number   us        0 or above, or empty       yes      the forward's call
//	after_us            number   us        0 or above, or empty       yes      to execute's return
//	sample_us           number   us        0 or above, or empty       yes      to the sampler's return; without async scheduling it waits for the device
//	wait_us             number   us        0 or above, or empty       yes      to the next call of the scheduler's update; with async scheduling that of the step before
//	update_us           number   us        0 or above, or empty       yes      that call
//	return_us           number   us        0 or above, or empty       yes      to the return of the engine's step
//	between_us          number   us        0 or above, or empty       yes      to the next step's scheduler call
//	step_us             number   us        0 or above, or empty       yes      from the scheduler's call to that of the next step: the sum of the above
//	device_wait_us      number   us        0 or above, or empty       yes      on the device, from execute's call to the forward's beginning
//	device_forward_us   number   us        0 or above, or empty       yes      to the forward's end
//	device_after_us     number   us        0 or above, or empty       yes      to the end of sampling
//	device_step_us      number   us        0 or above, or empty       yes      from the end of the step before to the end of this one
//	spread              number   1         0 or above, finite         yes      (max - min)/median of step_us among the row's steps
//
// collectives.csv: what the ranks of a tensor-parallel engine exchange at the end of a layer, beside that layer's own time (tp_mode real only); optional; keys are unique; written in order of layer, collective, tokens, bytes, LF.
//
//	layer*              text               1 to 256 bytes             yes      layer's name in the architecture's catalog
//	collective*         text               1 to 256 bytes             yes      all_reduce, all_gather, ...
//	tokens*             integer  tokens    0 to 67108864              yes      tokens that the step computes; of a per_sequence layer: its sequences
//	ranks               integer  ranks     2 to 65536                 yes      that take part
//	bytes*              integer  bytes     0 to 4294967296            yes      of the tensor that each rank gives
//	calls               integer  calls     1 to 67108864              yes      in one call of the layer
//	time_us             number   us        above 0, at most 1e+12     yes      of one collective, on the rank that comes last and waits for nobody: the transfer
//	wait_us             number   us        0 or above, finite         yes      how much longer the rank that comes first is in it
//
// * is part of the row's key.
package perfio
