// Package perfio reads, checks and writes bundles: the folder of CSV files and
// meta.yaml in which layer latencies measured by a profiler reach a simulator.
package perfio
