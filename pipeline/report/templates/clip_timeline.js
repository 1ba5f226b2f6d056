"use strict";
// The timeline: lanes of people and curves on one time axis, drawn on canvas, only what is visible.

const LANE = 22, CURVE = 46, AXIS = 20, MISSING = 255;
const LINES = ["#3a8bcd", "#e07b39", "#2a9d7c", "#b0559f", "#8a7d00", "#666666"];

function clock(seconds) {
  const tenths = Math.round(10 * seconds), whole = Math.floor(tenths / 10), rest = String(whole % 60).padStart(2, "0");
  return `${Math.floor(whole / 60)}:${rest}.${tenths % 10}`;
}

function decoded(curve) {
  const text = atob(curve.points);
  return Uint8Array.from(text, character => character.charCodeAt(0));
}

class Timeline {
  // seek(seconds): what a click does; rowAt(index): an utterance as corrected.
  constructor(data, seek, rowAt) {
    this.data = data; this.seek = seek; this.rowAt = rowAt;
    this.canvas = document.getElementById("timeline"); this.overview = document.getElementById("overview");
    this.still = document.createElement("canvas"); this.stillOverview = document.createElement("canvas");
    this.span = Math.min(data.duration, 60); this.left = 0; this.position = 0; this.selected = -1;
    this.longest = data.rows.reduce((most, row) => Math.max(most, row.end - row.start), 0);
    this.tracks = this.makeTracks();
    this.listen();
    this.resize();
  }

  makeTracks() {
    const tracks = [];
    if (this.data.labels.length) tracks.push({ name: "probabilities", title: "Probabilities", draw: this.drawShares, shown: true });
    if (this.data.signs.includes(1) && this.data.signs.includes(-1))
      tracks.push({ name: "balance", title: "Pleasant minus unpleasant", draw: this.drawBalance, shown: true });
    if (this.data.rows.some(row => row.value !== null))
      tracks.push({ name: "value", title: "Value", draw: this.drawValues, shown: true });
    const named = new Map();
    for (const curve of this.data.curves) {
      if (!named.has(curve.name)) named.set(curve.name, { name: curve.name, title: curve.title, shown: curve.shown, lines: [], draw: ["level", "waveform"].includes(curve.name) ? this.drawEnvelope : this.drawLines });
      named.get(curve.name).lines.push({ ...curve, values: decoded(curve) });
    }
    return [...tracks, ...named.values()];
  }

  listen() {
    const timeAt = event => {
      const share = (event.offsetX - this.gutter) / (this.width - this.gutter);
      return this.left + Math.min(1, Math.max(0, share)) * this.span;
    };
    this.canvas.addEventListener("click", event => this.seek(timeAt(event)));
    this.canvas.addEventListener("mousemove", event => { this.canvas.title = this.textAt(timeAt(event)); });
    this.overview.addEventListener("click", event => {
      const seconds = event.offsetX / this.width * this.data.duration;
      this.show(seconds - this.span / 2);
      this.seek(seconds);
    });
    this.canvas.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      if (event.ctrlKey) this.zoom(event.deltaY > 0 ? 1.5 : 1 / 1.5, timeAt(event));
      else this.show(this.left + Math.sign(event.deltaY || event.deltaX) * this.span / 8);
    }, { passive: false });
    new ResizeObserver(() => this.resize()).observe(this.canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  textAt(seconds) {
    const texts = this.visible(seconds, seconds).map(index => this.rowAt(index)).map(row => `${clock(row.start)} ${row.speaker || ""} ${row.label || ""} ${row.text}`);
    return texts.length ? texts.join("\n") : clock(seconds);
  }

  zoom(factor, around = this.position) {
    const span = Math.min(this.data.duration, Math.max(2, this.span * factor));
    const share = Math.min(1, Math.max(0, (around - this.left) / this.span));
    this.span = span;
    this.show(around - share * span);
  }

  whole() { this.span = this.data.duration; this.show(0); }

  show(left) {
    this.left = Math.max(0, Math.min(left, this.data.duration - this.span));
    this.redraw();
  }

  // Moves the cursor; turns the page when it leaves the visible part.
  moveTo(seconds) {
    this.position = seconds;
    if (seconds < this.left || seconds > this.left + this.span) this.show(seconds - this.span * 0.1);
    else this.drawCursor();
  }

  resize() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    this.width = width; this.gutter = width < 520 ? 74 : 128;
    this.redraw();
  }

  redraw() {
    if (this.queued || !this.width) return;
    this.queued = requestAnimationFrame(() => { this.queued = 0; this.drawStill(); this.drawCursor(); });
  }

  sized(canvas, height) {
    const ratio = window.devicePixelRatio || 1, width = Math.round(this.width * ratio), tall = Math.round(height * ratio);
    if (canvas.width !== width || canvas.height !== tall) { canvas.width = width; canvas.height = tall; }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, height);
    return pen;
  }

  readColours() {
    const style = getComputedStyle(document.documentElement), read = name => style.getPropertyValue(name).trim();
    this.ink = read("--ink"); this.soft = read("--soft"); this.line = read("--line"); this.ground = read("--track"); this.link = read("--link"); this.paper = read("--paper");
  }

  drawStill() {
    this.readColours();
    const shown = this.tracks.filter(track => track.shown), lanes = Math.max(1, this.data.people.length);
    this.height = lanes * LANE + shown.length * CURVE + AXIS + 4;
    this.canvas.style.height = `${this.height}px`;
    const pen = this.sized(this.still, this.height);
    pen.font = "11px system-ui, sans-serif"; pen.textBaseline = "middle";
    const indices = this.visible(this.left, this.left + this.span);
    this.drawLanes(pen, indices, lanes);
    shown.forEach((track, number) => this.drawTrack(pen, track, lanes * LANE + number * CURVE + 4, indices));
    this.drawAxis(pen, this.height - AXIS);
    this.drawOverview();
  }

  // Indices of the utterances within [from, to]; they are in the order of their starts.
  visible(from, to) {
    const rows = this.data.rows, found = [];
    let low = 0, high = rows.length;
    while (low < high) { const middle = (low + high) >> 1; if (rows[middle].start < from - this.longest) low = middle + 1; else high = middle; }
    for (; low < rows.length && rows[low].start <= to; low++) if (rows[low].end >= from) found.push(low);
    return found;
  }

  x(seconds) { return this.gutter + (seconds - this.left) / this.span * (this.width - this.gutter); }

  clipped(pen, top, height, draw) {
    pen.save(); pen.beginPath(); pen.rect(this.gutter, top, this.width - this.gutter, height); pen.clip();
    draw(); pen.restore();
  }

  title(pen, text, middle) {
    pen.fillStyle = this.soft;
    const most = Math.floor(this.gutter / 6);
    const lines = text.length <= most ? [text] : this.broken(text, most);
    lines.forEach((line, number) => pen.fillText(line, 0, middle + (number - (lines.length - 1) / 2) * 12, this.gutter - 6));
  }

  broken(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines.length - 1, longer = `${lines[last]} ${word}`.trim();
      if (longer.length <= most || !lines[last]) lines[last] = longer; else lines.push(word);
    }
    return lines.slice(0, 3);
  }

  drawLanes(pen, indices, lanes) {
    pen.fillStyle = this.ground;
    for (let lane = 0; lane < lanes; lane++) pen.fillRect(this.gutter, lane * LANE + 2, this.width - this.gutter, LANE - 4);
    this.data.people.slice(0, lanes).forEach((name, lane) => this.title(pen, name.slice(0, 40), lane * LANE + LANE / 2));
    this.clipped(pen, 0, lanes * LANE, () => {
      for (const index of indices) this.drawUtterance(pen, index);
      pen.globalAlpha = 1;
    });
  }

  drawUtterance(pen, index) {
    const row = this.rowAt(index), lane = Math.max(0, this.data.people.indexOf(row.speaker)), left = this.x(row.start);
    const width = Math.max(1.5, this.x(row.end) - left - 0.5), top = lane * LANE + 2;
    pen.globalAlpha = row.hidden ? 0.15 : row.label ? 0.45 + 0.55 * (row.confidence || 0) : 1;
    pen.fillStyle = this.data.colours[row.label] || this.line;
    pen.fillRect(left, top, width, LANE - 4);
    pen.globalAlpha = 1;
    if (index !== this.selected) return;
    pen.strokeStyle = this.ink; pen.lineWidth = 2;
    pen.strokeRect(left + 1, top + 1, Math.max(1, width - 2), LANE - 6);
  }

  drawTrack(pen, track, top, indices) {
    pen.fillStyle = this.ground;
    pen.fillRect(this.gutter, top + 2, this.width - this.gutter, CURVE - 4);
    this.title(pen, track.title, top + CURVE / 2);
    this.clipped(pen, top, CURVE, () => track.draw.call(this, pen, track, top + 3, CURVE - 6, indices));
    pen.globalAlpha = 1;
  }

  drawShares(pen, track, top, height, indices) {
    for (const index of indices) {
      const row = this.data.rows[index], left = this.x(row.start), width = Math.max(1, this.x(row.end) - left - 0.5);
      let y = top + height;
      row.probabilities.forEach((share, number) => {
        pen.fillStyle = this.data.colours[this.data.labels[number]];
        pen.fillRect(left, y - share * height, width, share * height);
        y -= share * height;
      });
    }
  }

  drawBalance(pen, track, top, height, indices) {
    const balance = row => row.probabilities.reduce((sum, share, number) => sum + share * this.data.signs[number], 0);
    this.drawSteps(pen, top, height, indices, row => (row.probabilities.length ? balance(row) : null));
  }

  drawValues(pen, track, top, height, indices) {
    track.most = track.most || this.data.rows.reduce((most, row) => Math.max(most, Math.abs(row.value || 0)), 1e-6);
    this.drawSteps(pen, top, height, indices, row => (row.value === null ? null : row.value / track.most));
  }

  // Bars from the middle, up for positive numbers of -1..1.
  drawSteps(pen, top, height, indices, number) {
    const middle = top + height / 2;
    pen.fillStyle = this.line; pen.fillRect(this.gutter, middle - 0.5, this.width - this.gutter, 1);
    for (const index of indices) {
      const row = this.data.rows[index], amount = number(row);
      if (amount === null) continue;
      pen.fillStyle = amount >= 0 ? "#2f8f6b" : "#b4553f";
      const left = this.x(row.start), tall = Math.max(1, Math.abs(amount) * height / 2);
      pen.fillRect(left, amount >= 0 ? middle - tall : middle, Math.max(1, this.x(row.end) - left - 0.5), tall);
    }
  }

  range(line) {
    return [Math.max(0, Math.floor(this.left / line.step) - 1), Math.min(line.values.length, Math.ceil((this.left + this.span) / line.step) + 1)];
  }

  drawLines(pen, track, top, height) {
    for (const line of track.lines) {
      pen.strokeStyle = LINES[Math.max(0, this.data.people.indexOf(line.person)) % LINES.length];
      pen.lineWidth = 1.4; pen.beginPath();
      let open = false;
      const [from, to] = this.range(line);
      for (let place = from; place < to; place++) {
        const value = line.values[place];
        if (value === MISSING) { open = false; continue; }
        const x = this.x((place + 0.5) * line.step), y = top + height * (1 - value / 254);
        if (open) pen.lineTo(x, y); else { pen.moveTo(x - 1, y); pen.lineTo(x, y); }
        open = true;
      }
      pen.stroke();
    }
    this.drawLimits(pen, track.lines[0], top, height);
  }

  drawLimits(pen, line, top, height) {
    pen.fillStyle = this.soft; pen.textAlign = "right";
    const short = number => String(Math.abs(number) >= 10 ? Math.round(number) : Number(number.toFixed(2)));
    pen.fillText(short(line.high), this.width - 3, top + 6); pen.fillText(short(line.low), this.width - 3, top + height - 5);
    pen.textAlign = "left";
  }

  drawEnvelope(pen, track, top, height) {
    const line = track.lines[0], [from, to] = this.range(line), middle = top + height / 2;
    const together = Math.max(1, Math.floor(this.span / line.step / (this.width - this.gutter)));
    pen.fillStyle = this.soft;
    for (let place = from - from % together; place < to; place += together) {
      const most = line.values.subarray(place, place + together).reduce((most, value) => (value === MISSING ? most : Math.max(most, value)), -1);
      if (most < 0) continue;
      const tall = Math.max(1, most / 254 * height), left = this.x(place * line.step);
      pen.fillRect(left, middle - tall / 2, Math.max(1, this.x((place + together) * line.step) - left), tall);
    }
  }

  drawAxis(pen, top) {
    const room = (this.width - this.gutter) / 90, steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    const step = steps.find(one => this.span / one <= room) || this.span;
    pen.fillStyle = this.soft;
    for (let tick = Math.ceil(this.left / step) * step; tick <= this.left + this.span; tick += step) {
      const x = this.x(tick);
      pen.fillRect(x, top, 1, 4);
      if (x < this.width - 38) pen.fillText(clock(tick), x + 3, top + 9);
    }
  }

  drawOverview() {
    const height = 26, pen = this.sized(this.stillOverview, height), scale = this.width / this.data.duration;
    pen.fillStyle = this.ground; pen.fillRect(0, 4, this.width, height - 8);
    this.data.rows.forEach((_, index) => {
      const row = this.rowAt(index);
      pen.globalAlpha = row.hidden ? 0.15 : 1;
      pen.fillStyle = this.data.colours[row.label] || this.line;
      pen.fillRect(row.start * scale, 4, Math.max(1, (row.end - row.start) * scale), height - 8);
    });
    pen.globalAlpha = 1; pen.strokeStyle = this.ink; pen.lineWidth = 2;
    pen.strokeRect(this.left * scale + 1, 2, Math.max(3, this.span * scale - 2), height - 4);
  }

  drawCursor() {
    if (!this.height) return;
    this.blit(this.canvas, this.still, this.height, this.x(this.position));
    this.blit(this.overview, this.stillOverview, 26, this.position / this.data.duration * this.width);
  }

  blit(canvas, still, height, x) {
    const pen = this.sized(canvas, height);
    pen.drawImage(still, 0, 0, this.width, height);
    pen.fillStyle = this.link; pen.fillRect(x - 1, 0, 2, height);
  }
}
