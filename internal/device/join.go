package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/fleet"
	"github.com/pandoproxy/pando/internal/oauth"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// join starts the tailnet engine with its state and its key. It waits for the
// API server that keeps the state, until ctx ends. Close closes what it opened,
// also after an error.
func (d *Device) join(ctx context.Context) error {
	o := d.engineOptions()
	if err := d.openState(ctx, &o); err != nil {
		return err
	}
	if err := d.setKeys(&o); err != nil {
		return err
	}
	node, err := tailnet.Start(ctx, o)
	if err != nil {
		return err
	}
	d.node.Store(node)
	return nil
}

// engineOptions returns the engine's options, without its state and its keys.
func (d *Device) engineOptions() tailnet.Options {
	c := d.config
	return tailnet.Options{
		Mode:            tailnet.Mode(c.Mode),
		Hostname:        c.Hostname,
		ControlURL:      c.ControlURL,
		Tags:            c.Tags,
		Expect:          c.Expect,
		Ephemeral:       c.Ephemeral,
		IgnoreRoutes:    !c.AcceptRoutes,
		AdvertiseRoutes: c.AdvertiseRoutes,
		ShieldsUp:       c.ShieldsUp && len(c.AdvertiseRoutes) == 0,
		PeerTimeout:     d.opts.PeerTimeout,
		CacheDir:        c.CacheDir,
		Port:            uint16(c.Port),
		TUNName:         c.TUN,
		Logger:          d.log,
	}
}

// openState opens what keeps the login: the Kubernetes Secret or the directory.
// With neither of them the login stays in memory.
func (d *Device) openState(ctx context.Context, o *tailnet.Options) error {
	c := d.config
	switch {
	case c.KubeSecret != "":
		secret, err := fleet.Open(ctx, c.KubeSecret, d.log)
		if err != nil {
			return fmt.Errorf("tailnet.kubeSecret: %w", err)
		}
		d.secret = secret
		o.Store = secret
	case c.StateDir != "":
		store, err := tailnet.DirStore(c.StateDir)
		if err != nil {
			return fmt.Errorf("tailnet.stateDir: %w", err)
		}
		o.Store = store
		if o.CacheDir == "" {
			o.CacheDir = c.StateDir
		}
	}
	return nil
}

// oauthSecret is the prefix of the secrets of OAuth clients. As in the stock
// client, they are accepted wherever an auth key is.
const oauthSecret = "tskey-client-"

// setKeys sets where the engine gets its auth keys. They are read again for
// each login: a mounted file may have been renewed since, and a key that was
// used once may be gone. Without any key, a person has to log in.
func (d *Device) setKeys(o *tailnet.Options) error {
	client, err := d.config.ReadClientSecret()
	if err != nil {
		return fmt.Errorf("tailnet.clientSecretFile: %w", err)
	}
	key, keyErr := d.authKey()
	if strings.HasPrefix(key, oauthSecret) {
		client = config.Secret(key)
	}
	switch {
	case client != "":
		return d.mintKeys(o, client)
	case key == "" && keyErr == nil:
		return nil
	}
	// An error is not returned here: a stored login needs no key. If there has to
	// be a login, it reads the key again and reports the error.
	o.AuthKey = key
	o.NextKey = d.nextKey
	return nil
}

// mintKeys has an OAuth client mint an auth key for each login.
func (d *Device) mintKeys(o *tailnet.Options, client config.Secret) error {
	if len(d.config.Tags) == 0 {
		return errors.New("tailnet.tags: an OAuth client mints keys for tags only; set at least one tag, such as tag:k8s")
	}
	minter, err := oauth.New(client.Reveal(), d.config.Tags)
	if err != nil {
		return fmt.Errorf("tailnet.clientSecret: %w", err)
	}
	o.NextKey = minter.Mint
	return nil
}

// nextKey returns the auth key for a login, or why there is none.
func (d *Device) nextKey(context.Context) (string, error) {
	key, err := d.authKey()
	if err == nil && key == "" {
		err = errors.New("a login is needed, but there is no auth key: set tailnet.authKeyFile")
	}
	return key, err
}

// authKey reads the auth key from the configuration or else from the Secret.
// Empty means that there is none, or that it could not be read.
func (d *Device) authKey() (string, error) {
	key, err := d.config.ReadAuthKey()
	switch {
	case err != nil:
		return "", fmt.Errorf("tailnet.authKeyFile: %w", err)
	case key == "" && d.secret != nil:
		return d.secret.AuthKey(), nil
	}
	return key.Reveal(), nil
}
