package party

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

func (o *IterOptions) bounds() snapshot.Bounds {
	return snapshot.Bounds{Lower: o.LowerBound, Upper: o.UpperBound, KeysOnly: o.KeysOnly}
}

// openIter fixes a point in time for an iterator: on a replica of this process,
// else it has whoever leads do so.
func (db *DB) openIter(ctx context.Context, o *IterOptions, at *snapshot.Position, moved *atomic.Bool) (source, page, error) {
	if db.leading.Load() == nil {
		if src, ok, err := db.local.pin(ctx, o.bounds(), at); ok {
			return src, page{}, err
		}
	}
	b := o.bounds()
	for {
		if err := ctx.Err(); err != nil {
			return nil, page{}, err
		}
		s, err := db.route(ctx)
		if err != nil {
			return nil, page{}, db.explain(err)
		}
		if s.remote != nil && s.remote.ctx.Err() != nil { // nothing of this was under way
			if err := db.leave(ctx, s); err != nil {
				return nil, page{}, db.explain(err)
			}
			continue
		}
		var src source
		var p page
		if s.leader != nil {
			src, err = s.leader.pin(ctx, b, at)
		} else {
			src, p, err = s.remote.stream(ctx, b, at, moved)
		}
		switch {
		case err == nil:
			return src, p, nil
		case !errors.Is(err, errLost):
			return nil, page{}, wrapError(err)
		case db.opts.NoRetry:
			return nil, page{}, ErrLeaderLost
		default:
			if err := db.leave(ctx, s); err != nil {
				return nil, page{}, db.explain(err)
			}
		}
	}
}
