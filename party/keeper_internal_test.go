package party

import (
	"errors"
	"os"
	"testing"
)

// Internal: the keeper looks after the files once a second, here all the time. It does
// not put the endpoint back that the end of the term removes.
func TestLeader_LeavesNoEndpoint(t *testing.T) {
	for range 30 {
		_, db := openHere(t, t.TempDir())
		l := db.leading.Load()
		late := make(chan struct{})
		l.work.Go(func() {
			for l.ctx.Err() == nil {
				l.stayVisible()
			}
		})
		go func() {
			<-l.ended
			l.stayVisible() // one that was stuck, and given up, while the term ended
			close(late)
		}()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		<-late
		if _, err := os.Stat(db.path("endpoint")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the endpoint is still there: %v", err)
		}
	}
}
