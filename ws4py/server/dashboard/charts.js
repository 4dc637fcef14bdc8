// Line charts on a canvas, with their legend, a cursor for the pointer and the arrow keys, and a table of the same figures.

const GUTTER = 52;
const FOOT = 16;
const TOP = 7;
const RIGHT = 6;
const DASHES = { one: [], two: [6, 3], three: [2, 3] };
const ROWS = 30;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1e6) return short.format(value / 1e6) + " M";
  if (Math.abs(value) >= 1e5) return short.format(value / 1e3) + " k";
  return value !== 0 && Math.abs(value) < 10 && value % 1 !== 0 ? short.format(value) : whole.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return short.format(value / size) + " " + unit;
  }
  return whole.format(value) + " B";
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return whole.format(value * 1e6) + " µs";
  if (value < 1) return (value < 0.01 ? short : whole).format(value * 1e3) + " ms";
  return short.format(value) + " s";
}

// A time at which nobody looks for milliseconds.
export function duration(value) {
  if (value < 60) return whole.format(Math.floor(value)) + " s";
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => value >= size);
  const [big, small] = [units[first], units[first + 1]];
  const rest = Math.floor((value % big[0]) / small[0]);
  return `${Math.floor(value / big[0])} ${big[1]}` + (rest ? ` ${rest} ${small[1]}` : "");
}

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export { element };

function swatch(tone) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("viewBox", "0 0 18 8");
  for (const [key, value] of Object.entries({
    x1: 1, x2: 17, y1: 4, y2: 4, stroke: "currentColor", "stroke-width": 2.5, "stroke-dasharray": DASHES[tone].join(" "),
  })) line.setAttribute(key, value);
  svg.append(line);
  svg.classList.add(tone);
  return svg;
}

function niceTop(value, binary) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 1.5, 2, 3, 4, 5, 6, 8, 10]) {
    const top = factor * power;
    if (top >= value && (!binary || top >= 4)) return top;
  }
  return 10 * power;
}

const clock = (time) => new Date(time * 1000).toLocaleTimeString();

export class Chart {
  // series: [{name, tone, of: (sample) => number or null}]; options.log draws a logarithmic scale of seconds.
  constructor(parent, title, unit, series, format, options = {}) {
    this.title = title;
    this.series = series;
    this.format = format;
    this.options = options;
    this.samples = [];
    this.cursor = null;
    this.span = 300;
    this.canvas = element("canvas", { role: "img", tabindex: "0" });
    this.values = series.map(() => element("b", {}, "–"));
    const legend = element("ul", {}, ...series.map(
      (item, index) => element("li", {}, swatch(item.tone), `${item.name} `, this.values[index])));
    this.when = element("li", { class: "when", hidden: "" });
    legend.append(this.when);
    this.body = element("tbody");
    const head = element("tr", {}, element("th", { scope: "col" }, "Time"),
      ...series.map((item) => element("th", { scope: "col", class: "number" }, item.name)));
    const region = element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `${title}, as a table` },
      element("table", {}, element("caption", { class: "hidden" }, `${title}, the newest first`),
        element("thead", {}, head), this.body));
    this.details = element("details", {}, element("summary", {}, "As a table"), region);
    this.details.addEventListener("toggle", () => this.fill());
    const note = unit ? [" ", element("small", {}, unit)] : [];
    parent.append(element("figure", { class: "chart" },
      element("figcaption", {}, title, ...note), legend, this.canvas, this.details));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.point(this.newest() - (1 - (event.clientX - box.left - GUTTER) / (box.width - GUTTER - RIGHT)) * this.span);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("keydown", (event) => {
      const last = this.samples.length - 1;
      if (last < 0) return;
      const at = this.cursor === null ? last + 1 : this.nearest(this.cursor);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, PageUp: at - 10, PageDown: at + 10 }[event.key];
      if (event.key === "Escape") this.point(null);
      if (to === undefined) return;
      event.preventDefault();
      this.point(this.samples[Math.max(0, Math.min(last, to))].time);
      this.describe();
    });
  }

  newest() {
    return this.samples.length ? this.samples[this.samples.length - 1].time : 0;
  }

  nearest(time) {
    let best = 0;
    this.samples.forEach((sample, index) => {
      if (Math.abs(sample.time - time) < Math.abs(this.samples[best].time - time)) best = index;
    });
    return best;
  }

  point(time) {
    this.cursor = time === null || !this.samples.length ? null : time;
    this.draw();
  }

  show(samples, span) {
    this.samples = samples;
    this.span = span;
    this.draw();
    this.describe();
    this.fill();
  }

  // What a screen reader says of the picture; only changed where it can be heard, so that it does not chatter.
  describe() {
    const sample = this.cursor === null ? this.samples[this.samples.length - 1] : this.samples[this.nearest(this.cursor)];
    if (!sample) return;
    const parts = this.series.map((item) => {
      const known = this.samples.map(item.of).filter((value) => value !== null);
      const range = known.length && this.cursor === null
        ? `, from ${this.format(Math.min(...known))} to ${this.format(Math.max(...known))}` : "";
      return `${item.name} ${this.format(item.of(sample))}${range}`;
    });
    const when = this.cursor === null ? "now" : `at ${clock(sample.time)}`;
    this.canvas.setAttribute("aria-label", `Chart: ${this.title}, ${when}: ${parts.join("; ")}. Arrow keys move a cursor.`);
  }

  fill() {
    if (!this.details.open) return;
    const rows = this.samples.slice(-ROWS).reverse().map((sample) => element("tr", {},
      element("th", { scope: "row" }, clock(sample.time)),
      ...this.series.map((item) => element("td", { class: "number" }, this.format(item.of(sample))))));
    this.body.replaceChildren(...rows);
  }

  scale(height) {
    const known = this.samples.flatMap((sample) => this.series.map((item) => item.of(sample))).filter((v) => v !== null);
    const most = known.length ? Math.max(...known) : 0;
    if (!this.options.log) {
      const top = niceTop(Math.max(most, this.options.least || 0), this.options.whole);
      return {
        ticks: [0, top / 2, top].filter((tick) => !this.options.whole || tick % 1 === 0),
        y: (value) => TOP + (1 - value / top) * height,
      };
    }
    const low = known.length ? Math.max(1e-6, Math.min(...known.filter((value) => value > 0), most || 1)) : 1e-4;
    let from = Math.floor(Math.log10(low));
    const to = Math.max(from + 2, Math.ceil(Math.log10(Math.max(most, 1e-6))));
    from = Math.min(from, to - 2);
    const ticks = [];
    const step = to - from > 4 ? 2 : 1;
    for (let power = from; power <= to; power += step) ticks.push(10 ** power);
    return {
      ticks,
      y: (value) => TOP + (1 - (Math.log10(Math.max(value, 10 ** from)) - from) / (to - from)) * height,
    };
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const inner = height - TOP - FOOT;
    const { ticks, y } = this.scale(inner);
    const end = this.newest();
    const x = (time) => GUTTER + (1 - (end - time) / this.span) * (width - GUTTER - RIGHT);

    pen.lineWidth = 1;
    for (const tick of ticks) {
      const level = Math.round(y(tick)) + 0.5;
      pen.strokeStyle = colour(tick === ticks[0] ? "line" : "grid");
      pen.beginPath();
      pen.moveTo(GUTTER, level);
      pen.lineTo(width - RIGHT, level);
      pen.stroke();
      pen.fillStyle = colour("muted");
      pen.textAlign = "right";
      pen.fillText(this.format(tick), GUTTER - 7, level);
    }
    pen.textAlign = "left";
    pen.fillText(`${duration(this.span)} ago`, GUTTER, height - 6);
    pen.textAlign = "right";
    pen.fillText("now", width - RIGHT, height - 6);
    const marks = this.cursor === null ? this.samples.length - 1 : this.nearest(this.cursor);
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, 0, width - GUTTER, height);
    pen.clip();
    this.series.forEach((item, index) => this.line(pen, item, index, x, y, inner, colour));
    if (this.cursor !== null) {
      pen.strokeStyle = colour("edge");
      pen.setLineDash([]);
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(Math.round(x(this.samples[marks].time)) + 0.5, TOP);
      pen.lineTo(Math.round(x(this.samples[marks].time)) + 0.5, TOP + inner);
      pen.stroke();
    }
    if (marks >= 0) {
      const sample = this.samples[marks];
      this.series.forEach((item, index) => {
        const value = item.of(sample);
        this.values[index].textContent = this.format(value);
        if (value === null) return;
        pen.fillStyle = colour(item.tone);
        pen.beginPath();
        pen.arc(x(sample.time), y(value), 2.6, 0, 2 * Math.PI);
        pen.fill();
      });
      this.when.hidden = this.cursor === null;
      if (this.cursor !== null) this.when.textContent = clock(sample.time);
    }
    pen.restore();
  }

  line(pen, item, index, x, y, inner, colour) {
    const paths = [];
    let before = null;
    for (const sample of this.samples) {
      const value = item.of(sample);
      if (value === null) {
        before = null;
        continue;
      }
      if (before === null || sample.time - before > 5 * Math.max(1, sample.interval)) paths.push([]);
      paths[paths.length - 1].push([x(sample.time), y(value)]);
      before = sample.time;
    }
    pen.lineJoin = "round";
    for (const path of paths) {
      pen.beginPath();
      path.forEach(([left, top], at) => (at ? pen.lineTo(left, top) : pen.moveTo(left, top)));
      pen.strokeStyle = colour(item.tone);
      pen.lineWidth = 1.75;
      pen.setLineDash(DASHES[item.tone]);
      pen.stroke();
      pen.setLineDash([]);
      if (index === 0 && !this.options.log) {
        pen.lineTo(path[path.length - 1][0], TOP + inner);
        pen.lineTo(path[0][0], TOP + inner);
        pen.closePath();
        pen.globalAlpha = 0.1;
        pen.fillStyle = colour(item.tone);
        pen.fill();
        pen.globalAlpha = 1;
      }
    }
  }
}
