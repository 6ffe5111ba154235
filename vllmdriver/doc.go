// Package vllmdriver runs shots on a real engine: a worker process, the
// embedded one for vLLM or any other program that speaks the protocol of
// PROTOCOL.md.
package vllmdriver
