package chaos_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/chaos"
)

func TestMain(m *testing.M) {
	chaos.Main(nil)
	goleak.VerifyTestMain(m)
}
