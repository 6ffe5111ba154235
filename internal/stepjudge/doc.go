// Package stepjudge holds what a table says of whole steps and requests against
// a run of a real engine. Nothing is fitted here.
//
// A step is the time from its start to the next one's while the engine is busy:
// some request of a step goes on in the next. Steps before an idle engine and the
// first ones of a run, which may hold one-off compilation, are left out.
package stepjudge
