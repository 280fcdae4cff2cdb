const report = JSON.parse(document.getElementById("report").textContent);
const calls = JSON.parse(document.getElementById("calls").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const verdicts = report.verdicts || [], faults = report.faults || [], costs = report.availability || [], failoverTimes = report.failovers || [];
const end = Math.max(report.duration, 1) / 1000; // microseconds, as all below
// Begins are written as the differences between them.
for (let i = 1; i < calls.start.length; i++) calls.start[i] += calls.start[i - 1];

const $ = id => document.getElementById(id);
const kindOf = Object.fromEntries(costs.map(a => [a.kind, a]));
const number = n => n.toLocaleString("en");
const many = (n, one, more) => number(n) + " " + (n === 1 ? one : more || one + "s");

function time(us) {
	if (us >= 120e6) return +(us / 60e6).toFixed(1) + " min";
	if (us >= 1e6) return +(us / 1e6).toFixed(us < 1e7 ? 2 : 1) + " s";
	if (us >= 1e3) return +(us / 1e3).toFixed(us < 1e4 ? 1 : 0) + " ms";
	return Math.round(us) + " µs";
}
function quantile(sorted, q) { return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]; }
function element(tag, text, className) {
	const e = document.createElement(tag);
	if (text !== undefined) e.textContent = text;
	if (className) e.className = className;
	return e;
}
function drawn(tag, attributes, text) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const name in attributes) e.setAttribute(name, attributes[name]);
	if (text !== undefined) e.textContent = text;
	return e;
}
function row(table, tag, cells) { // a cell is [content, class]
	const tr = element("tr");
	for (const [content, className] of cells) {
		const td = element(tag, undefined, className);
		td.append(content);
		tr.append(td);
	}
	table.append(tr);
}

// markOf draws the mark of a class of faults around the point: the shape says it
// too, for those who do not see the colours.
function markOf(kind, x, y) {
	const g = drawn("g", { class: kind });
	const shapes = {
		kill: () => drawn("path", { class: "mark", d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` }),
		stop: () => drawn("path", { class: "mark", d: `M${x - 2.5} ${y - 5}v10m5 -10v10`, "stroke-width": 2.5 }),
		leave: () => drawn("circle", { class: "mark", cx: x, cy: y, r: 4 }),
		break: () => drawn("path", { class: "mark full", d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` }),
	};
	g.append((shapes[kind] || shapes.break)());
	return g;
}
function legend(id, entries) {
	for (const [mark, text] of entries) {
		const span = element("span", text);
		if (typeof mark === "string") {
			const i = element("i");
			i.style.background = "var(--" + mark + ")";
			span.prepend(i);
		} else {
			const svg = drawn("svg", { viewBox: "0 0 14 14", "aria-hidden": true });
			svg.append(mark);
			span.prepend(svg);
		}
		$(id).append(span);
	}
}
function faultText(f) {
	const lines = [f.kind + " at " + time(f.at / 1000)];
	if (f.process >= 0) lines[0] += ", process " + f.process + (f.pid ? " (pid " + f.pid + ")" : "");
	if (kindOf[f.kind]?.what) lines.push(kindOf[f.kind].what);
	if (f.until - f.at > 5e6) lines.push("took " + time((f.until - f.at) / 1000));
	if (f.recovery) lines.push("next write after " + time(f.recovery / 1000));
	if (f.gap) lines.push("longest without a write: " + time(f.gap / 1000));
	if (f.note) lines.push(f.note);
	return lines.join("\n");
}

function head() {
	const broken = verdicts.filter(v => (v.violations || []).length), open = verdicts.filter(v => v.undecided);
	const [word, kind] = broken.length ? ["✗ " + many(broken.length, "promise") + " broken", "bad"] :
		open.length ? ["? held, as far as it could be judged", "maybe"] : ["✓ all promises held", "ok"];
	$("badge").textContent = word;
	$("badge").classList.add(kind);
	$("about").textContent = ["pebbleparty chaos", "seed " + report.seed, new Date(report.started).toLocaleString(), report.system].join(" · ");
	$("headline").textContent = many(report.processes, "process", "processes") + ", one database, " + many(faults.length, "fault");
	$("story").textContent = "For " + time(end) + " they read and wrote together while a plan killed, stopped and disturbed them. " +
		"The database went on from leader to leader; what every call was told was recorded, and checked afterwards" +
		(broken.length ? ": " + broken.map(v => v.name).join(", ") + " found what must not be." : ".");
	for (const [n, what] of [
		[number(report.calls), "calls recorded"], [number(report.writes), "writes succeeded"], [number(report.kills), "processes killed"],
		[number(report.leaders), "terms of leaders"], [time(report.longestGap / 1000), "longest without a write"],
		[failoverTimes.length ? time(quantile(failoverTimes, 0.5) / 1000) : "–", "to go on after a leader, median"],
		[number(report.unanswered), "calls died with their process"],
	]) {
		const div = element("div");
		div.append(element("b", n), element("span", what));
		$("numbers").append(div);
	}
	$("foot").textContent = "The seed fixes which faults are done and when, not how processes and disks interleave." +
		(report.dir ? " Database and records are kept in " + report.dir + "." : "");
}
function verdictRows() {
	row($("verdicts"), "th", [["check"], ["verdict"], ["what was looked at"]]);
	const weight = v => (v.violations || []).length ? 0 : v.undecided ? 1 : 2;
	for (const v of [...verdicts].sort((a, b) => weight(a) - weight(b))) {
		const bad = (v.violations || []).length > 0;
		const what = element("div", [bad ? "" : v.detail, v.undecided].filter(Boolean).join(" — "));
		if (bad) {
			const ul = element("ul");
			for (const text of v.violations) ul.append(element("li", text));
			what.append(ul);
		}
		if (v.link) what.append(picture(v.link));
		row($("verdicts"), "td", [[v.name, "name"], [element("span", bad ? "✗ violated" : v.undecided ? "? undecided" : "✓ held", "badge " + (bad ? "bad" : v.undecided ? "maybe" : "ok"))], [what]]);
	}
}
// picture shows what a check attached, and links the file of it.
function picture(name) {
	const div = element("div"), a = element("a", "open it by itself");
	a.href = prefix + name;
	if (pictures[name]) {
		const button = element("button", "Show the picture of it");
		button.addEventListener("click", () => {
			const frame = element("iframe");
			frame.title = name;
			frame.setAttribute("sandbox", "allow-scripts");
			button.replaceWith(frame);
			// The picture measures its texts as it loads, for which the frame must have a size.
			requestAnimationFrame(() => requestAnimationFrame(() => { frame.srcdoc = pictures[name]; }));
		});
		div.append(button, " ");
	}
	div.append(a);
	return div;
}
function costRows() {
	// A logarithmic scale for all rows, in percent of the cell.
	const all = faults.map(f => f.recovery / 1000).filter(us => us > 0);
	const low = Math.floor(Math.log10(Math.min(...all, 1e4))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all, 1e3))));
	const at = us => 5 + 90 * (Math.log10(us) - low) / (high - low) + "%";
	const decades = Array.from({ length: high - low + 1 }, (_, i) => Math.pow(10, low + i));
	const axis = drawn("svg", { width: "100%", height: 18, "aria-hidden": true });
	for (const us of decades) axis.append(drawn("text", { x: at(us), y: 13, "text-anchor": "middle", "font-size": 12, fill: "currentColor" }, time(us)));
	row($("availability"), "th", [["fault"], ["times", "n"], [axis, "strip"], ["next write, median", "n"], ["longest without a write", "n"]]);
	for (const a of costs) {
		const name = element("span", a.kind), svg = drawn("svg", { width: "100%", class: a.class, "aria-hidden": true });
		if (a.what) name.append(element("small", a.what));
		for (const us of decades) svg.append(drawn("line", { x1: at(us), x2: at(us), y1: -8, y2: 40, stroke: "var(--line)" }));
		faults.filter(f => f.kind === a.kind && f.recovery).forEach((f, i) => {
			const dot = drawn("circle", { class: "dot", cx: at(f.recovery / 1000), cy: 14 + (i * 5 % 9 - 4) * 1.8, r: 3.5 });
			dot.tell = () => faultText(f);
			svg.append(dot);
		});
		const r = a.recovery || [], median = r.length ? quantile(r, 0.5) / 1000 : 0;
		if (median) svg.append(drawn("line", { x1: at(median), x2: at(median), y1: 3, y2: 25, stroke: "var(--text)", "stroke-width": 2 }));
		row($("availability"), "td", [[name, "name"], [number(a.count), "n"], [svg, "strip"], [median ? time(median) : "–", "n"], [a.longest ? time(a.longest / 1000) : "–", "n"]]);
	}
}

head();
verdictRows();
costRows();
legend("states", [["leading", "leads"], ["following", "follows"], ["electing", "looks for a leader"], ["starting", "starts"], ["stopped", "stopped"], ["dead", "dead"], ["gap", "no write succeeded"]]);
legend("classes", [["kill", "killed"], ["stop", "stopped and continued"], ["leave", "leaves or hands over"], ["break", "files, disk, clock"]]
	.filter(([kind]) => costs.some(a => a.class === kind)).map(([kind, text]) => [markOf(kind, 7, 7), text]));
legend("rateLegend", [["write", "writes"], ["read", "reads"]]);
legend("scatterLegend", [["write", "write"], ["read", "read"], ["kill", "no answer: its process was killed (along the top)"]]);
$("sampled").textContent = "By the time of its begin, on a logarithmic scale. " + (calls.start.length < calls.of ?
	number(calls.start.length) + " of " + number(calls.of) + " calls are drawn: every one of the slowest, and a part of the others." : "All " + number(calls.of) + " calls are drawn.");
$("failoversAbout").textContent = failoverTimes.length ? "After the " + many(failoverTimes.length, "fault") + " that another leader followed: the time from the fault to the end of the first write that was begun later, in any process." : "No leader was lost.";
