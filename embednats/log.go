package embednats

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	levelDebug = slog.LevelDebug - 4 // nats-server's Debugf: every connection and ping
	levelTrace = slog.LevelDebug - 8 // its Tracef: every message
)

// slogger is nats-server's Logger over slog: errors and warnings keep their level, notices (start, stop, a slow
// consumer) become Debug.
type slogger struct{ l *slog.Logger }

func setLogger(ns *server.Server, l *slog.Logger) {
	ctx := context.Background()
	if l.Enabled(ctx, slog.LevelError) {
		ns.SetLoggerV2(slogger{l}, l.Enabled(ctx, levelDebug), l.Enabled(ctx, levelTrace), false)
	}
}

func (s slogger) log(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if s.l.Enabled(ctx, level) {
		s.l.Log(ctx, level, "nats-server: "+fmt.Sprintf(format, v...))
	}
}

// Fatalf must not end the process: it is not ours.
func (s slogger) Fatalf(format string, v ...any)  { s.log(slog.LevelError, format, v) }
func (s slogger) Errorf(format string, v ...any)  { s.log(slog.LevelError, format, v) }
func (s slogger) Warnf(format string, v ...any)   { s.log(slog.LevelWarn, format, v) }
func (s slogger) Noticef(format string, v ...any) { s.log(slog.LevelDebug, format, v) }
func (s slogger) Debugf(format string, v ...any)  { s.log(levelDebug, format, v) }
func (s slogger) Tracef(format string, v ...any)  { s.log(levelTrace, format, v) }

// logAsync stands in for nats.go's own handler, which writes to the standard error.
func logAsync(l *slog.Logger) nats.ErrHandler {
	return func(_ *nats.Conn, sub *nats.Subscription, err error) {
		subject := ""
		if sub != nil {
			subject = sub.Subject
		}
		l.Warn("nats client", "err", err, "subject", subject)
	}
}
