.PHONY: test race lint bench fuzz chaos demo ci

test:
	go test ./...

race:
	go test -race -timeout 12m ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...

# Each fuzz test for FUZZTIME.
FUZZTIME ?= 10s
fuzz:
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n 1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go | sed 's/^func //'); do \
			echo "== $$dir $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$dir"; \
		done; \
	done

# A long plan; CHAOS_SEED=N repeats one.
CHAOS_TIME ?= 10m
CHAOS_SEED ?= 0
chaos:
	go run ./cmd/demo chaos --duration $(CHAOS_TIME) --seed $(CHAOS_SEED) --quiet --report chaos.html

demo:
	go run ./cmd/demo

ci:
	.ci/run
