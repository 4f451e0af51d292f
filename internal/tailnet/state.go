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
// interface, so a store that another program wrote in the same form is adopted.
type Store = ipn.StateStore

// stateFile is the name that tailscaled uses too.
const stateFile = "tailscaled.state"

// MemoryStore returns a store that forgets everything at exit.
func MemoryStore() Store { return new(mem.Store) }

// plainPrefs is a store that keeps the engine's preferences as the stock
// container would: "tailscale up" refuses to go on when it finds settings that
// it was not told of, so that a fleet could not be given back to it. Start says
// anew each time what applies here.
type plainPrefs struct{ Store }

func (s plainPrefs) WriteState(id ipn.StateKey, b []byte) error {
	prefs, was := new(ipn.Prefs), ipn.NewPrefs()
	if strings.HasPrefix(string(id), "profile-") && ipn.PrefsFromBytes(b, prefs) == nil {
		if old, err := s.ReadState(id); err == nil && ipn.PrefsFromBytes(old, was) == nil {
			prefs.RouteAll, prefs.CorpDNS = was.RouteAll, was.CorpDNS
		}
		prefs.ShieldsUp, prefs.NetfilterMode = was.ShieldsUp, was.NetfilterMode
		b = prefs.ToBytes()
	}
	return s.Store.WriteState(id, b)
}

// DirStore returns a store in a file under dir, which is made if it is missing
// and must be writable. One running node at a time may use it.
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

// cachedPeer is what the names of the files begin with in which the engine caches
// the peers of a network map: "peer-", in hexadecimal.
const cachedPeer = "706565722d"

// dropEmptyCache removes from dir cached network maps without peers. The engine
// (v1.102.5, ipnlocal.onHomeDERPUpdateLocked) writes such a map when its home
// relay changes, also when the control server has not granted that maps are
// cached; and it would start from it, up, and with nobody to talk to.
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
