package party

import (
	"os"
	"time"
)

// renameOver retries for a while: Windows does not rename over a file that
// somebody has open, and the others open it for microseconds at a time.
func renameOver(from, to string) (err error) {
	for range 200 {
		if err = os.Rename(from, to); err == nil {
			return nil
		}
		<-time.After(5 * time.Millisecond)
	}
	return err
}
