// Package fleet keeps what a replica must find again after a restart in a
// Kubernetes Secret of its own, in the form of the stock container: a replica
// that takes a stock container's place adopts its device, address and all.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/kube/kubeapi"
	"tailscale.com/kube/kubeclient"
	"tailscale.com/kube/kubetypes"
	"tailscale.com/tstime"
)

const (
	requestTime = 10 * time.Second // bound on one exchange with the API server
	createTime  = 10 * time.Second // how long Open hopes that a missing Secret appears
	firstRetry  = time.Second
	lastRetry   = 30 * time.Second
)

// authKey is the field that may hold the auth key for the first login.
const authKey = "authkey"

// Secret is a Kubernetes Secret in the pod's namespace. It is read once, by
// Open; from then on reads come from memory, and writes go to memory at once
// and to the API server as soon as it takes them. It is an ipn.StateStore.
type Secret struct {
	name     string
	log      *slog.Logger
	api      kubeclient.Client
	canPatch bool

	mu      sync.Mutex
	data    map[string][]byte // as it should be
	unsaved map[string]int    // keys that the API server lacks; counts their changes

	changed chan struct{} // holds one token while there is something to save
	stop    context.CancelFunc
	stopped chan struct{}
}

// Open reads the Secret called name; one that is missing is made at the first
// write, if the service account may. While the API server does not answer it
// goes on trying, until ctx ends. The error says which permission is missing.
func Open(ctx context.Context, name string, log *slog.Logger) (*Secret, error) {
	api, err := kubeclient.New("pando")
	if err != nil {
		return nil, fmt.Errorf("secret %s: this is no pod with a service account: %w; use a directory instead: tailnet.stateDir, or TS_STATE_DIR and an empty TS_KUBE_SECRET", name, err)
	}
	if host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"); host != "" && port != "" {
		api.SetURL("https://" + net.JoinHostPort(host, port)) // without cluster DNS, which may be down
	}
	s := &Secret{
		name: name, log: log, api: api,
		unsaved: map[string]int{}, changed: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	// It ends with Close, not with ctx: the last writes come at the end.
	saving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.save(saving)
	return s, nil
}

// load asks what this service account may do, and reads the Secret.
func (s *Secret) load(ctx context.Context) error {
	begin := time.Now()
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := s.tryLoad(ctx)
		if err == nil || permanent(err) || errors.Is(err, errMissing) && time.Since(begin) > createTime {
			return err
		}
		s.log.Warn("state not read yet", "secret", s.name, "err", err, "retry_in", wait.String())
		if !tstime.Sleep(ctx, wait) {
			return err
		}
	}
}

func (s *Secret) tryLoad(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	canPatch, canCreate, err := s.api.CheckSecretPermissions(ctx, s.name)
	if err != nil {
		return &permissionError{fmt.Errorf("%w: the service account needs a Role with get, update and patch on it", err)}
	}
	s.canPatch = canPatch
	secret, err := s.api.GetSecret(ctx, s.name)
	switch {
	case kubeclient.IsNotFoundErr(err) && !canCreate:
		return errMissing // or the check failed: try again
	case kubeclient.IsNotFoundErr(err):
		s.data = map[string][]byte{}
		return nil
	case err != nil:
		return err
	}
	if s.data = secret.Data; s.data == nil {
		s.data = map[string][]byte{}
	}
	return nil
}

var errMissing = errors.New("it does not exist, and the service account may not create Secrets: create it, or let it")

type permissionError struct{ error }

// permanent reports whether trying again is of no use.
func permanent(err error) bool {
	if _, ok := errors.AsType[*permissionError](err); ok {
		return true
	}
	st, ok := errors.AsType[*kubeapi.Status](err)
	return ok && st.Code == 403
}

// AuthKey returns the auth key that the Secret holds, or "".
func (s *Secret) AuthKey() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(string(s.data[authKey]))
}

// DropAuthKey removes the auth key from the Secret.
func (s *Secret) DropAuthKey() { s.set(map[string][]byte{authKey: nil}) }

// SetDevice writes who this replica is on the tailnet, in the fields that the
// stock container writes: name is the device's full name with its last dot.
func (s *Secret) SetDevice(id, name string, addrs []netip.Addr) {
	ips, err := json.Marshal(addrs)
	if err != nil {
		panic(err) // addresses are text
	}
	fields := map[string][]byte{
		kubetypes.KeyDeviceID: []byte(id), kubetypes.KeyDeviceFQDN: []byte(name), kubetypes.KeyDeviceIPs: ips,
	}
	if uid := os.Getenv("POD_UID"); uid != "" {
		fields[kubetypes.KeyPodUID] = []byte(uid)
	}
	s.set(fields)
}

// ReadState returns what was written under id, or ipn.ErrStateNotExist.
func (s *Secret) ReadState(id ipn.StateKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.data[field(id)]
	if !ok {
		return nil, ipn.ErrStateNotExist
	}
	return slices.Clone(b), nil
}

// WriteState keeps b under id; nil removes it. It never waits for the API
// server, and never fails: what could not be saved is tried again.
func (s *Secret) WriteState(id ipn.StateKey, b []byte) error {
	s.set(map[string][]byte{field(id): b})
	return nil
}

func (s *Secret) set(fields map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range fields {
		old, had := s.data[k]
		if had == (v != nil) && slices.Equal(old, v) {
			continue
		}
		if v == nil {
			delete(s.data, k)
		} else {
			s.data[k] = slices.Clone(v)
		}
		s.unsaved[k]++
	}
	if len(s.unsaved) > 0 {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// save writes what changed, again and again while it fails, until ctx ends.
func (s *Secret) save(ctx context.Context) {
	defer close(s.stopped)
	for {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
		for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
			err := s.flush(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			s.log.Warn("state not saved yet", "secret", s.name, "err", err, "retry_in", wait.String())
			if !tstime.Sleep(ctx, wait) {
				return
			}
		}
	}
}

// flush brings the API server's copy up to date.
func (s *Secret) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	s.mu.Lock()
	saving := make(map[string]int, len(s.unsaved))
	want := make(map[string][]byte, len(s.unsaved)) // nil removes
	for k, n := range s.unsaved {
		saving[k], want[k] = n, s.data[k]
	}
	s.mu.Unlock()
	if len(saving) == 0 {
		return nil
	}
	if err := s.write(ctx, want); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range saving {
		if s.unsaved[k] == n {
			delete(s.unsaved, k)
		}
	}
	return nil
}

// write sets fields in the Secret and leaves its others alone.
func (s *Secret) write(ctx context.Context, fields map[string][]byte) error {
	secret, err := s.api.GetSecret(ctx, s.name)
	if kubeclient.IsNotFoundErr(err) {
		made := &kubeapi.Secret{
			TypeMeta:   kubeapi.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: kubeapi.ObjectMeta{Name: s.name},
			Data:       map[string][]byte{},
		}
		apply(made.Data, fields)
		return s.api.CreateSecret(ctx, made)
	}
	if err != nil {
		return err
	}
	if !s.canPatch {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		apply(secret.Data, fields)
		return s.api.UpdateSecret(ctx, secret) // carries the version that was read
	}
	var patch []kubeclient.JSONPatch
	if len(secret.Data) == 0 {
		patch = append(patch, kubeclient.JSONPatch{Op: "add", Path: "/data", Value: map[string][]byte{}})
	}
	for k, v := range fields {
		switch _, there := secret.Data[k]; {
		case v != nil:
			patch = append(patch, kubeclient.JSONPatch{Op: "add", Path: "/data/" + k, Value: v})
		case there:
			patch = append(patch, kubeclient.JSONPatch{Op: "remove", Path: "/data/" + k})
		}
	}
	if len(patch) == 0 {
		return nil
	}
	return s.api.JSONPatchResource(ctx, s.name, kubeclient.TypeSecrets, patch)
}

func apply(data, fields map[string][]byte) {
	for k, v := range fields {
		if v == nil {
			delete(data, k)
		} else {
			data[k] = v
		}
	}
}

// Close saves what is left, while ctx allows, and reports what could not be.
func (s *Secret) Close(ctx context.Context) error {
	s.stop()
	<-s.stopped
	if err := s.flush(ctx); err != nil {
		return fmt.Errorf("secret %s: not saved: %w", s.name, err)
	}
	return nil
}

// field is id as a key of a Secret, as the stock container spells it.
func field(id ipn.StateKey) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, string(id))
}
