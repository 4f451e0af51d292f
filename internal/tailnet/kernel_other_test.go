//go:build !linux

package tailnet_test

import "testing"

func onlyNetAdmin(*testing.T)    {}
func saysWhatToMount(*testing.T) {}
func noTraceInKernel(*testing.T) {}

func nothingLeaks(*testing.T, *world) {}
func twoNodes(*testing.T, *world)     {}

func killedPredecessor(*testing.T, *world) {}
