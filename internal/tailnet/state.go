package tailnet

import (
	"fmt"
	"os"
	"path/filepath"

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
