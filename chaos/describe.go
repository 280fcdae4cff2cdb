package chaos

// description is what the report says of a kind of fault to one who has never
// heard of it.
type description struct {
	class string // the page has a mark for each: kill, stop, leave, break
	text  string
}

var descriptions = map[FaultKind]description{
	KillLeader:     {"kill", "kill -9 for the process that leads"},
	KillFollower:   {"kill", "kill -9 for a process that follows"},
	KillAll:        {"kill", "kill -9 for all processes at once"},
	KillStart:      {"kill", "kill -9 for a process as it starts, three times"},
	KillReplay:     {"kill", "kill -9 for all, and again while the next leader takes over"},
	TornTail:       {"kill", "kill -9 for all, and garbage behind the end of the log"},
	BitFlip:        {"kill", "kill -9 for all, and a bit of the log is wrong until nobody could open it"},
	KillCheckpoint: {"kill", "kill -9 in the middle of a checkpoint"},
	PowerCut:       {"kill", "kill -9 for all, and what was not synced is lost, or some of it"},
	DiskFull:       {"break", "the disk is full for a while"},
	SyncError:      {"break", "syncs fail in the process that leads"},
	ShortWrite:     {"break", "writes break off in the process that leads"},
	NoFiles:        {"break", "a process can open no more files for a while"},
	StopLeader:     {"stop", "SIGSTOP for the process that leads, and SIGCONT"},
	StopFollower:   {"stop", "SIGSTOP for a process that follows, and SIGCONT"},
	CloseLeader:    {"leave", "the process that leads closes and ends"},
	CloseFollower:  {"leave", "a process that follows closes and ends"},
	Resign:         {"leave", "the process that leads hands over"},
	Reopen:         {"leave", "a process opens and closes further handles"},
	RemoveSocket:   {"break", "the leader's socket is deleted"},
	ClockJump:      {"break", "the clock of the machine is set, by minutes to weeks"},
	RemoveEndpoint: {"break", "the file that says where the leader listens is deleted"},
}
