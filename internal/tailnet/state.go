package tailnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tailscale.com/ipn"
	"tailscale.com/ipn/store"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/types/logger"
)

// Store keeps a node's keys and login between runs. It is the engine's own
// interface, so a node can also use a store that another program has written in
// the same form.
type Store = ipn.StateStore

// stateFile is the name of the state file, as tailscaled has it.
const stateFile = "tailscaled.state"

// MemoryStore returns a store that is lost when the process exits.
func MemoryStore() Store { return new(mem.Store) }

// plainPrefs is a store that keeps the engine's preferences as the stock
// container would. "tailscale up" fails when it finds settings that its command
// line does not mention, so without this a fleet could not return to the stock
// container. Start sets all preferences again each time.
type plainPrefs struct{ Store }

func (s plainPrefs) WriteState(id ipn.StateKey, b []byte) error {
	prefs := new(ipn.Prefs)
	was := ipn.NewPrefs()
	if strings.HasPrefix(string(id), "profile-") && ipn.PrefsFromBytes(b, prefs) == nil {
		if old, err := s.ReadState(id); err == nil && ipn.PrefsFromBytes(old, was) == nil {
			prefs.RouteAll = was.RouteAll
			prefs.CorpDNS = was.CorpDNS
		}
		prefs.ShieldsUp = was.ShieldsUp
		prefs.NetfilterMode = was.NetfilterMode
		b = prefs.ToBytes()
	}
	return s.Store.WriteState(id, b)
}

// DirStore returns a store in a file under dir. The directory is created if it is
// missing, and must be writable. Only one running node may use it at a time.
func DirStore(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s, err := store.NewFileStore(logger.Discard, filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	return s, nil
}

// cachedPeer is the prefix of the names of the files in which the engine caches
// the peers of a network map: "peer-" in hexadecimal.
const cachedPeer = "706565722d"

// dropEmptyCache removes cached network maps without peers from dir. The engine
// (v1.102.5, ipnlocal.onHomeDERPUpdateLocked) writes such a map when its home
// relay changes, even if the control server has not granted the cache. It would
// then start from it: up, but without a single peer.
func dropEmptyCache(dir string) error {
	caches, err := filepath.Glob(filepath.Join(dir, "*", "*", "netmap-cache"))
	if err != nil {
		return fmt.Errorf("cache directory %s: %w", dir, err)
	}
	var errs []error
	for _, cache := range caches {
		if peers, _ := filepath.Glob(filepath.Join(cache, cachedPeer+"*")); len(peers) == 0 {
			errs = append(errs, os.RemoveAll(cache))
		}
	}
	return errors.Join(errs...)
}
