// Package accuracy judges lookup rules on measurements that were not used to
// build what predicts them. It knows nothing of the rules: they are handed the
// rows that a test lets them see, and asked for the rest.
//
//	results, err := accuracy.Run(data, rules, accuracy.Options{})
//
// The tests of attention, T1 to T9, hold out rows of a bundle's own files. A
// shots file (Shots) judges on batches that were measured apart.
//
// Errors are predicted/measured - 1. Nothing here is safe for concurrent use
// but the Predictors, if the rules' are.
package accuracy
