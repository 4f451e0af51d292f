//go:build !race

package tailnet_test

const raceEnabled = false
