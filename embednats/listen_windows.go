package embednats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

const (
	scheme     = "pipe:"
	pipePrefix = `\\.\pipe\pebbleparty-`
	pipeBuffer = 64 << 10

	// closeTimeout bounds the close of the listener: go-winio's has hung before (go-winio#85, #281, #357).
	closeTimeout = 2 * time.Second
)

// endpoint is the listening pipe.
type endpoint struct {
	net.Listener
	addr  Address
	first net.Conn // under Wine only
}

// listen ignores dir: a pipe has no place in the file system. The name is fresh each time, because one that is used again at
// once fails now and then, and one that can be foreseen can be squatted.
func listen(string) (*endpoint, error) {
	sddl, err := currentUserOnly()
	if err != nil {
		return nil, err
	}
	name := pipePrefix + strings.ToLower(rand.Text())
	l, err := winio.ListenPipe(name, &winio.PipeConfig{
		SecurityDescriptor: sddl,
		InputBufferSize:    pipeBuffer,
		OutputBufferSize:   pipeBuffer,
	})
	if err != nil {
		return nil, err
	}
	ep := &endpoint{Listener: l, addr: Address(scheme + name)}
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		// Wine lets the first client into the instance that go-winio keeps to reserve the name and that nobody
		// serves: let that be us. On Windows itself a connection like this has made Close hang.
		timeout := closeTimeout
		if ep.first, err = winio.DialPipe(name, &timeout); err != nil {
			return nil, errors.Join(fmt.Errorf("occupy the first pipe: %w", err), ep.close())
		}
	}
	return ep, nil
}

func prepareListen() {}

// currentUserOnly is a protected access list (nothing inherited) with one entry: all rights to the user of this process.
func currentUserOnly() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("who is the current user: %w", err)
	}
	return "D:P(A;;GA;;;" + u.User.Sid.String() + ")", nil
}

func (ep *endpoint) close() error {
	if ep.first != nil {
		_ = ep.first.Close()
	}
	done := make(chan error, 1)
	go func() { done <- ep.Close() }()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errStuck
	}
}

func dial(ctx context.Context, _ string, a Address) (net.Conn, error) {
	name, ok := strings.CutPrefix(string(a), scheme)
	if !ok || !strings.HasPrefix(name, pipePrefix) {
		return nil, errAddress
	}
	return winio.DialPipeContext(ctx, name)
}

// nobodyThere tells from an error of dial that there is no such pipe.
func nobodyThere(err error) bool { return errors.Is(err, windows.ERROR_FILE_NOT_FOUND) }

func tune(net.Conn) {}

// tryWrite takes nothing, so that all goes through the queue: a pipe has no write that does not wait.
func tryWrite(net.Conn) func([]byte) (int, error) {
	return func([]byte) (int, error) { return 0, nil }
}
