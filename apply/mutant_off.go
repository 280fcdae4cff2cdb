//go:build !mutation

package apply

import "github.com/cockroachdb/pebble/v2"

func (m *Machine) applyFirst(b *pebble.Batch) *pebble.Batch { return b }

func dropLast(*pebble.Batch) {}
