// Command image packs static binaries into an OCI archive, without Docker: one
// layer from scratch, with the certificate authorities that Mozilla trusts, for
// each architecture. The same input gives the same bytes.
//
//	image -name pando:v1 -out pando.tar -entrypoint /pando \
//	      linux/amd64=pando:dist/pando-linux-amd64 linux/arm64=pando:dist/pando-linux-arm64
package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	name := fs.String("name", "", "name:tag of the image")
	out := fs.String("out", "", "archive to write")
	entrypoint := fs.String("entrypoint", "", "command that the container runs")
	env := fs.String("env", "", "variables that the container starts with, NAME=value, separated by spaces")
	most := fs.Float64("max", 0, "largest size of an architecture in MiB, compressed; 0 means no limit")
	links := fs.String("links", "", "symbolic links, new=old, separated by commas")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *name == "" || *out == "" || *entrypoint == "" || fs.NArg() == 0 {
		return errors.New("arguments missing: give -name, -out, -entrypoint, and OS/ARCH=NAME:FILE,NAME:FILE… for each architecture")
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, spec := range fs.Args() {
		platform, files, ok := strings.Cut(spec, "=")
		system, arch, ok2 := strings.Cut(platform, "/")
		if !ok || !ok2 {
			return fmt.Errorf("invalid argument %q: write OS/ARCH=NAME:FILE", spec)
		}
		img, err := build(content{
			system:     system,
			arch:       arch,
			files:      files,
			links:      *links,
			entrypoint: *entrypoint,
			env:        strings.Fields(*env),
		})
		if err != nil {
			return err
		}
		size, err := compressed(img)
		if err != nil {
			return err
		}
		mib := float64(size) / (1 << 20)
		fmt.Printf("%s %s: %.1f MiB compressed\n", *name, platform, mib)
		if *most > 0 && mib > *most {
			return fmt.Errorf("%s is larger than %g MiB", platform, *most)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: system, Architecture: arch},
		}})
	}
	return write(index, *name, *out)
}

// content says what an image holds.
type content struct {
	system, arch string   // as Go spells them: linux, amd64
	files        string   // NAME:FILE,NAME:FILE
	links        string   // NEW=OLD,NEW=OLD; empty means none
	entrypoint   string   // path of the command in the image
	env          []string // NAME=value each
}

// build returns an image of one layer.
func build(c content) (v1.Image, error) {
	var layerTar bytes.Buffer
	w := tar.NewWriter(&layerTar)
	add := func(h *tar.Header, data []byte) error {
		h.ModTime = time.Unix(0, 0)
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	contents := map[string][]byte{"etc/ssl/certs/ca-certificates.crt": roots()}
	modes := map[string]int64{}
	for f := range strings.SplitSeq(c.files, ",") {
		as, file, ok := strings.Cut(f, ":")
		if !ok {
			return nil, fmt.Errorf("invalid file %q: write NAME:FILE", f)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		contents[as] = data
		modes[as] = 0o755
	}
	dirs := map[string]bool{"tmp": true, "dev/net": true, "dev": true, "var/run": true, "var": true}
	for f := range contents {
		for d := path.Dir(f); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		mode := int64(0o755)
		if d == "tmp" {
			mode = 0o1777
		}
		if err := add(&tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	for _, f := range slices.Sorted(maps.Keys(contents)) {
		mode := modes[f]
		if mode == 0 {
			mode = 0o644
		}
		if err := add(&tar.Header{Name: f, Mode: mode}, contents[f]); err != nil {
			return nil, err
		}
	}
	if c.links != "" {
		for l := range strings.SplitSeq(c.links, ",") {
			name, old, _ := strings.Cut(l, "=")
			if err := add(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: old, Mode: 0o777}, nil); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	img, err = mutate.AppendLayers(img, layer)
	if err != nil {
		return nil, err
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	conf = conf.DeepCopy()
	conf.OS = c.system
	conf.Architecture = c.arch
	conf.Created = v1.Time{Time: time.Unix(0, 0)}
	conf.Config.Entrypoint = []string{c.entrypoint}
	conf.Config.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}, c.env...)
	return mutate.ConfigFile(img, conf)
}

// roots returns the authorities of Mozilla's list that are trusted without
// constraints, as PEM.
func roots() []byte {
	var b bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate})
		}
	}
	return b.Bytes()
}

func compressed(img v1.Image) (int64, error) {
	layers, err := img.Layers()
	if err != nil {
		return 0, err
	}
	var total int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// write makes an OCI archive: an image layout in a tar file.
func write(index v1.ImageIndex, name, out string) error {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	_, tag, _ := strings.Cut(path.Base(name), ":")
	// containerd uses the first annotation as the name, other tools the second.
	err = l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
	}))
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // in the order of names
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(rel), Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	return errors.Join(err, w.Close(), f.Close())
}
