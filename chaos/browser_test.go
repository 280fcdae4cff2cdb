package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// browserEnv makes it a failure that there is no browser, which is otherwise a
// reason to skip: .ci/run sets it.
const browserEnv = "CHAOS_TEST_BROWSER"

// shots has the tests of the page write what the browser shows:
//
//	go test ./chaos -run Browser -shots /tmp/shots
var shots = flag.String("shots", "", "folder for pictures of the page")

// browser is a tab of a browser that a test looks at pages with.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// openBrowser starts a browser, which ends with the test. What the page says on
// the console that is not in order fails the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path == "" && os.Getenv(browserEnv) != "":
		t.Fatalf("no Chromium or Chrome in PATH, and %s is set", browserEnv)
	case path == "":
		t.Skip("no Chromium or Chrome in PATH: what the page shows is not tested (Debian: apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which Chromium cannot have as root
	}
	all, cancelAll := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(all)
	b := &browser{t: t, ctx: ctx}
	said := make(chan struct{})
	messages := chromedp.Console(ctx) // this starts the browser
	go func() {
		defer close(said)
		for m, err := range messages {
			if err != nil {
				return // the end
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				t.Errorf("the console: %s", m)
			}
		}
	}()
	t.Cleanup(func() {
		end, stop := context.WithTimeout(ctx, patience)
		defer stop()
		if err := chromedp.Cancel(end); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancel()
		cancelAll()
		<-said
	})
	return b
}

// patience is how long a browser may take for one thing. It is no measure of anything.
const patience = time.Minute

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what an expression of JavaScript gives.
func eval[T any](b *browser, expression string, args ...any) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](fmt.Sprintf(expression, args...), chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// open shows a report in a window of a size, in a colour scheme.
func (b *browser) open(r *chaos.Report, width int64, scheme string) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "report.html")
	if err := r.WriteFiles(path); err != nil {
		b.t.Fatal(err)
	}
	address := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	b.do(chromedp.EmulateViewport(width, 900), b.scheme(scheme), chromedp.Navigate(address.String()))
	b.shoot(fmt.Sprintf("%d-%d-%s-%v", r.Calls, width, scheme, r.OK()))
}

func (*browser) scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	})
}

// shoot writes a picture if that is wanted.
func (b *browser) shoot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o666)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// point is a place in the window.
type point struct{ X, Y float64 }

// hover moves the pointer to the middle of the nth element that a selector
// finds, or to a part of it, and returns what is told about it.
func (b *browser) hover(selector string, n int, across, down float64) string {
	b.t.Helper()
	// What scrolls hides what was told: that is over two frames later.
	p := eval[point](b, `(async () => {
		const e = document.querySelectorAll(%q)[%d], frame = () => new Promise(requestAnimationFrame);
		e.scrollIntoView({ block: "center" });
		await frame();
		await frame();
		const r = e.getBoundingClientRect();
		return { X: r.x + r.width * %g, Y: r.y + r.height * %g };
	})()`, selector, n, across, down)
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, p.X, p.Y))
	return eval[string](b, `getComputedStyle(document.getElementById("tip")).display === "none" ? "" : document.getElementById("tip").textContent`)
}

// colours is how many colours a canvas has: one that nothing was drawn on has one.
func (b *browser) colours(id string) int {
	b.t.Helper()
	return eval[int](b, `(() => {
		const c = document.querySelector("#%s canvas"), d = new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer);
		return new Set(d).size;
	})()`, id)
}

func TestBrowser_Page(t *testing.T) {
	b := openBrowser(t)
	for _, n := range []int{1000, 100_000} {
		for _, width := range []int64{1320, 390} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%d calls, %d wide, %s", n, width, scheme), func(t *testing.T) {
					b := &browser{t, b.ctx}
					r := sample(t, n, false)
					b.open(r, width, scheme)
					if got := eval[int](b, `document.querySelectorAll("#lanes .fault").length`); got != len(r.Faults) || got < 10 {
						t.Errorf("%d marks of %d faults", got, len(r.Faults))
					}
					for _, id := range []string{"lanes", "scatter", "rate", "failovers"} {
						if got := b.colours(id); got < 4 {
							t.Errorf("%s has %d colours: nothing is drawn", id, got)
						}
					}
					if got := eval[int](b, `document.documentElement.scrollWidth`); int64(got) > width {
						t.Errorf("the page is %d wide in a window of %d", got, width)
					}
					if got := eval[string](b, `document.getElementById("badge").textContent`); !strings.Contains(got, "all promises held") {
						t.Errorf("the page says %q", got)
					}
					light := eval[bool](b, `getComputedStyle(document.body).backgroundColor.match(/\d+/g)[0] > 128`)
					if light != (scheme == "light") {
						t.Errorf("the background is light: %v", light)
					}
					t.Logf("drawn in %.0f ms", eval[float64](b, `performance.getEntriesByName("draw", "measure")[0].duration`))
				})
			}
		}
	}
}

// Whatever the pointer is on says what it is.
func TestBrowser_Hover(t *testing.T) {
	b := openBrowser(t)
	r := sample(t, 1000, false)
	b.open(r, 1320, "light")
	for i, f := range r.Faults {
		// Marks may lie upon each other; the one on top is found.
		got := b.hover("#lanes .fault rect", i, 0.5, 0.4)
		if i == 0 && (!strings.HasPrefix(got, string(f.Kind)) || !strings.Contains(got, "without a write")) || !strings.Contains(got, " at ") {
			t.Errorf("fault %d, %s: %q", i, f.Kind, got)
		}
	}
	for _, tc := range []struct {
		selector     string
		across, down float64
		want         string
	}{
		{"#lanes canvas", 0.12, 0.25, "process "},
		{"#lanes canvas", 0.12, 0.72, "write"},
		{"#rate canvas", 0.5, 0.5, "writes/s"},
		{"#availability .dot", 0.5, 0.5, "next write after"},
	} {
		if got := b.hover(tc.selector, 0, tc.across, tc.down); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.selector, got, tc.want)
		}
	}
	// A call: where the page has drawn it.
	p := eval[point](b, `(() => {
		const r = document.querySelector("#scatter canvas").getBoundingClientRect();
		for (let y = 60; y < r.height - 40; y += 3) for (let x = 100; x < r.width - 40; x += 3) if (tells.scatter(x, y).includes("took")) return { X: x / r.width, Y: y / r.height };
		return { X: 0, Y: 0 };
	})()`)
	if got := b.hover("#scatter canvas", 0, p.X, p.Y); !strings.Contains(got, "took") || !strings.Contains(got, "by process") {
		t.Errorf("a call says %q", got)
	}
	if got := b.hover("h1", 0, 0.5, 0.5); got != "" {
		t.Errorf("the headline says %q", got)
	}
	// The arrow keys go from mark to mark.
	b.do(chromedp.Focus(chromedp.CSS("#lanes svg")), chromedp.KeyEvent(kb.ArrowRight))
	if got, want := eval[string](b, `document.getElementById("tip").textContent`), string(r.Faults[0].Kind); !strings.HasPrefix(got, want) {
		t.Errorf("the first mark says %q, want %s", got, want)
	}
}

// A part of the time can be looked at, and all of it again.
func TestBrowser_Zoom(t *testing.T) {
	b := openBrowser(t)
	r := sample(t, 1000, false)
	b.open(r, 1320, "light")
	marks := func() int { return eval[int](b, `document.querySelectorAll("#lanes .fault").length`) }
	b.hover("#rate canvas", 0, 0.3, 0.5)
	box := eval[point](b, `(() => { const r = document.querySelector("#rate canvas").getBoundingClientRect(); return { X: r.x + r.width * 0.3, Y: r.y + 40 } })()`)
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMousePressed, box.X, box.Y, chromedp.ButtonLeft, chromedp.ClickCount(1)),
		chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, box.X+200, box.Y, chromedp.ButtonLeft),
		chromedp.MouseEvent(input.DispatchMouseEventTypeMouseReleased, box.X+200, box.Y, chromedp.ButtonLeft, chromedp.ClickCount(1)))
	b.shoot("zoomed")
	if got := marks(); got == 0 || got >= len(r.Faults)/2 {
		t.Errorf("%d of %d marks in a sixth of the time", got, len(r.Faults))
	}
	b.do(chromedp.Click(chromedp.CSS("#whole")))
	if got := marks(); got != len(r.Faults) {
		t.Errorf("%d of %d marks in all of it", got, len(r.Faults))
	}
}

// What was violated is at the top, and porcupine's picture of it in the page.
func TestBrowser_Violation(t *testing.T) {
	b := openBrowser(t)
	b.open(sample(t, 1000, true), 1320, "light")
	if got := eval[string](b, `document.querySelector("header").textContent`); !strings.Contains(got, "1 promise broken") || !strings.Contains(got, "registers found") {
		t.Errorf("the page begins with %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS("#verdicts button")))
	frame := eval[string](b, `new Promise(loaded => {
		const f = document.querySelector("#verdicts iframe");
		const look = () => f.srcdoc ? loaded(f.srcdoc) : requestAnimationFrame(look);
		look();
	})`)
	if !strings.Contains(frame, "get() → a.1") || !strings.Contains(frame, "<svg") {
		t.Errorf("the picture is %.200q", frame)
	}
	if got := eval[string](b, `document.querySelector("#verdicts a").href`); !strings.HasSuffix(got, "report.html.registers.html") {
		t.Errorf("the link goes to %s", got)
	}
	b.do(chromedp.WaitVisible(chromedp.CSS("#verdicts iframe")))
	b.shoot("picture")
}
