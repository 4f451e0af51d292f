package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tailscale.com/kube/kubetypes"
)

// checkEvery is how often save looks whether another pod has taken the Secret. Tests
// shorten it.
var checkEvery = 30 * time.Second

// errTaken is the error of a write to a Secret that another pod has taken.
var errTaken = errors.New("another pod has taken the Secret")

// owner knows which pod the Secret belongs to. Each pod writes its uid at its start,
// as the stock container does, and a new pod replaces the uid of its predecessor. So
// a pod that finds another uid after it has written its own is not alone. Without a
// uid of its own it notices nothing.
type owner struct {
	pod     string // the uid of this pod; empty if it is not known
	claimed bool   // the Secret has held pod since the start
	other   string // the uid of the pod that has taken the Secret since then; empty means none
}

// claim has save write this pod's uid, unless the Secret holds it already.
func (s *Secret) claim() {
	if s.owner.pod == "" {
		return
	}
	before := string(s.data[kubetypes.KeyPodUID])
	if before == s.owner.pod { // the container was restarted in its pod
		s.owner.claimed = true
		return
	}
	s.set(map[string][]byte{kubetypes.KeyPodUID: []byte(s.owner.pod)})
	if before != "" {
		s.log.Info("state taken over from another pod", "secret", s.name, "pod_uid", s.owner.pod, "other_pod_uid", before)
	}
}

// release has the next flush remove this pod's uid, so that another pod which uses the
// Secret can take it.
func (s *Secret) release() {
	s.mu.Lock()
	ours := s.owner.claimed && s.owner.other == ""
	s.mu.Unlock()
	if ours {
		s.set(map[string][]byte{kubetypes.KeyPodUID: nil})
	}
}

// check reads the Secret and notices whether another pod has taken it.
func (s *Secret) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	if secret, err := s.api.GetSecret(ctx, s.name); err == nil {
		s.notice(secret.Data)
	}
}

// notice reports whether another pod has taken the Secret, whose fields are data now.
// It logs a change. Once the other pod has given the Secret up, it takes it back.
func (s *Secret) notice(data map[string][]byte) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := string(data[kubetypes.KeyPodUID])
	if !s.owner.claimed || uid == s.owner.pod {
		return false
	}
	was := s.owner.other
	s.owner.other = uid
	switch {
	case uid == "":
		s.owner.claimed = false
		s.unsaved[kubetypes.KeyPodUID]++
		s.wake()
		s.log.Info("state taken over from another pod", "secret", s.name, "pod_uid", s.owner.pod, "other_pod_uid", was)
	case uid != was:
		s.log.Error("another pod uses the same state Secret", "secret", s.name, "pod_uid", s.owner.pod, "other_pod_uid", uid, "remedy", takenRemedy)
	}
	return uid != ""
}

const takenRemedy = "delete one of the two pods, or give each its own Secret (tailnet.kubeSecret)"

// Err returns nil while the Secret is this pod's, and otherwise which pod has taken it,
// and what to do.
func (s *Secret) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner.other == "" {
		return nil
	}
	return fmt.Errorf("the pod with uid %s has taken the Secret %s from this pod, uid %s: both use the same device, and its traffic reaches one of them only; %s",
		s.owner.other, s.name, s.owner.pod, takenRemedy)
}
