//go:build !windows

package embednats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const (
	sockName = "nats.sock"
	tmpName  = "pebbleparty-" // and digits: os.MkdirTemp
	scheme   = "unix:"

	// maxPath is what fits into sockaddr_un everywhere: 104 bytes with the final NUL on darwin and the BSDs, 108 on Linux.
	maxPath = 100

	// sockBuffer is asked for in both directions: darwin gives a unix socket 8 KiB, which one small page overflows.
	sockBuffer = 256 << 10
)

// endpoint is the listening socket and what it leaves on disk.
type endpoint struct {
	*net.UnixListener
	addr Address
	path string
	tmp  string // private folder to remove, or empty
}

func listen(dir string) (*endpoint, error) {
	dir, err := filepath.Abs(dir) // the address is for processes with other working directories
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, sockName)
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	ep := &endpoint{path: path}
	if len(path) > maxPath {
		if ep.tmp, err = privateDir(); err != nil {
			return nil, err
		}
		ep.path = filepath.Join(ep.tmp, sockName)
	}
	if err := ep.bind(); err != nil {
		return nil, errors.Join(err, ep.remove())
	}
	ep.addr = Address(scheme + ep.path)
	return ep, nil
}

// prepareListen listens once, on Linux at a name that the kernel chooses and that is no file: the first time in a process, package
// net reads from /proc how long the backlog may be, which takes ten times as long as all the rest of Listen.
func prepareListen() {
	if runtime.GOOS != "linux" {
		return
	}
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"}); err == nil {
		_ = l.Close()
	}
}

func (ep *endpoint) bind() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ep.path, Net: "unix"}) // with the largest backlog the system allows
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // close does it, in its own order
	ep.UnixListener = l
	// bind made the file with what the umask left. Nobody else could use it in between: its folder is 0700.
	if err := os.Chmod(ep.path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	return nil
}

// close removes the file first: a follower that dials now finds nothing, rather than something that refuses it.
func (ep *endpoint) close() error {
	return errors.Join(ep.remove(), ep.Close())
}

func (ep *endpoint) remove() error {
	err := removeSocket(ep.path)
	if ep.tmp != "" {
		err = errors.Join(err, ignoreMissing(os.Remove(ep.tmp)))
	}
	return err
}

// privateDir makes a folder (0700) whose path leaves room for the socket's name.
func privateDir() (string, error) {
	tmp := filepath.Clean(os.TempDir())
	if !filepath.IsAbs(tmp) || len(tmp)+len("/"+tmpName+"4294967295/"+sockName) > maxPath {
		tmp = "/tmp"
	}
	return os.MkdirTemp(tmp, tmpName+"*")
}

// RemoveStale removes what a leader that was killed left at a: dir/nats.sock, or nats.sock in a private folder of the
// temporary directory and then that folder. Anything that is not named and made like ours stays, and so does what cannot
// be removed. Only the holder of the leader lock may call it, with the address that the dead leader published.
func RemoveStale(dir string, a Address) {
	path, ok := strings.CutPrefix(string(a), scheme)
	if !ok || filepath.Clean(path) != path || filepath.Base(path) != sockName {
		return
	}
	folder := filepath.Dir(path)
	if abs, err := filepath.Abs(dir); err == nil && folder == abs {
		_ = removeSocket(path)
		return
	}
	tmp := filepath.Dir(folder)
	if tmp != filepath.Clean(os.TempDir()) && tmp != "/tmp" {
		return
	}
	if isPrivate(folder) != nil {
		return
	}
	if removeSocket(path) == nil {
		_ = os.Remove(folder) // fails if there is anything else in it
	}
}

// isTmp tells a folder that privateDir may have made by its name.
func isTmp(folder string) bool {
	digits, ok := strings.CutPrefix(filepath.Base(folder), tmpName)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// isPrivate reports why folder is not one that privateDir made. The temporary directory is everybody's: after a reboot,
// somebody else may make a folder of the name that an old endpoint file still has.
func isPrivate(folder string) error {
	fi, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	// The superuser may follow another user's leader.
	mine := ok && (int(st.Uid) == os.Geteuid() || os.Geteuid() == 0)
	if !isTmp(folder) || !fi.IsDir() || fi.Mode().Perm()&0o077 != 0 || !mine {
		return fmt.Errorf("%s is not a private folder of this user", folder)
	}
	return nil
}

func removeSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return ignoreMissing(err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket", path)
	}
	return ignoreMissing(os.Remove(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func dial(ctx context.Context, a Address) (net.Conn, error) {
	path, ok := strings.CutPrefix(string(a), scheme)
	if !ok || !filepath.IsAbs(path) { // a name that begins with @ would be in Linux's abstract namespace
		return nil, errors.New("not the address of a unix socket")
	}
	if folder := filepath.Dir(path); isTmp(folder) {
		if err := isPrivate(folder); err != nil {
			return nil, err
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

func tune(c net.Conn) {
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.SetReadBuffer(sockBuffer)
		_ = u.SetWriteBuffer(sockBuffer)
	}
}

// tryWrite returns a function that makes one attempt to write to c and never waits for room. It keeps its arguments between
// calls so that none allocates: one caller at a time.
func tryWrite(c net.Conn) func([]byte) (int, error) {
	never := func([]byte) (int, error) { return 0, nil }
	sc, ok := c.(syscall.Conn)
	if !ok {
		return never
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return never // the connection is closed: the queue's writer will say so
	}
	var (
		p    []byte
		n    int
		werr error
	)
	attempt := func(fd uintptr) bool {
		for {
			n, werr = syscall.Write(int(fd), p)
			if werr != syscall.EINTR {
				return true // true even when nothing fitted: false would park us until there is room
			}
		}
	}
	return func(b []byte) (int, error) {
		p = b
		err := raw.Write(attempt)
		p = nil
		switch {
		case err != nil:
			return 0, err
		case werr == syscall.EAGAIN:
			return 0, nil
		case werr != nil:
			return 0, os.NewSyscallError("write", werr)
		}
		return n, nil
	}
}
