package party_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/pebbleparty/pebbleparty/party"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var dbs []*party.DB
	for i := range 3 {
		db, err := party.Open(ctx, dir, &party.Options{Events: party.Events{RoleChanged: func(c party.RoleChange) { fmt.Println(i, c.Role, c.Term, c.LeaderPID, c.Cause) }}})
		if err != nil {
			t.Fatal(err)
		}
		dbs = append(dbs, db)
	}
	for i, db := range dbs {
		if err := db.Set(ctx, fmt.Appendf(nil, "k%d", i), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
		for j := range i + 1 {
			for _, o := range dbs {
				if _, err := o.Get(ctx, fmt.Appendf(nil, "k%d", j)); err != nil {
					t.Fatal(i, j, err)
				}
			}
		}
	}
	big := make([]byte, 100<<20)
	big[77] = 9
	st := time.Now()
	if err := dbs[1].Set(ctx, []byte("big"), big, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	fmt.Println("big set", time.Since(st))
	st = time.Now()
	v, err := dbs[2].Get(ctx, []byte("big"))
	if err != nil || len(v) != len(big) || v[77] != 9 {
		t.Fatal(len(v), err)
	}
	fmt.Println("big get", time.Since(st))
	s, err := dbs[2].Status(ctx)
	fmt.Printf("%+v %v\n", s, err)
	it, err := dbs[2].NewIter(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range it.All() {
		fmt.Printf("%q %d\n", k, len(v))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	st = time.Now()
	if err := dbs[0].Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("close", time.Since(st))
	st = time.Now()
	if err := dbs[1].Set(ctx, []byte("after"), []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	fmt.Println("set after", time.Since(st))
	for _, db := range dbs[1:] {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p, err := pebble.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := p.Get([]byte("after"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	p.Close()
}
