package tailnet

// EnsureTUN is what kernel mode does first.
var EnsureTUN = ensureTUN
