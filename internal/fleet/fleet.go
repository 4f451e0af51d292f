// Package fleet keeps the state that a replica needs after a restart in a
// Kubernetes Secret of the replica's own. The Secret has the form of the stock
// container's: a replica that replaces a stock container keeps its device and
// address.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	requestTime = 10 * time.Second // bounds one load or one save
	firstRetry  = time.Second
	lastRetry   = 30 * time.Second

	writeAttempts = 3 // of one write that another client's write overtakes
)

// createTime is how long Open waits for a missing Secret that it may not create.
// Tests shorten it.
var createTime = 10 * time.Second

// authKey is the field that may hold the auth key for the first login.
const authKey = "authkey"

// Secret is a Kubernetes Secret in the pod's namespace. Open reads it once. After
// that, reads come from memory. Writes go to memory at once, and to the API server
// as soon as it accepts them. Secret implements ipn.StateStore. Its methods may be
// called concurrently.
type Secret struct {
	name     string
	log      *slog.Logger
	api      kubeclient.Client
	canPatch bool

	mu      sync.Mutex
	data    map[string][]byte // the fields that the Secret is to have
	unsaved map[string]int    // fields that are not saved yet, each with the number of its changes
	owner   owner

	changed chan struct{} // holds a token while there is something to save
	stop    context.CancelFunc
	stopped chan struct{} // closed when save has ended
}

// Open reads the Secret called name. A missing Secret is created at the first write,
// if the service account may do that. While the API server does not answer, Open
// tries again until ctx ends. If a permission is missing, the error names it. The
// caller closes the Secret; the end of ctx does not.
func Open(ctx context.Context, name string, log *slog.Logger) (*Secret, error) {
	api, err := kubeclient.New("pando")
	if err != nil {
		return nil, fmt.Errorf("secret %s: not in a pod with a service account: %w; use a directory instead: tailnet.stateDir, or TS_STATE_DIR and an empty TS_KUBE_SECRET", name, err)
	}
	host := os.Getenv("KUBERNETES_SERVICE_HOST")
	port := os.Getenv("KUBERNETES_SERVICE_PORT")
	if host != "" && port != "" {
		api.SetURL("https://" + net.JoinHostPort(host, port)) // without cluster DNS, which may be down
	}
	s := &Secret{
		name:    name,
		log:     log,
		api:     api,
		unsaved: map[string]int{},
		owner:   owner{pod: os.Getenv("POD_UID")},
		changed: make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	s.claim()
	// Saving ends with Close, not with ctx: the last writes come at the end.
	saving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.save(saving)
	return s, nil
}

// load calls tryLoad until it succeeds, fails for good, or ctx ends.
func (s *Secret) load(ctx context.Context) error {
	begin := time.Now()
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := s.tryLoad(ctx)
		if err == nil || permanent(err) || errors.Is(err, errMissing) && time.Since(begin) > createTime {
			return err
		}
		s.log.Warn("cannot read the state yet; will try again", "secret", s.name, "err", err, "retry_in", wait.String())
		if !tstime.Sleep(ctx, wait) {
			return err
		}
	}
}

// tryLoad checks the permissions of the service account and reads the Secret.
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
	s.data = secret.Data
	if s.data == nil {
		s.data = map[string][]byte{}
	}
	return nil
}

var errMissing = errors.New("the Secret does not exist and the service account may not create it: create the Secret, or allow create on secrets")

// permissionError is an error that another attempt does not cure.
type permissionError struct{ error }

// permanent reports whether another attempt cannot help.
func permanent(err error) bool {
	if _, ok := errors.AsType[*permissionError](err); ok {
		return true
	}
	st, ok := errors.AsType[*kubeapi.Status](err)
	return ok && st.Code == 403
}

// AuthKey returns the auth key that the Secret holds now, as it is, or "". While the
// API server does not answer, it is the key that was read last.
func (s *Secret) AuthKey(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	secret, err := s.api.GetSecret(ctx, s.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.unsaved[authKey] > 0 {
		return string(s.data[authKey])
	}
	delete(s.data, authKey)
	if key, ok := secret.Data[authKey]; ok {
		s.data[authKey] = key
	}
	return string(s.data[authKey])
}

// DropAuthKey removes the auth key from the Secret.
func (s *Secret) DropAuthKey() { s.set(map[string][]byte{authKey: nil}) }

// SetDevice writes the identity of this replica's device, in the fields that the
// stock container writes. id is the control server's name for the device, name its
// fully qualified name, with or without the trailing dot.
func (s *Secret) SetDevice(id, name string, addrs []netip.Addr) {
	ips, err := json.Marshal(addrs)
	if err != nil {
		panic(err) // addresses can always be encoded
	}
	fields := map[string][]byte{
		kubetypes.KeyDeviceID:   []byte(id),
		kubetypes.KeyDeviceFQDN: []byte(strings.TrimSuffix(name, ".") + "."),
		kubetypes.KeyDeviceIPs:  ips,
	}
	s.set(fields)
}

// ReadState returns the value of id, or ipn.ErrStateNotExist.
func (s *Secret) ReadState(id ipn.StateKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.data[field(id)]
	if !ok {
		return nil, ipn.ErrStateNotExist
	}
	return slices.Clone(b), nil
}

// WriteState sets the value of id to b. Nil removes id. WriteState does not wait for
// the API server and never fails: if the value cannot be saved, save tries again.
func (s *Secret) WriteState(id ipn.StateKey, b []byte) error {
	s.set(map[string][]byte{field(id): b})
	return nil
}

// set changes fields and wakes save. A nil value removes its field.
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
	s.wake()
}

// wake wakes save if there is something to save. The caller holds mu.
func (s *Secret) wake() {
	if len(s.unsaved) == 0 {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// save writes the changes to the API server until ctx ends. After a failure it tries
// again. In between it checks whether another pod has taken the Secret.
func (s *Secret) save(ctx context.Context) {
	defer close(s.stopped)
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-s.changed:
		case <-check.C:
			s.check(ctx)
			continue
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
			s.log.Warn("cannot save the state yet; will try again", "secret", s.name, "err", err, "retry_in", wait.String())
			if !tstime.Sleep(ctx, wait) {
				return
			}
		}
	}
}

// flush writes all unsaved fields to the API server, once. It writes nothing while the
// Secret is another pod's: the fields stay unsaved.
func (s *Secret) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	s.mu.Lock()
	saving := make(map[string]int, len(s.unsaved))
	want := make(map[string][]byte, len(s.unsaved)) // nil removes
	for k, n := range s.unsaved {
		saving[k] = n
		want[k] = s.data[k]
	}
	s.mu.Unlock()
	if len(saving) == 0 {
		return nil
	}
	err := s.write(ctx, want)
	if errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if want[kubetypes.KeyPodUID] != nil {
		s.owner.claimed = true
	}
	for k, n := range saving {
		if s.unsaved[k] == n {
			delete(s.unsaved, k)
		}
	}
	return nil
}

// write sets fields in the Secret and keeps its other fields. A nil value removes
// its field. The error is errTaken if the Secret is another pod's.
func (s *Secret) write(ctx context.Context, fields map[string][]byte) error {
	var err error
	for range writeAttempts {
		err = s.tryWrite(ctx, fields)
		if !conflicts(err) {
			break
		}
	}
	return err
}

// conflicts reports whether err says that another client has changed the Secret
// between a read and the write after it.
func conflicts(err error) bool {
	st, ok := errors.AsType[*kubeapi.Status](err)
	return ok && st.Code == http.StatusConflict
}

func (s *Secret) tryWrite(ctx context.Context, fields map[string][]byte) error {
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
	if s.notice(secret.Data) {
		return errTaken
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
	// The API server refuses the patch if the Secret is not what was read. The client
	// has no operation "test".
	patch = append(patch, kubeclient.JSONPatch{Op: "replace", Path: "/metadata/resourceVersion", Value: secret.ResourceVersion})
	return s.api.JSONPatchResource(ctx, s.name, kubeclient.TypeSecrets, patch)
}

// apply sets fields in data. A nil value removes its field.
func apply(data, fields map[string][]byte) {
	for k, v := range fields {
		if v == nil {
			delete(data, k)
		} else {
			data[k] = v
		}
	}
}

// Close saves the changes that are left, and returns an error if it cannot do so
// before ctx ends. It gives the Secret up for another pod, if there is time.
func (s *Secret) Close(ctx context.Context) error {
	s.stop()
	<-s.stopped
	if err := s.flush(ctx); err != nil {
		return fmt.Errorf("secret %s: not saved: %w", s.name, err)
	}
	s.release()
	s.flush(ctx) // an error leaves the uid of a pod that is gone, which the next pod replaces
	return nil
}

// field returns id as a key of a Secret, with the stock container's spelling.
func field(id ipn.StateKey) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, string(id))
}
