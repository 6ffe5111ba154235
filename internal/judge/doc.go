// Package judge runs the tests of package accuracy on the rules of package
// traceloader: what `perfcheck accuracy` prints.
package judge
