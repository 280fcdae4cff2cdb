.PHONY: test race lint bench fuzz chaos mutation demo ci

test:
	go test ./...

race:
	go test -race -timeout 15m ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags mutation ./...
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

# A long plan in pieces, each with a seed and a report of its own; the seeds are
# listed at the end. What could not be judged counts as a failure here. CHAOS_PIECES=1 CHAOS_SEED=N-1 repeats the one of seed N.
CHAOS_TIME ?= 60s
CHAOS_PIECES ?= 10
CHAOS_SEED ?= $(shell date +%s)
CHAOS_OUT ?= chaos-reports
chaos:
	@mkdir -p $(CHAOS_OUT) && go build -o $(CHAOS_OUT)/demo ./cmd/demo
	@failed=; ran=; for i in $$(seq $(CHAOS_PIECES)); do \
		seed=$$(($(CHAOS_SEED) + i)); echo "== seed $$seed, $$i of $(CHAOS_PIECES)"; ran="$$ran $$seed"; \
		$(CHAOS_OUT)/demo chaos --duration $(CHAOS_TIME) --seed $$seed --strict --quiet --report $(CHAOS_OUT)/$$seed.html || failed="$$failed $$seed"; \
	done; echo "== seeds:$$ran"; [ -z "$$failed" ] || { echo "== VIOLATED, undecided or ended by an error:$$failed"; exit 1; }

# Breaks one promise after the other and says what found it, and how long that took.
mutation:
	go test ./chaos -count=1 -run FindsEveryMutation -v

demo:
	go run ./cmd/demo

ci:
	.ci/run
