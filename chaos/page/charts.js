// The charts with a time axis share it, the part of it that is shown, and a line
// under the pointer.
const right = 14, foot = 24;
let left = 78;
const view = { from: 0, to: end };
const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const tells = {}; // what is under a point of a chart, as text

function prepare(id, height) {
	const box = $(id), canvas = box.querySelector("canvas"), width = box.clientWidth, scale = window.devicePixelRatio || 1;
	canvas.style.height = height + "px";
	canvas.width = Math.round(width * scale);
	canvas.height = Math.round(height * scale);
	const g = canvas.getContext("2d");
	g.scale(scale, scale);
	g.font = "12px system-ui, sans-serif";
	g.textBaseline = "middle";
	const per = (width - left - right) / (view.to - view.from);
	return { g, width, height, bottom: height - foot, x: us => left + (us - view.from) * per };
}
function inside(d, draw) { // nothing is drawn over the labels
	d.g.save();
	d.g.beginPath();
	d.g.rect(left, 0, d.width - left - right, d.height);
	d.g.clip();
	draw();
	d.g.restore();
}
function axis(d) {
	const { g, x, width, bottom } = d, raw = (view.to - view.from) / Math.max(2, Math.min(10, width / 110)), p = Math.pow(10, Math.floor(Math.log10(raw)));
	const step = p * [1, 2, 5, 10].find(m => m * p >= raw);
	g.textAlign = "center";
	for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
		g.fillStyle = color("line");
		g.fillRect(Math.round(x(t)), 0, 1, bottom);
		g.fillStyle = color("dim");
		g.fillText(+(t / 1e6).toFixed(6) + " s", Math.min(x(t), width - 18), bottom + 13);
	}
	g.textAlign = "right";
}
function label(d, text, y) {
	d.g.fillStyle = color("dim");
	d.g.fillText(text, left - 9, y);
}
// gaps calls draw with the place of each gap of availability that can be seen.
function gaps(d, least, draw) {
	for (const f of faults) {
		const x0 = d.x(f.gapAt / 1000), x1 = d.x((f.gapAt + f.gap) / 1000);
		if (f.gap && x1 - x0 >= least && x1 > left && x0 < d.width - right) draw(x0, x1, f);
	}
}
function shade(d) {
	d.g.fillStyle = color("gap");
	d.g.globalAlpha = 0.13;
	gaps(d, 2, (x0, x1) => d.g.fillRect(x0, 0, x1 - x0, d.bottom));
	d.g.globalAlpha = 1;
}

function lanes() {
	const n = report.processes, top = 24, lane = n > 12 ? 14 : 24, pad = n > 12 ? 1 : 3, writes = top + n * lane + 6;
	const d = prepare("lanes", writes + 34 + foot), { g, x } = d, rows = Array.from({ length: n }, () => []);
	const narrow = left < 78;
	axis(d);
	for (let i = 0; i < n; i++) label(d, narrow ? "p" + i : "process " + i, top + i * lane + lane / 2);
	label(d, "writes", writes + 8);
	inside(d, () => {
		g.fillStyle = color("dead");
		for (let i = 0; i < n; i++) g.fillRect(x(0), top + i * lane + pad, x(end) - x(0), lane - 2 * pad);
		for (const s of report.spans || []) {
			const from = Math.max(view.from, s.from / 1000), to = Math.min(view.to, s.to / 1000);
			if (to < from || s.process >= n) continue;
			g.fillStyle = color(s.state);
			g.fillRect(x(from), top + s.process * lane + pad, Math.max(0.7, x(to) - x(from)), lane - 2 * pad);
			rows[s.process].push(s);
		}
		g.fillStyle = color("ok");
		g.globalAlpha = 0.3;
		g.fillRect(x(0), writes + 2, x(end) - x(0), 12);
		g.globalAlpha = 1;
		let free = left;
		g.textAlign = "left";
		gaps(d, 0.7, (x0, x1, f) => {
			g.fillStyle = color("gap");
			g.fillRect(x0, writes + 2, x1 - x0, 12);
			const text = time(f.gap / 1000), wide = g.measureText(text).width;
			if (f.gap < report.longestGap / 4 || x0 < free || x0 + wide > d.width - right) return;
			g.fillText(text, x0, writes + 24);
			free = x0 + wide + 8;
		});
	});
	marks(d, top, lane, n);
	tells.lanes = (px, py) => {
		const us = view.from + (px - left) * (view.to - view.from) / (d.width - left - right), i = Math.floor((py - top) / lane);
		if (us < 0 || us > end || px < left) return "";
		if (py > writes && py < writes + 16) {
			const f = faults.find(f => f.gap && us * 1000 >= f.gapAt && us * 1000 <= f.gapAt + f.gap);
			return f ? "no write succeeded for " + time(f.gap / 1000) + "\n" + time(f.gapAt / 1000) + " to " + time((f.gapAt + f.gap) / 1000) + "\n" + f.kind : "writes succeed";
		}
		if (i < 0 || i >= n) return "";
		const s = rows[i].find(s => us * 1000 >= s.from && us * 1000 <= s.to);
		return s ? "process " + i + ": " + s.state + (s.term ? ", term " + s.term : "") + "\n" + time(Math.max(0, s.from / 1000)) + " to " + time(s.to / 1000) + (s.pid ? ", pid " + s.pid : "") + (s.cause ? "\n" + s.cause : "") : "process " + i + ": dead";
	};
}
// marks are elements, so that a pointer and the arrow keys find them.
function marks(d, top, lane, n) {
	const svg = $("lanes").querySelector("svg");
	svg.replaceChildren();
	svg.setAttribute("tabindex", 0);
	for (const f of faults) {
		const x = d.x(f.at / 1000), kind = kindOf[f.kind]?.class || "break";
		if (x < left || x > d.width - right) continue;
		const y0 = f.process >= 0 ? top + f.process * lane : top, y1 = f.process >= 0 ? y0 + lane : top + n * lane;
		const g = drawn("g", { class: "fault", tabindex: -1, "data-kind": f.kind, role: "img", "aria-label": faultText(f) });
		g.append(drawn("rect", { x: x - 6, y: 0, width: 12, height: top, fill: "transparent" }));
		const mark = markOf(kind, x, 10);
		mark.append(drawn("line", { x1: x, x2: x, y1: y0, y2: y1, stroke: "currentColor", "stroke-width": 1.6 }));
		g.append(mark);
		g.tell = () => faultText(f);
		svg.append(g);
	}
}

function scatter() {
	const d = prepare("scatter", 330), { g, x, bottom, width } = d, n = calls.start.length;
	let most = 1e5;
	for (const t of calls.took) if (t > most) most = t;
	const low = 1, high = Math.log10(most) + 0.1, top = 14;
	const y = us => bottom - 2 - (bottom - 2 - top) * (Math.log10(Math.max(us, 10)) - low) / (high - low);
	axis(d);
	for (let e = low; e <= high; e++) {
		const us = Math.pow(10, e);
		label(d, time(us), y(us));
		g.fillStyle = color("line");
		g.fillRect(left, Math.round(y(us)), width - left - right, 1);
	}
	inside(d, () => {
		shade(d);
		const shown = n * (view.to - view.from) / end, size = shown > 20000 ? 1.5 : shown > 3000 ? 2 : 3;
		const spare = calls.opWrite.map(w => w ? 1 : 0);
		g.globalAlpha = shown > 20000 ? 0.4 : 0.65;
		for (const kind of [0, 1]) {
			g.fillStyle = color(kind ? "write" : "read");
			for (let i = 0; i < n; i++) {
				const at = calls.start[i];
				if (calls.took[i] >= 0 && spare[calls.op[i]] === kind && at >= view.from && at <= view.to) g.fillRect(x(at) - size / 2, y(calls.took[i]) - size / 2, size, size);
			}
		}
		g.globalAlpha = 1;
		g.fillStyle = color("kill");
		for (let i = 0; i < n; i++) if (calls.took[i] < 0) g.fillRect(x(calls.start[i]) - 1.5, 0, 3, 8);
	});
	tells.scatter = (px, py) => {
		let best = -1, least = 81;
		for (let i = 0; i < n; i++) {
			const dx = x(calls.start[i]) - px;
			if (dx > 9 || dx < -9) continue;
			const dy = (calls.took[i] < 0 ? 4 : y(calls.took[i])) - py, far = dx * dx + dy * dy;
			if (far < least) { least = far; best = i; }
		}
		return best < 0 ? "" : calls.ops[calls.op[best]] + " by process " + calls.process[best] + "\n" + (calls.took[best] < 0 ? "no answer: the process was killed" : "took " + time(calls.took[best])) + "\nbegun at " + time(calls.start[best]);
	};
}

function rate() {
	const d = prepare("rate", 150), { g, x, bottom, width } = d, n = calls.writes.length, per = v => v * 1e6 / calls.step;
	let most = 1;
	for (let i = 0; i < n; i++) most = Math.max(most, per(calls.writes[i] + calls.reads[i]));
	const y = v => bottom - (bottom - 10) * v / most;
	axis(d);
	for (const part of [0, 0.5, 1]) {
		label(d, number(Math.round(most * part)), y(most * part) - (part ? 0 : 4));
		g.fillStyle = color("line");
		g.fillRect(left, Math.round(y(most * part)), width - left - right, 1);
	}
	inside(d, () => {
		shade(d);
		for (let i = 0; i < n; i++) {
			const x0 = x(i * calls.step), wide = Math.max(0.8, x(Math.min(end, (i + 1) * calls.step)) - x0 - 0.6), a = per(calls.writes[i]), b = per(calls.writes[i] + calls.reads[i]);
			g.fillStyle = color("write");
			g.fillRect(x0, y(a), wide, bottom - y(a));
			g.fillStyle = color("read");
			g.fillRect(x0, y(b), wide, y(a) - y(b));
		}
	});
	tells.rate = px => {
		const i = Math.floor((view.from + (px - left) * (view.to - view.from) / (width - left - right)) / calls.step);
		return i < 0 || i >= n || px < left ? "" : "at " + time(i * calls.step) + ", for " + time(calls.step) + "\n" + number(Math.round(per(calls.writes[i]))) + " writes/s\n" + number(Math.round(per(calls.reads[i]))) + " reads/s";
	};
}

function failovers() {
	const box = $("failovers").closest("section"), all = failoverTimes.map(ns => ns / 1000);
	box.hidden = all.length === 0;
	if (!all.length) return;
	const d = prepare("failovers", 170), { g, width, bottom } = d, top = 34;
	const low = Math.floor(Math.log10(all[0])), high = Math.max(low + 1, Math.ceil(Math.log10(all[all.length - 1]) + 1e-9)), per = 8, n = (high - low) * per;
	const x = us => left + (width - left - right) * (Math.log10(us) - low) / (high - low);
	const bins = new Array(n).fill(0), bin = us => Math.max(0, Math.min(n - 1, Math.floor((Math.log10(us) - low) * per)));
	for (const us of all) bins[bin(us)]++;
	const most = Math.max(...bins), y = v => bottom - (bottom - top) * v / most;
	g.textAlign = "center";
	for (let e = low; e <= high; e++) {
		const us = Math.pow(10, e);
		g.fillStyle = color("line");
		g.fillRect(Math.round(x(us)), top, 1, bottom - top);
		g.fillStyle = color("dim");
		g.fillText(time(us), Math.min(x(us), width - 20), bottom + 13);
	}
	g.textAlign = "right";
	label(d, "faults", top - 12);
	for (const v of new Set([0, most])) label(d, String(v), y(v) - (v ? 0 : 4));
	g.fillStyle = color("read");
	bins.forEach((v, i) => { if (v) g.fillRect(x(Math.pow(10, low + i / per)) + 1, y(v), (width - left - right) / n - 2, bottom - y(v)); });
	g.textAlign = "left";
	let free = 0, line = 0;
	for (const [name, q] of [["median", 0.5], ["90 %", 0.9], ["longest", 1]]) {
		const us = quantile(all, q), text = name + " " + time(us), wide = g.measureText(text).width, at = Math.min(x(us), width - wide - 6);
		line = at < free ? line + 1 : 0;
		g.fillStyle = color("text");
		g.fillRect(x(us), 14 + line * 14 - 6, 1.5, bottom - 8 - line * 14);
		g.fillText(text, at + 5, 10 + line * 14);
		free = at + wide + 12;
	}
	tells.failovers = px => {
		const i = Math.floor((px - left) / (width - left - right) * n);
		return bins[i] ? many(bins[i], "fault") + "\n" + time(Math.pow(10, low + i / per)) + " to " + time(Math.pow(10, low + (i + 1) / per)) : "";
	};
}

const tip = $("tip");
function show(text, x, y) {
	tip.style.display = text ? "block" : "none";
	if (!text) return;
	tip.textContent = text;
	tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
	tip.style.top = (y + 18 + tip.offsetHeight > innerHeight ? Math.max(8, y - tip.offsetHeight - 10) : y + 18) + "px";
}
function cursor(px) {
	const s = document.documentElement.style;
	s.setProperty("--shown", px === undefined ? "none" : "block");
	if (px !== undefined) s.setProperty("--cursor", px + "px");
}
addEventListener("pointermove", e => {
	const under = e.target.closest?.(".fault, .dot"), chart = e.target.closest?.(".chart");
	const box = chart?.getBoundingClientRect(), px = chart && e.clientX - box.left;
	show(under ? under.tell() : chart ? tells[chart.id]?.(px, e.clientY - box.top) : "", e.clientX, e.clientY);
	cursor(chart?.classList.contains("timed") && px >= left && px <= box.width - right ? px : undefined);
});
document.documentElement.addEventListener("pointerleave", () => { show(""); cursor(); });
addEventListener("scroll", () => show(""), { passive: true });
$("lanes").addEventListener("keydown", e => {
	const all = [...e.currentTarget.querySelectorAll(".fault")], step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
	if (!step || !all.length) return;
	const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length], box = next.getBoundingClientRect();
	next.focus({ preventScroll: true }); // which would hide what is shown
	show(next.tell(), box.x, box.y + 14);
	e.preventDefault();
});
$("lanes").addEventListener("focusout", () => show(""));

// look shows a part of the time; without one, all of it.
function look(from = 0, to = end) {
	view.from = Math.max(0, from);
	view.to = Math.min(end, to);
	$("whole").hidden = view.from === 0 && view.to === end;
	timed();
}
for (const chart of document.querySelectorAll(".timed")) {
	const at = e => Math.max(left, Math.min(chart.clientWidth - right, e.clientX - chart.getBoundingClientRect().left));
	const us = px => view.from + (px - left) * (view.to - view.from) / (chart.clientWidth - left - right);
	let begun, range;
	const stop = () => { range?.remove(); begun = range = undefined; };
	chart.addEventListener("pointerdown", e => { if (e.button === 0 && e.pointerType === "mouse") { begun = at(e); chart.setPointerCapture(e.pointerId); e.preventDefault(); } });
	chart.addEventListener("pointermove", e => {
		if (begun === undefined) return;
		if (!range) chart.append(range = element("div", undefined, "range"));
		range.style.left = Math.min(begun, at(e)) + "px";
		range.style.width = Math.abs(begun - at(e)) + "px";
	});
	chart.addEventListener("pointerup", e => {
		if (begun !== undefined && Math.abs(at(e) - begun) > 5) {
			const a = us(Math.min(begun, at(e))), b = us(Math.max(begun, at(e)));
			if (b - a >= 1000) look(a, b);
		}
		stop();
	});
	chart.addEventListener("pointercancel", stop);
	chart.addEventListener("dblclick", () => look());
}
$("whole").addEventListener("click", () => look());

function timed() { lanes(); rate(); scatter(); }
function draw() {
	left = innerWidth < 620 ? 52 : 78;
	performance.mark("draw");
	timed();
	failovers();
	performance.measure("draw", "draw");
}
draw();
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
