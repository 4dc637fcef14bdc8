// The dashboard: takes figures from a websocket, or asks for them if there is none, and shows them.

import { Chart, bytes, count, duration, element, seconds } from "./charts.js";

const LONGEST = 900; // seconds of history
const SHORTEST = 60; // seconds on a chart
const PERCENTILE_SPAN = 10; // seconds that a percentile looks back on
const RETRIES = 2; // of the websocket, before it is polled
const RETRY_AFTER = 30000;

const CODES = {
  1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1005: "no code given",
  1006: "lost without a Close", 1007: "invalid data", 1008: "policy violation", 1009: "message too big",
  1010: "extension missing", 1011: "error of the server", 1012: "service restart", 1013: "try again later",
  1014: "bad gateway", "3xxx": "of libraries", "4xxx": "of applications",
};
const STATUSES = {
  400: "bad handshake", 401: "not authorised", 403: "origin or rights", 404: "not found", 405: "not a GET",
  426: "other version", 429: "too many from one address", 500: "error of the server", 501: "server without websockets",
  503: "full, or stopping",
};
const LIMITS = await fetch("limits.json").then((answer) => (answer.ok ? answer.json() : {})).catch(() => ({}));

const $ = (id) => document.getElementById(id);
const samples = [];
let span = 300;
let latest = null;

// --- figures from snapshots ---------------------------------------------------------------------------------------------

const data = (messages) => messages.text + messages.binary;

function difference(before, after) {
  const buckets = after.buckets.map((number, index) => number - before.buckets[index]);
  return buckets.some((number) => number < 0) ? null : buckets;
}

function quantile(bounds, buckets, fraction) {
  const total = buckets.reduce((sum, number) => sum + number, 0);
  if (!total) return null;
  const rank = fraction * total;
  let below = 0;
  for (let index = 0; index < bounds.length; index += 1) {
    const number = buckets[index];
    if (number && below + number >= rank) {
      const lower = index ? bounds[index - 1] : 0;
      return lower + ((bounds[index] - lower) * Math.max(0, rank - below)) / number;
    }
    below += number;
  }
  return bounds[bounds.length - 1];
}

function percentiles(histogram, name, now, own) {
  // Of what came in the last seconds; if that is nothing, of what came since the sample before.
  let old = null;
  for (let index = samples.length - 1; index >= 0; index -= 1) {
    old = samples[index].raw[name];
    if (now - samples[index].time >= own) break;
  }
  const buckets = old && difference(old, histogram);
  const of = (fraction) => (buckets ? quantile(histogram.bounds, buckets, fraction) : null);
  return { p50: of(0.5), p90: of(0.9), p99: of(0.99) };
}

function digest(stats, interval) {
  const before = samples[samples.length - 1];
  const elapsed = before ? stats.time - before.time : 0;
  const raw = {
    received: data(stats.received.messages), sent: data(stats.sent.messages),
    bytesIn: stats.received.bytes, bytesOut: stats.sent.bytes,
    wait: stats.workers.queue_wait, handler: stats.workers.handler_time, trip: stats.round_trip, lag: stats.loop_lag,
    closed: stats.connections.closed, refused: stats.connections.refused, limits: stats.limits,
    opened: stats.connections.opened, ended: Object.values(stats.connections.closed).reduce((a, b) => a + b, 0),
  };
  const rate = (name) => {
    const change = before && elapsed > 0 ? raw[name] - before.raw[name] : -1;
    return change < 0 ? null : change / elapsed;
  };
  return {
    time: stats.time, interval, raw,
    open: stats.connections.open,
    received: rate("received"), sent: rate("sent"), bytesIn: rate("bytesIn"), bytesOut: rate("bytesOut"),
    opened: rate("opened"), ended: rate("ended"),
    busy: stats.workers.busy, size: stats.workers.size, waiting: stats.workers.waiting,
    wait: percentiles(stats.workers.queue_wait, "wait", stats.time, PERCENTILE_SPAN),
    handler: percentiles(stats.workers.handler_time, "handler", stats.time, PERCENTILE_SPAN),
    trip: percentiles(stats.round_trip, "trip", stats.time, 6 * PERCENTILE_SPAN),
    lag: percentiles(stats.loop_lag, "lag", stats.time, PERCENTILE_SPAN),
    outbox: stats.outbox.bytes, inbox: stats.inbox.messages,
  };
}

// --- the charts ---------------------------------------------------------------------------------------------------------

const box = $("charts");
const times = (name) => [
  { name: "median", tone: "one", of: (sample) => sample[name].p50 },
  { name: "90 %", tone: "two", of: (sample) => sample[name].p90 },
  { name: "99 %", tone: "three", of: (sample) => sample[name].p99 },
];
const value = (name, label, tone) => ({ name: label, tone, of: (sample) => sample[name] });
const charts = [
  new Chart(box, "Connections", "", [value("open", "open", "one")], count, { whole: true }),
  new Chart(box, "Messages", "a second", [value("received", "in", "one"), value("sent", "out", "two")], count),
  new Chart(box, "Bytes", "a second", [value("bytesIn", "in", "one"), value("bytesOut", "out", "two")], bytes, { least: 10 }),
  new Chart(box, "Worker pool", "", [value("busy", "busy", "one"), value("size", "workers", "two"),
    value("waiting", "connections waiting", "three")], count, { whole: true }),
  new Chart(box, "Queue wait", "until a worker is there", times("wait"), seconds, { log: true }),
  new Chart(box, "Handler time", "of a turn", times("handler"), seconds, { log: true }),
  new Chart(box, "Round trip", "from Ping to Pong", times("trip"), seconds, { log: true }),
  new Chart(box, "Coming and going", "a second", [value("opened", "opened", "one"), value("ended", "closed", "two")], count),
];

// --- the tiles ----------------------------------------------------------------------------------------------------------

const tiles = {};
for (const [key, title] of [
  ["open", "Connections"], ["rate", "Messages a second"], ["bytes", "Bytes a second"], ["workers", "Workers busy"],
  ["wait", "Queue wait, 99 %"], ["outbox", "Outboxes"], ["lag", "Loop lag, 99 %"], ["errors", "Handler errors"],
]) {
  tiles[key] = { value: element("dd", { class: "value" }, "–"), more: element("dd", { class: "more" }) };
  $("tiles").append(element("div", {}, element("dt", {}, title), tiles[key].value, tiles[key].more));
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tile(key, text, more, bad = false) {
  write(tiles[key].value, text);
  write(tiles[key].more, more);
  tiles[key].more.classList.toggle("bad", bad);
}

function showTiles(stats, sample) {
  const { connections, workers, outbox, inbox, compression } = stats;
  const both = (first, second) => (first === null || second === null ? null : first + second);
  tile("open", count(connections.open), `up ${duration(stats.uptime)}`);
  tile("rate", count(both(sample.received, sample.sent)), `${count(sample.received)} in, ${count(sample.sent)} out`);
  const wire = compression.sent_after + compression.received_before;
  const ratio = wire ? (compression.sent_before + compression.received_after) / wire : null;
  tile("bytes", bytes(both(sample.bytesIn, sample.bytesOut)),
    ratio === null ? "not compressed" : `compressed ${ratio.toFixed(1)} : 1`);
  const limit = workers.limit ? ` of ${count(workers.limit)}` : "";
  const full = workers.limit > 0 && workers.busy >= workers.limit && workers.waiting > 0;
  tile("workers", `${count(workers.busy)}${limit}`, full ? `all busy, ${count(workers.waiting)} waiting`
    : `${count(workers.idle)} idle, ${count(workers.waiting)} waiting`, full);
  tile("wait", seconds(sample.wait.p99), `median ${seconds(sample.wait.p50)}`);
  tile("outbox", bytes(outbox.bytes), inbox.messages ? `${count(inbox.messages)} messages in inboxes`
    : `largest ${bytes(outbox.largest_bytes)}`);
  tile("lag", seconds(sample.lag.p99), "how late timers ran");
  const refused = Object.values(connections.refused).reduce((a, b) => a + b, 0);
  tile("errors", count(workers.errors), refused ? `${count(refused)} handshakes refused` : "no handshake refused");
}

// --- the tables ---------------------------------------------------------------------------------------------------------

function showBars(id, counts, meanings) {
  const body = $(id);
  const first = samples.find((sample) => sample.time >= latest.time - span) || samples[0];
  const rows = Object.entries(counts).filter(([, number]) => number).sort((a, b) => b[1] - a[1]);
  const most = rows.length ? rows[0][1] : 1;
  body.parentElement.hidden = !rows.length;
  $(`${id}-empty`).hidden = rows.length > 0;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach(([name, number], index) => {
    const row = body.rows[index] || body.appendChild(element("tr", {}, element("th", { scope: "row" }),
      element("td", {}, element("i", { "aria-hidden": "true" }), element("span")),
      element("td", { class: "number" }), element("td", { class: "number" })));
    const recent = number - (first.raw[id][name] || 0);
    write(row.cells[0], name.replaceAll("_", "_\u200b")); // where it may break, if it must
    write(row.cells[1].lastChild, meanings[name] || "");
    row.cells[1].firstChild.style.width = `${(100 * number) / most}%`;
    write(row.cells[2], count(number));
    write(row.cells[3], recent > 0 ? `+${count(recent)}` : "–");
  });
}

const COLUMNS = [
  ["id", "Connection", (row) => `#${row.process ? `${row.process}/` : ""}${row.id}${row.closing ? ", closing" : ""}`],
  ["text", "Address", (row) => row.address || "–"],
  ["path", "Path", (row) => row.path || "–"],
  ["text", "Subprotocol", (row) => row.subprotocol || "–"],
  ["number", "Round trip", (row) => seconds(row.round_trip)],
  ["number", "Messages in", (row) => count(row.messages_received)],
  ["number", "Messages out", (row) => count(row.messages_sent)],
  ["number", "Bytes in", (row) => bytes(row.bytes_received)],
  ["number", "Bytes out", (row) => bytes(row.bytes_sent)],
  ["number", "Inbox", (row) => count(row.inbox_messages)],
  ["number", "Outbox", (row) => bytes(row.outbox_bytes)],
  ["number", "Idle", (row) => duration(row.idle)],
  ["number", "Age", (row) => duration(row.age)],
];

for (const id of ["slowest", "busiest"]) {
  const head = element("tr", {}, ...COLUMNS.map(([kind, title]) => element("th", { scope: "col", class: kind }, title)));
  $(id).append(element("thead", {}, head), element("tbody"));
}

function showConnections(id, rows) {
  const body = $(id).tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((item, index) => {
    const row = body.rows[index] || body.appendChild(element("tr", {}, ...COLUMNS.map(
      ([kind], at) => (at ? element("td", { class: kind }) : element("th", { scope: "row" })))));
    COLUMNS.forEach(([kind, , text], at) => {
      write(row.cells[at], text(item));
      if (kind === "path") row.cells[at].title = item.path;
    });
  });
}

// --- all of it ----------------------------------------------------------------------------------------------------------

function take(figures) {
  const { stats } = figures;
  if (latest && stats.time <= latest.time) return;
  if (latest && stats.connections.opened < latest.connections.opened) samples.length = 0; // it has been restarted
  latest = stats;
  samples.push(digest(stats, figures.interval));
  while (samples[0].time < stats.time - LONGEST) samples.shift();
  show();
  $("tables").hidden = !figures.slowest;
  for (const id of ["slowest", "busiest"]) if (figures[id]) showConnections(id, figures[id]);
  document.body.dataset.samples = samples.length;
}

function show() {
  if (!latest) return;
  const visible = samples.filter((sample) => sample.time >= latest.time - span);
  const covered = Math.max(SHORTEST, Math.min(span, 60 * Math.ceil((latest.time - samples[0].time) / 60)));
  for (const chart of charts) chart.show(visible, covered);
  showTiles(latest, samples[samples.length - 1]);
  showBars("closed", latest.connections.closed, CODES);
  showBars("refused", latest.connections.refused, STATUSES);
  showBars("limits", latest.limits, LIMITS);
}

// --- where the figures come from ----------------------------------------------------------------------------------------

let socket = null;
let poll = null;
let retry = null;
let failures = 0;
let paused = false;

function say(state, text) {
  $("link").dataset.state = state;
  write($("link").lastElementChild, text);
}

const keys = () => ({ slowest: $("slowest-by").value, busiest: $("busiest-by").value });

function connect() {
  clearTimeout(retry);
  const url = new URL("feed", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  const mine = new WebSocket(url);
  let shown = false;
  socket = mine;
  mine.onopen = () => mine.send(JSON.stringify(keys()));
  mine.onmessage = (event) => {
    if (socket !== mine) return;
    stopPolling();
    failures = 0;
    if (!shown) say("live", "Live");
    shown = true;
    take(JSON.parse(event.data));
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    socket = null;
    failures += 1;
    if (failures >= RETRIES) startPolling();
    else say("lost", "Connecting again…");
    retry = setTimeout(connect, failures >= RETRIES ? RETRY_AFTER : 1000);
  };
}

function startPolling() {
  if (poll === null) ask();
}

function stopPolling() {
  clearTimeout(poll);
  poll = null;
}

async function ask() {
  poll = 0;
  let pause = 1000;
  try {
    const answer = await fetch(`dashboard.json?${new URLSearchParams(keys())}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    const figures = await answer.json();
    if (poll === null || paused) return;
    pause = Math.max(1000, 1000 * figures.interval);
    say("polling", "Asking every " + duration(pause / 1000));
    take(figures);
  } catch (error) {
    if (poll === null || paused) return;
    say("lost", error instanceof TypeError ? "The server can't be reached" : `No figures: ${error.message}`);
    pause = 3000;
  }
  poll = setTimeout(ask, pause);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (paused) {
    const old = socket;
    socket = null;
    if (old) old.close();
    clearTimeout(retry);
    stopPolling();
    say("paused", "Paused");
  } else {
    say("waiting", "Connecting…");
    failures = 0;
    connect();
  }
});

$("span").addEventListener("change", () => {
  span = Number($("span").value);
  show();
});

for (const id of ["slowest-by", "busiest-by"]) {
  $(id).addEventListener("change", () => {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(keys()));
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
write($("host"), location.host + location.pathname.replace(/\/$/, ""));
write($("command"), `ws4py stats ${location.origin}${location.pathname} --watch`);
document.title = `WebSockets · ${location.host}`;
if (new URLSearchParams(location.search).has("poll")) startPolling();
else connect();
