package opsexec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// markerFile lies in the git directory while a pull changes the tree.
	markerFile = "sgfleet.pull"
	// spareFile lies beside it and takes up the room that putting the tree right
	// needs for git's index: a pull that fills the disk could not be undone.
	spareFile = "sgfleet.spare"
)

// Marker implements [Tree]. A marker that cannot be read as one still says that
// a pull was interrupted; its revision is then unknown ("").
func (OSTree) Marker(c Checkout) (*Marker, error) {
	b, err := os.ReadFile(filepath.Join(c.GitDir, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pull marker: %w", err)
	}
	m := &Marker{}
	if err := json.Unmarshal(b, m); err != nil {
		return &Marker{}, nil
	}
	return m, nil
}

// SetMarker implements [Tree]. The marker is on the disk, under its name,
// before it returns.
func (OSTree) SetMarker(c Checkout, m *Marker) error {
	path := filepath.Join(c.GitDir, markerFile)
	if m == nil {
		freeSpare(c)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the pull marker: %w", err)
		}
		return syncDir(c.GitDir)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the pull marker: %w", err)
	}
	if err := keepSpare(c); err != nil {
		return fmt.Errorf("reserving room for a repair: %w", err)
	}
	if err := writeDurably(path, b); err != nil {
		return fmt.Errorf("writing the pull marker: %w", err)
	}
	return syncDir(c.GitDir)
}

// keepSpare reserves room for an index that may have grown by half, twice, and
// for the small files that git writes beside it.
func keepSpare(c Checkout) error {
	size := int64(128 << 10)
	if fi, err := os.Stat(filepath.Join(c.GitDir, "index")); err == nil {
		size += 3 * fi.Size()
	}
	f, err := os.OpenFile(filepath.Join(c.GitDir, spareFile), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(allocate(f, size), f.Close())
	if err != nil {
		freeSpare(c)
	}
	return err
}

func freeSpare(c Checkout) { _ = os.Remove(filepath.Join(c.GitDir, spareFile)) }

// writeDurably replaces a file by one that is wholly on the disk.
func writeDurably(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
