// Package differential holds a test: it sends raw requests and raw responses through
// this proxy and three others, and writes down what each passes on.
package differential
