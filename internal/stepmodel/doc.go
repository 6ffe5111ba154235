// Package stepmodel fits what a server's step takes beside its layers: the
// host's parts by the number of requests, and how the device's forward relates
// to the sum of the layers' kernels. It knows rows of measured steps and sums of
// kernels, nothing of tables or files.
//
// A step in synchronous scheduling is one after the other
//
//	before  the scheduler, and the preparation of the batch by the host
//	forward the longer of the host's launching and the device's work
//	after   sampling, the scheduler's update, the return to the caller
//
// In asynchronous scheduling the host works on the next step while the device
// is at this one, and the longer of the two chains sets the pace.
package stepmodel
