package party

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// directoryID tells a directory from all others that there are at the time, whatever they
// are called: it stays with the directory when that is renamed, and a copy has another.
func directoryID(dir string) (string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info); err != nil {
		return "", os.NewSyscallError("GetFileInformationByHandle", err)
	}
	return fmt.Sprintf("%x:%x%08x", info.VolumeSerialNumber, info.FileIndexHigh, info.FileIndexLow), nil
}
