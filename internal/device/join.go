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
	if err := d.setKeys(ctx, &o); err != nil {
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
		Proxy:           d.opts.Proxy,
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

// setKeys sets where the engine gets its auth keys. They are read again for each
// login: a file or the Secret may have a new key since, and a key that was used once
// may be gone.
func (d *Device) setKeys(ctx context.Context, o *tailnet.Options) error {
	client, err := d.clientSecret()
	if err != nil {
		return err
	}
	key, keyErr := d.authKey(ctx)
	if strings.HasPrefix(key, oauthSecret) {
		client = key
	}
	// A keyErr is not returned here: a stored login needs no key. If there has to be a
	// login, it reads the key again and reports the error.
	switch {
	case client != "":
		_, err := d.minter(client)
		o.NextKey = d.nextKey
		return err
	case key != "" || keyErr != nil:
		o.AuthKey = key
		o.NextKey = d.nextKey
	case d.secret != nil: // a person logs the device in, or puts a key into the Secret
		o.NextKey = d.authKey
	}
	return nil
}

// nextKey returns the auth key for a login. It is an error if no source has a key.
func (d *Device) nextKey(ctx context.Context) (string, error) {
	client, err := d.clientSecret()
	if err != nil {
		return "", err
	}
	key, err := d.authKey(ctx)
	switch {
	case client != "":
	case err != nil:
		return "", err
	case key == "":
		return "", errors.New("a login is needed, but no auth key is set: set tailnet.authKeyFile, or the field authkey of the Secret tailnet.kubeSecret")
	case strings.HasPrefix(key, oauthSecret):
		client = key
	default:
		return key, nil
	}
	minter, err := d.minter(client)
	if err != nil {
		return "", err
	}
	return minter.Mint(ctx)
}

// minter returns what mints an auth key for each login with an OAuth client.
func (d *Device) minter(client string) (*oauth.Client, error) {
	if len(d.config.Tags) == 0 {
		return nil, errors.New("tailnet.tags: an OAuth client mints keys for tags only; set at least one tag, such as tag:k8s")
	}
	minter, err := oauth.New(client, d.config.Tags, d.opts.Proxy)
	if err != nil {
		return nil, fmt.Errorf("tailnet.clientSecret: %w", err)
	}
	return minter, nil
}

// clientSecret reads the secret of the OAuth client from the configuration. Empty
// means that none is set.
func (d *Device) clientSecret() (string, error) {
	client, err := d.config.ReadClientSecret()
	if err != nil {
		return "", fmt.Errorf("tailnet.clientSecretFile: %w", err)
	}
	return client.Reveal(), nil
}

// authKey reads the auth key from the configuration or else from the Secret.
// Empty means that there is none, or that it could not be read.
func (d *Device) authKey(ctx context.Context) (string, error) {
	key, err := d.config.ReadAuthKey()
	if err != nil {
		return "", fmt.Errorf("tailnet.authKeyFile: %w", err)
	}
	if key.Reveal() == "" && d.secret != nil {
		key = config.Secret(d.secret.AuthKey(ctx))
	}
	return key.Reveal(), nil
}
