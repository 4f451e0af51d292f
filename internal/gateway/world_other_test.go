//go:build !linux

package gateway_test

import "testing"

func addHostAddr(t *testing.T) string { t.Fatal("kernel mode needs Linux"); return "" }

func addBroadcast(t *testing.T) string { t.Fatal("kernel mode needs Linux"); return "" }
