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
	"syscall"
)

const (
	sockName = "nats.sock"
	scheme   = "unix:"

	// maxPath is what fits into sockaddr_un everywhere: 104 bytes with the final NUL on darwin and the BSDs, 108 on Linux.
	maxPath = 100

	// sockBuffer is asked for in both directions: darwin gives a unix socket 8 KiB, which one small page overflows.
	sockBuffer = 256 << 10
)

// endpoint is the listening socket and its file.
type endpoint struct {
	*net.UnixListener
	addr Address
	path string
}

func listen(dir string) (*endpoint, error) {
	dir, err := filepath.Abs(dir) // Close removes the file, whatever the working directory is then
	if err != nil {
		return nil, err
	}
	ep := &endpoint{addr: scheme + sockName, path: filepath.Join(dir, sockName)}
	if err := removeSocket(ep.path); err != nil {
		return nil, err
	}
	if err := ep.bind(dir); err != nil {
		return nil, errors.Join(err, removeSocket(ep.path))
	}
	return ep, nil
}

// near calls f with a path of the file name in dir that fits into a socket address and is absolute: one that begins with @ would
// be in Linux's abstract namespace. It is good until near returns; whoever has the socket then does not need its name.
func near(dir, name string, f func(path string) error) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if path := filepath.Join(dir, name); len(path) <= maxPath {
		return f(path)
	}
	short, done, err := byDescriptor(dir)
	if err != nil {
		if short, done, err = byLink(dir, name); err != nil {
			return fmt.Errorf("the path of %s in %s is too long for a socket's address, and for a short one: %w", name, dir, err)
		}
	}
	defer done()
	return f(filepath.Join(short, name))
}

// byDescriptor finds dir in Linux's /proc. It fails where there is none.
func byDescriptor(dir string) (short string, done func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d", d.Fd())
	if _, err := os.Stat(short); err != nil {
		return "", nil, errors.Join(err, d.Close())
	}
	return short, func() { _ = d.Close() }, nil
}

// byLink makes a symbolic link to dir in the temporary directory.
func byLink(dir, name string) (short string, done func(), err error) {
	tmp := filepath.Clean(os.TempDir())
	if !filepath.IsAbs(tmp) || len(tmp)+len("/pebbleparty-4294967295/d/")+len(name) > maxPath {
		tmp = "/tmp"
	}
	if tmp, err = os.MkdirTemp(tmp, "pebbleparty-*"); err != nil { // 0700: nobody else can have the link lead elsewhere
		return "", nil, err
	}
	short = filepath.Join(tmp, "d")
	done = func() {
		_ = os.Remove(short)
		_ = os.Remove(tmp)
	}
	if err := os.Symlink(dir, short); err != nil {
		done()
		return "", nil, err
	}
	return short, done, nil
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

func (ep *endpoint) bind(dir string) error {
	return near(dir, sockName, func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // with the largest backlog the system allows
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // close does it, in its own order
		ep.UnixListener = l
		// bind made the file with what the umask left. Nobody else could use it in between: its folder is 0700.
		if err := os.Chmod(path, 0o600); err != nil {
			return errors.Join(err, l.Close())
		}
		return nil
	})
}

// close removes the file first: a follower that dials now finds nothing, rather than something that refuses it.
func (ep *endpoint) close() error {
	return errors.Join(removeSocket(ep.path), ep.Close())
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

func dial(ctx context.Context, dir string, a Address) (sock net.Conn, err error) {
	if a != scheme+sockName {
		return nil, errAddress
	}
	err = near(dir, sockName, func(path string) error {
		var d net.Dialer
		sock, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return sock, err
}

// nobodyThere tells from an error of dial that there is no socket, or that nobody listens at it.
func nobodyThere(err error) bool {
	var op *net.OpError // of connect, not of what near needs
	return errors.As(err, &op) && (errors.Is(op, fs.ErrNotExist) || errors.Is(op, syscall.ECONNREFUSED))
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
