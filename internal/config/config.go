// Package config is the configuration of a replica. Config is the schema, Default
// holds the defaults, and Load applies one YAML file, the PANDO_* variables and the
// flags to them, in this order: the later ones win. Values are parsed once, into
// their own types. Load reports all mistakes at once, each with its place, its key
// and the remedy.
//
// The package starts nothing. It knows two rules of Kubernetes: how Secrets are
// named, and which variables a Service adds to a pod. The variables of the stock
// tailscale container are in package stock.
package config

import (
	"log/slog"
	"time"

	"github.com/pandoproxy/pando/internal/config/value"
)

// The types of single values.
type (
	Duration  = value.Duration
	PortRange = value.PortRange
	Target    = value.Target
	FleetHost = value.FleetHost
)

// Default returns the configuration that applies where nothing else is set. It is
// the only place that states the defaults.
func Default() Config {
	return Config{
		Listen: Listen{
			Proxy: ":1055",
			Admin: ":9002",
		},
		Tailnet: Tailnet{
			Mode:         "userspace",
			ControlURL:   "https://controlplane.tailscale.com",
			AcceptRoutes: true,
			ShieldsUp:    true,
			TUN:          "tailscale0",
			StartTimeout: Duration(10 * time.Second),
		},
		Resolve: Resolve{
			Tailnet:        true,
			PrivateAnswers: "allow",
			Timeout:        Duration(5 * time.Second),
			MinTTL:         Duration(time.Second),
			MaxTTL:         Duration(5 * time.Minute),
		},
		DNS: DNS{TTL: Duration(5 * time.Second)},
		Policy: Policy{
			Direct:  "none",
			Default: "allow",
			Mode:    "enforce",
		},
		Limits: Limits{
			Connections: 8192,
			PerClient:   2048,
			Dials:       2048,
		},
		Dial: Dial{Timeout: Duration(10 * time.Second), Attempts: 3},
		HTTP: HTTP{
			HeaderTimeout:  Duration(30 * time.Second),
			IdleTimeout:    Duration(90 * time.Second),
			BodyTimeout:    Duration(time.Minute),
			MaxHeaderBytes: 64 << 10,
			MaxHeaders:     256,
			Reuse:          "client",
		},
		Tunnel: Tunnel{IdleTimeout: Duration(time.Hour), PeerTimeout: Duration(time.Minute)},
		Probe: Probe{
			Interval:  Duration(10 * time.Second),
			Failures:  3,
			Successes: 1,
		},
		Drain: Drain{Settle: Duration(5 * time.Second), Timeout: Duration(20 * time.Second)},
		Log: Log{
			Level:  "info",
			Format: "json",
			Sample: 1,
		},
	}
}

// SlogLevel returns the level as slog knows it; an unknown level is info.
func (l Log) SlogLevel() slog.Level {
	switch l.Level {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
