package tailnet

// EnsureTUN creates the TUN device node. Kernel mode starts with it.
var EnsureTUN = ensureTUN
