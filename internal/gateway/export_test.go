package gateway

// The tests compare the metrics of one moment with those of the next.
func init() { gatherEvery = 0 }
