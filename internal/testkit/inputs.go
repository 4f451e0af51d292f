package testkit

import "math/rand/v2"

// CountInputs calls f with n random inputs of size bytes, and returns how often f
// reports true. A test runs its fuzz target on them: the inputs are the same each
// time.
func CountInputs(n, size int, f func([]byte) bool) (count int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range n {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		if f(b) {
			count++
		}
	}
	return count
}
