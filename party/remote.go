package party

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/embednats"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// remote is the connection of a follower to the leader, for one term.
type remote struct {
	db *DB

	// Immutable once connect returns, and once writes are sent but for term and pid.
	nc       *nats.Conn
	conn     uint64 // counts this handle's connections
	term     uint64
	pid      int
	database eventlog.ID
	slots    [1 + readSlots]wireSlot // 0 for writes, the others for reads
	lines    lines                   // for iterators

	word *eventlog.Commit // the leader's commit word; nil if it cannot be mapped

	ctx    context.Context // ends when the connection is lost
	cancel context.CancelFunc
}

// unbuffered has whoever publishes write the message too. By default nats.go leaves that
// to a goroutine of its own, so that many small messages go in one write; ours have gone
// into bundles, and waking that goroutine costs more than the write.
var unbuffered = nats.WriteBufferSize(1)

// readSlots is how many bundles of reads a follower has under way at once: so
// many that a slow one does not hold up the others, few enough that bundles fill.
const readSlots = 4

// wireSlot is the way back for one bundle at a time. The caller that sent the
// bundle receives the reply right from the connection's reader.
type wireSlot struct {
	inbox string
	reply chan *nats.Msg
	big   chan reply // the same for what came in pieces
	id    uint64     // of the bundle under way; owned by whoever has the slot
	buf   []byte     // the same
}

type reply struct {
	data []byte
	err  error
}

// connect dials the leader that e names and introduces this handle. If e is of the database known,
// which the handle fits, writes do not wait for the answer: a process that has just begun to lead
// finds them there when its term begins, and they share the first sync. If nobody answers after
// all, they were under way; so those that must not be sent twice wait.
func connect(ctx context.Context, db *DB, e endpoint, conn uint64, known eventlog.ID) (_ *remote, err error) {
	nc, lost, err := embednats.Dial(ctx, db.path(""), e.Address, unbuffered)
	if err != nil {
		return nil, err
	}
	r := &remote{db: db, nc: nc, conn: conn}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go func() { // ends with the connection, which close ends
		<-lost
		r.cancel()
	}()
	early := false
	defer func() {
		if err != nil {
			if early {
				db.routeWrites(nil)
			}
			r.close()
		}
	}()
	if err := r.subscribe(); err != nil { // while the leader may still be on its way
		return nil, err
	}
	if e.Database == known.String() && !db.opts.NoRetry {
		if r.join(known); r.word != nil {
			early = true
			db.routeWrites(r)
		}
	}
	o := db.opts.Pebble
	hello := helloRequest{Comparer: o.Comparer.Name, Merger: o.Merger.Name}
	t, body, err := r.ask(ctx, hello.append(nil))
	if err != nil {
		return nil, err
	}
	var w welcome
	if err = w.decode(body); err == nil && t != msgWelcome {
		err = fmt.Errorf("%w: reply type %d to hello", errWire, t)
	}
	if err != nil {
		return nil, err
	}
	if got := w.Database.String(); got != e.Database {
		return nil, fmt.Errorf("%w: the endpoint file names database %s, but %s answers there", errNoEndpoint, e.Database, got)
	}
	r.term, r.pid = w.Term, int(w.PID)
	if !early {
		r.join(w.Database)
	}
	db.learn(w.Committed)
	return r, nil
}

// join has r be a connection to the leader of that database.
func (r *remote) join(database eventlog.ID) {
	r.database = database
	word, err := eventlog.ReadCommit(r.db.path("commit"))
	if err != nil {
		return
	}
	if word.ID() != database {
		_ = word.Close()
		return
	}
	r.word = word
}

func (r *remote) subscribe() error {
	for i := range r.slots {
		s := &r.slots[i]
		s.inbox = nats.NewInbox()
		s.reply, s.big = make(chan *nats.Msg, 4), make(chan reply, 1)
		if _, err := r.nc.ChanSubscribe(s.inbox, s.reply); err != nil {
			return err
		}
	}
	return nil
}

// close ends the connection; everything under way is lost. It may be called more
// than once.
func (r *remote) close() {
	r.nc.Close()
	r.cancel()
	if r.word != nil {
		_ = r.word.Close() // safe beside committed
	}
}

// committed returns a sequence number that was committed before now, as new as
// can be had without asking.
func (r *remote) committed() uint64 {
	if r.word != nil {
		r.db.learn(r.word.Committed())
	}
	return r.db.known.Load()
}

// send sends a bundle of writes, or of reads.
func (r *remote) send(slot int, bundle []*call) {
	write := bundle[0].cmd != nil
	subject := subjectWrite
	s := &r.slots[0]
	if !write {
		subject = subjectAsk
		s = &r.slots[1+slot]
	}
	s.id++
	if write {
		s.buf = r.encodeWrites(s.buf[:0], s.id, bundle)
	} else {
		s.buf = encodeReads(s.buf[:0], s.id, bundle)
	}
	if len(s.buf) > chunk {
		go r.upload(s, s.buf)
		s.buf = nil
		return
	}
	// nats.go copies what it is given. If the connection is gone, wait says so.
	_ = r.nc.PublishRequest(subject, s.inbox, s.buf)
}

func (r *remote) encodeWrites(dst []byte, id uint64, bundle []*call) []byte {
	w := writeRequest{Database: r.database, Origin: r.db.origin, Conn: r.conn, ID: id, Low: bundle[0].cmd.Number}
	dst = w.appendHead(dst, len(bundle))
	for _, c := range bundle {
		if !c.cmd.Retry {
			c.cmd.Since = r.committed()
		}
		dst = apply.AppendCommand(dst, c.cmd)
	}
	return dst
}

func encodeReads(dst []byte, id uint64, bundle []*call) []byte {
	n := 0
	for _, c := range bundle {
		n += c.asks()
	}
	dst = appendHeader(dst, msgRead)
	dst = binary.AppendUvarint(dst, id)
	dst = binary.AppendUvarint(dst, uint64(n))
	for _, c := range bundle {
		for i := range c.asks() {
			dst = appendBytes(dst, c.keys[c.index(i)])
		}
	}
	return dst
}

// wait waits for the reply to the bundle in slot and hands its answers to the
// calls.
func (r *remote) wait(ctx context.Context, slot int, bundle []*call) error {
	write := bundle[0].cmd != nil
	s := &r.slots[0]
	if !write {
		s = &r.slots[1+slot]
	}
	for {
		var data []byte
		select {
		case m := <-s.reply:
			if noResponders(m) {
				r.cancel()
				return errLost
			}
			data = m.Data
		case big := <-s.big:
			if errors.Is(big.err, errGone) {
				// One of the two processes was stopped for so long that the leader
				// forgot the transfer. Commands that it handled it recognises.
				for _, c := range bundle {
					if c.cmd != nil {
						c.cmd.Retry = true
					}
				}
				r.send(slot, bundle)
				continue
			}
			if big.err != nil {
				return big.err
			}
			data = big.data
		case <-ctx.Done():
			return errLeft
		case <-r.ctx.Done():
			return errLost
		}
		t, body, err := openMessage(data)
		if err == nil {
			switch t {
			case msgLarge:
				go func() {
					data, err := r.download(r.ctx, body)
					s.big <- reply{data, err}
				}()
				continue
			case msgError:
				rd := reader{b: body}
				err = rd.error()
			default:
				err = r.take(t, body, s.id, bundle)
			}
		}
		if errors.Is(err, errStray) {
			continue
		}
		return err
	}
}

// noResponders recognises the server's own answer when nobody is subscribed: the
// term is ending.
func noResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == "503"
}

// errStray: a reply that belongs to another bundle.
var errStray = errors.New("party: stray reply")

// take hands the answers in a reply to their calls.
func (r *remote) take(t msgType, body []byte, id uint64, bundle []*call) error {
	switch {
	case t == msgAnswers && bundle[0].cmd != nil:
		got, committed, answers, err := decodeAnswers(body)
		if err != nil {
			return err
		}
		if got != id {
			return errStray
		}
		if len(answers) != len(bundle) {
			return fmt.Errorf("%w: %d answers to %d commands", errWire, len(answers), len(bundle))
		}
		for i, c := range bundle {
			c.answer = answers[i]
		}
		r.db.learn(committed)
		return nil
	case t == msgValues && bundle[0].cmd == nil:
		got, values, err := decodeValues(body)
		if err != nil {
			return err
		}
		if got != id {
			return errStray
		}
		return fill(bundle, values, len(body))
	}
	return fmt.Errorf("%w: reply type %d", errWire, t)
}

// ask sends one request of any size and returns the reply, however large. The
// error is errLost when the connection ends first, the leader's own, or that of
// ctx.
func (r *remote) ask(ctx context.Context, request []byte) (msgType, []byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	var data []byte
	var err error
	if len(request) > chunk {
		data, err = r.parts(ctx, request)
	} else {
		data, err = r.request(ctx, request)
	}
	if err != nil {
		return 0, nil, err
	}
	t, body, err := openMessage(data)
	if err == nil && t == msgLarge {
		if data, err = r.download(ctx, body); err == nil {
			t, body, err = openMessage(data)
		}
	}
	if err == nil && t == msgError {
		rd := reader{b: body}
		err = rd.error()
	}
	return t, body, err
}

// request is one message and its reply.
func (r *remote) request(ctx context.Context, data []byte) ([]byte, error) {
	m, err := r.nc.RequestWithContext(ctx, subjectAsk, data)
	switch {
	case err == nil:
		return m.Data, nil
	case ctx.Err() != nil && r.ctx.Err() == nil:
		return nil, ctx.Err()
	}
	// Whatever else goes wrong, nobody answers over this connection any more.
	r.cancel()
	return nil, errLost
}
