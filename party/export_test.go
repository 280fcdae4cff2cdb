package party

// Note has s do what it does when the leader asks it to note how far it has come:
// up to seq, which must be committed.
func (s *Subscription) Note(seq uint64) {
	s.tell(notice{Through: seq, Committed: seq, Note: true})
}

// Noting tells whether s is at it.
func (s *Subscription) Noting() bool { return len(s.cursor.turn) > 0 }

// DirectoryID is what an endpoint file of the database in dir says of the directory.
var DirectoryID = directoryID
