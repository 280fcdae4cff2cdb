package apply

import "github.com/cockroachdb/pebble/v2/vfs"

// unsyncedFS is the file system of what need not survive a crash: it syncs
// nothing, so that its owner does not make the leader's syncs wait.
type unsyncedFS struct{ vfs.FS }

func (u unsyncedFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (u unsyncedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return u.wrap(u.FS.Create(name, c))
}

func (u unsyncedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return u.wrap(u.FS.OpenReadWrite(name, c, opts...))
}

func (u unsyncedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return u.wrap(u.FS.ReuseForWrite(oldname, newname, c))
}

func (u unsyncedFS) OpenDir(name string) (vfs.File, error) { return u.wrap(u.FS.OpenDir(name)) }

func (u unsyncedFS) Unwrap() vfs.FS { return u.FS }

// unsyncedFile is a file or folder whose syncs do nothing.
type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error                { return nil }
func (unsyncedFile) SyncData() error            { return nil }
func (unsyncedFile) SyncTo(int64) (bool, error) { return false, nil }
