//go:build race

package tailnet_test

const raceEnabled = true
