package flow

import "unicode/utf8"

// maxText is how many bytes of a text that a client, a target or a DNS server has
// chosen go into the log, the status and answers. The longest name has 253.
const maxText = 255

// maxErrorTarget is how many bytes of its target the text of an Error has, so that the
// cause is not cut off.
const maxErrorTarget = 128

// Short returns s, or the first 255 bytes of it and an ellipsis. It splits no character.
func Short(s string) string { return shorten(s, maxText) }

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for end := n; end > n-utf8.UTFMax; end-- { // no character has more bytes
		if utf8.RuneStart(s[end]) {
			n = end
			break
		}
	}
	return s[:n] + "…"
}
