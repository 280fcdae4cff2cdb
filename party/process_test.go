package party_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// process is a child as the parent sees it.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	pid  int
	done chan struct{} // closed when it has ended and its output is read

	journaled atomic.Int64 // keys that journal has reported

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	ended   bool
	killed  bool
}

// start starts a child and returns when it has opened its handle.
func start(t testing.TB, c config) *process {
	t.Helper()
	p := launch(t, c)
	if a := receive(t, "the child to open", p.opened()); a.Err != "" {
		t.Fatalf("child: open: %s", a.Err)
	}
	return p
}

// launch starts a child and returns at once.
func launch(t testing.TB, c config) *process {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	p := &process{t: t, cmd: exec.Command(os.Args[0]), done: make(chan struct{}), next: 1, waiting: map[int]chan answer{0: make(chan answer, 1)}}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = c.container()
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	p.pid = p.cmd.Process.Pid
	go p.read(out)
	t.Cleanup(p.end)
	return p
}

func (p *process) opened() <-chan answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[0]
}

func (p *process) read(out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue // half a line of a process that was killed, or a message of the race detector
		}
		if a.ID < 0 {
			p.journaled.Store(int64(a.N))
			continue
		}
		p.mu.Lock()
		c := p.waiting[a.ID]
		p.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for id, c := range p.waiting {
		select {
		case c <- answer{ID: id, Err: "the child has ended"}:
		default:
		}
	}
}

// send sends a request; its answer comes over the channel.
func (p *process) send(r request) <-chan answer {
	p.t.Helper()
	c := make(chan answer, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	r.ID = p.next
	p.next++
	if p.ended {
		c <- answer{ID: r.ID, Err: "the child has ended"}
		return c
	}
	p.waiting[r.ID] = c
	b, err := json.Marshal(r)
	must(p.t, err)
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		c <- answer{ID: r.ID, Err: err.Error()}
	}
	return c
}

// call sends a request and waits for its answer, whatever it is.
func (p *process) call(r request) answer {
	p.t.Helper()
	return receive(p.t, "the answer of a child to "+r.Op, p.send(r))
}

// do is call for what must not fail.
func (p *process) do(r request) answer {
	p.t.Helper()
	a := p.call(r)
	if a.Err != "" {
		p.t.Fatalf("child %d: %s: %s", p.pid, r.Op, a.Err)
	}
	return a
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill() {
	p.t.Helper()
	p.killed = true
	must(p.t, p.cmd.Process.Kill())
	p.wait()
}

func (p *process) wait() {
	select {
	case <-p.done:
	case <-time.After(patience):
		p.killed = true
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("child %d did not end within %s of the end of its input", p.pid, patience)
	}
	if err := p.cmd.Wait(); err != nil && !p.killed {
		p.t.Errorf("child %d: %v", p.pid, err)
	}
}

// end has the process close its handle and waits for it.
func (p *process) end() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.in.Close()
	p.wait()
}
