const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#c76b9f", "#b58900", "#3a94cf", "#333333", "#7a3b12"]; // as in captioner/plots/projections.py
const DARK = ["#4aa8e8", "#f28b4b", "#33c79b", "#e39ac4", "#d9b437", "#9fd0f2", "#d8d0c7", "#cd9670"];
const GREY = { light: "#a39a8f", dark: "#7d746a" }; // of points without a group
const THUMBS = 80; // visible points from which on thumbnails are not drawn
const THUMB = 54; // largest side of a thumbnail, in CSS pixels
const KEPT_THUMBS = 400;
const MARGIN = 46; // around the points, in CSS pixels
const MAX_ZOOM = 2000;
const SPREAD = 0.014; // of the height: points are moved by up to this, so that equal ones do not hide each other
const EDGE = 16; // pixels around the buffer, so that points at its edge need no clipping
const canvas = $("points"), context = canvas.getContext("2d", { alpha: false, willReadFrequently: true }); // in main memory, where it is written
const calm = matchMedia("(prefers-reduced-motion: reduce)"), dark = matchMedia("(prefers-color-scheme: dark)");
let plot = null; // the answer of the service, with typed arrays
let frame = null; // functions from positions of the service to CSS pixels before zooming, and whether the axes are shares
let place = { x: new Float32Array(0), y: new Float32Array(0) }; // positions in CSS pixels before zooming
let before = null; // positions from which the points move, and when they started
let selected = new Uint8Array(0); // 1 for points that are selected
let order = new Int32Array(0); // of drawing
let seen = new Int32Array(0); // visible points, of which there are `count`
let count = 0;
let view = { zoom: 1, x: 0, y: 0 }; // a position is drawn at zoom * position + (x, y)
let current = -1; // the point under the pointer or of the keyboard; -1 for none
let lasso = null; // corners of the line that is drawn, in CSS pixels
let size = { width: 0, height: 0, ratio: 1 };
let buffer = null; // the image of all points, with an edge of EDGE pixels
let pixels = null; // the same as 32-bit numbers
let palette = null; // colours of the scheme
let stamps = new Map(); // points as pixels, by radius, group and whether they are dimmed
let scheduled = 0;
const thumbs = new Map(); // hits and small canvases by row

// ---- data and layout ---------------------------------------------------------------------------

/** Show the answer of the service; points of the same rows move to their new places. */
function showPlot(answer) {
  const same = plot && plot.index === answer.index && plot.version === answer.version && plot.row.length === answer.row.length;
  before = same && !calm.matches ? { x: place.x, y: place.y, start: performance.now() } : null;
  if (!same) {
    thumbs.clear();
    selected = new Uint8Array(answer.row.length);
  }
  plot = { ...answer, row: Int32Array.from(answer.row), x: Float32Array.from(answer.x), y: Float32Array.from(answer.y), group: Int8Array.from(answer.group) };
  seen = new Int32Array(plot.row.length);
  current = -1;
  sort();
  arrange();
  fit();
}

/** Draw selected points last, and points without a group first. */
function sort() {
  const ranks = [[], [], [], []];
  for (let i = 0; i < plot.row.length; i++) ranks[2 * selected[i] + (plot.group[i] >= 0)].push(i);
  order = Int32Array.from(ranks.flat());
}

/** Fit the canvas to its box, and compute the places of the points in it. */
function arrange() {
  const box = canvas.getBoundingClientRect(), ratio = Math.min(2, devicePixelRatio);
  size = { width: box.width, height: box.height, ratio };
  [canvas.width, canvas.height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
  buffer = new ImageData(canvas.width + 2 * EDGE, canvas.height + 2 * EDGE);
  pixels = new Uint32Array(buffer.data.buffer);
  if (!plot) return;
  frame = frameOf(plot);
  place = { x: plot.x.map(frame.x), y: plot.y.map(frame.y) };
  if (frame.isShare || plot.anchors) spread();
  request();
}

/** Move every point a little, by its row, within a disc. */
function spread() {
  for (let i = 0; i < plot.row.length; i++) {
    const turn = 2.399963 * plot.row[i], distance = SPREAD * size.height * Math.sqrt(plot.row[i] * 0.618034 % 1); // the golden angle and ratio
    place.x[i] += distance * Math.cos(turn);
    place.y[i] += distance * Math.sin(turn);
  }
}

/** Return functions from positions of the service to CSS pixels. */
function frameOf({ x, y, axes, anchors }) {
  const free = [size.width - 2 * MARGIN, size.height - 2 * MARGIN];
  const isShare = axes !== null && !axes[0].includes("principal component");
  const range = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
  let [across, up] = isShare ? [[0, 1], [0, 1]] : anchors ? [[-1, 1], [-1, 1]] : [range(x), range(y)];
  if (!isShare) { // one scale for both axes
    const step = Math.max((across[1] - across[0]) / free[0], (up[1] - up[0]) / free[1], 1e-9);
    const widen = ([low, high], length) => [(low + high - step * length) / 2, (low + high + step * length) / 2];
    [across, up] = [widen(across, free[0]), widen(up, free[1])];
  }
  return {
    isShare,
    x: (value) => MARGIN + (value - across[0]) / (across[1] - across[0]) * free[0],
    y: (value) => size.height - MARGIN - (value - up[0]) / (up[1] - up[0]) * free[1],
  };
}

/** Return an opaque colour as a number in the order of the buffer. */
const packed = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;

function readPalette() {
  const style = getComputedStyle(document.documentElement), scheme = dark.matches ? "dark" : "light";
  const read = (name) => style.getPropertyValue(name).trim();
  palette = { groups: dark.matches ? DARK : LIGHT, grey: GREY[scheme], panel: read("--panel"), ink: read("--ink"), quiet: read("--quiet"), line: read("--line"), accent: read("--accent") };
  stamps = new Map();
}

const colorOf = (group) => group < 0 ? (plot.labels.length ? palette.grey : palette.accent) : palette.groups[group % palette.groups.length];

// ---- drawing -----------------------------------------------------------------------------------

function request() {
  scheduled ||= requestAnimationFrame(draw);
}

/** Return the red, green and blue of a colour such as #fff or #a63a14. */
function channels(color) {
  const digits = color.length === 4 ? [...color.slice(1)].map((digit) => digit + digit).join("") : color.slice(1);
  return [0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16));
}

const SHAPES = [ // whether a position is within a shape of radius 1
  (x, y) => x * x + y * y < 1,
  (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.86,
  (x, y) => Math.abs(x) + Math.abs(y) < 1.22,
  (x, y) => y < 0.72 && y > -1.1 && Math.abs(x) < (y + 1.1) * 0.6,
];
const shapeOf = (group) => group < 0 ? 0 : (group + Math.floor(group / LIGHT.length)) % SHAPES.length;

/** Return the pixels of a point with an edge in the colour of the ground: their distances in the buffer, and their colours. */
function stampOf(group, radius, dimmed) {
  const key = `${group} ${radius} ${dimmed}`;
  if (stamps.has(key)) return stamps.get(key);
  const [panel, color, inside] = [channels(palette.panel), channels(colorOf(group)), SHAPES[shapeOf(group)]];
  const reach = Math.min(EDGE - 1, Math.ceil(radius * 1.3 + size.ratio)), distances = [], colors = [];
  const covered = (x, y, r) => {
    let sum = 0;
    for (let i = 0; i < 16; i++) sum += inside((x + (i % 4 - 1.5) / 4) / r, (y + (Math.floor(i / 4) - 1.5) / 4) / r);
    return sum / 16;
  };
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      if (covered(x, y, radius + 0.8 * size.ratio) < 0.5) continue;
      const share = covered(x, y, radius) * (dimmed ? 0.25 : 1);
      const [r, g, b] = color.map((value, i) => Math.round(share * value + (1 - share) * panel[i]));
      distances.push(y * buffer.width + x);
      colors.push(packed([r, g, b]));
    }
  }
  const stamp = { distances: Int32Array.from(distances), colors: Uint32Array.from(colors) };
  stamps.set(key, stamp);
  return stamp;
}

/** Return how far the points have moved to their new places, from 0 to 1. */
function progress() {
  if (!before) return 1;
  const share = (performance.now() - before.start) / 450;
  if (share >= 1) before = null;
  return share >= 1 ? 1 : share * share * (3 - 2 * share);
}

/** Write all visible points into the buffer; each pixel is written as it is, which is faster than drawing. */
function stampPoints(share) {
  const { ratio } = size, { zoom } = view, [width, height, stride] = [canvas.width, canvas.height, buffer.width];
  const [x0, y0] = before ? [before.x, before.y] : [place.x, place.y], { x: x1, y: y1 } = place;
  const radius = Math.min(6, Math.max(1.9, 3.4 - 0.35 * Math.log2(plot.row.length / 300)) + 0.5 * Math.log2(zoom)) * ratio;
  const [sx, sy, ox, oy] = [zoom * ratio, zoom * ratio, view.x * ratio, view.y * ratio];
  const some = anySelected(), known = new Map();
  pixels.fill(packed(channels(palette.panel)));
  stampAxes();
  count = 0;
  for (let n = 0; n < order.length; n++) {
    const i = order[n];
    const px = Math.round((x0[i] + share * (x1[i] - x0[i])) * sx + ox), py = Math.round((y0[i] + share * (y1[i] - y0[i])) * sy + oy);
    if (px < 0 || py < 0 || px >= width || py >= height) continue;
    seen[count++] = i;
    const key = 2 * plot.group[i] + (some && !selected[i] ? 1 : 0);
    let stamp = known.get(key);
    if (!stamp) known.set(key, stamp = stampOf(plot.group[i], radius, key & 1));
    const { distances, colors } = stamp, start = (py + EDGE) * stride + px + EDGE;
    for (let k = 0; k < distances.length; k++) pixels[start + distances[k]] = colors[k];
  }
  context.putImageData(buffer, -EDGE, -EDGE);
}

/** Write lines at the quarters of both axes, or the circle of the anchors, into the buffer. */
function stampAxes() {
  const { x, y } = frame, { ratio } = size, color = packed(channels(palette.line)), stride = buffer.width;
  const across = (value) => Math.round((x(value) * view.zoom + view.x) * ratio), down = (value) => Math.round((y(value) * view.zoom + view.y) * ratio);
  const [left, right, top, bottom] = [Math.max(0, across(0)), Math.min(canvas.width, across(1) + 1), Math.max(0, down(1)), Math.min(canvas.height, down(0) + 1)];
  if (frame.isShare) {
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const [px, py] = [across(share), down(share)];
      if (py >= 0 && py < canvas.height && left < right) pixels.fill(color, (py + EDGE) * stride + left + EDGE, (py + EDGE) * stride + right + EDGE);
      if (px >= 0 && px < canvas.width) for (let row = top; row < bottom; row++) pixels[(row + EDGE) * stride + px + EDGE] = color;
    }
  } else if (plot.anchors) {
    const steps = Math.min(50_000, Math.ceil(7 * (across(1) - across(0))));
    for (let i = 0; i < steps; i++) {
      const px = across(Math.sin(2 * Math.PI * i / steps)), py = down(Math.cos(2 * Math.PI * i / steps));
      if (px >= 0 && px < canvas.width && py >= 0 && py < canvas.height) pixels[(py + EDGE) * stride + px + EDGE] = color;
    }
  }
}

function draw() {
  scheduled = 0;
  if (!plot) return;
  const share = progress();
  stampPoints(share);
  context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
  if (count <= THUMBS && !before) drawThumbs();
  drawAnchors();
  if (current >= 0) drawCurrent();
  if (lasso) drawLasso();
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (before) request();
}

const at = (i) => [place.x[i] * view.zoom + view.x, place.y[i] * view.zoom + view.y];

/** Write a text with an edge in the colour of the ground. */
function write(text, x, y, align) {
  context.font = "600 14px system-ui, sans-serif";
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = palette.panel;
  context.fillStyle = palette.ink;
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

function drawAnchors() {
  if (!plot.anchors) {
    if (!frame.isShare) return;
    write(`${plot.axes[0]} →`, size.width - 14, size.height - 18, "right");
    if (plot.axes[1] !== "random") write(`↑ ${plot.axes[1]}`, 14, 20, "left");
    return;
  }
  const { x, y } = frame;
  plot.anchors.forEach(([across, up], i) => {
    const align = across > 0.3 ? "left" : across < -0.3 ? "right" : "center";
    const [px, py] = [x(across) * view.zoom + view.x + 18 * Math.sign(Math.round(across * 3)), y(up) * view.zoom + view.y - 20 * up];
    const width = context.measureText(plot.labels[i]).width + 8;
    const low = align === "left" ? 6 : align === "right" ? width : width / 2, high = size.width - (align === "left" ? width : align === "right" ? 6 : width / 2);
    write(plot.labels[i], Math.max(low, Math.min(high, px)), py, align);
  });
}

function drawThumbs() {
  const missing = [];
  for (let n = 0; n < count; n++) {
    const i = seen[n], thumb = thumbs.get(plot.row[i]), [x, y] = at(i);
    if (!thumb) missing.push(plot.row[i]);
    if (!thumb?.picture) continue;
    const { width, height } = thumb.picture, [w, h] = [width / size.ratio, height / size.ratio];
    context.globalAlpha = anySelected() && !selected[i] ? 0.35 : 1;
    context.fillStyle = colorOf(plot.group[i]);
    context.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
    context.drawImage(thumb.picture, x - w / 2, y - h / 2, w, h);
    context.globalAlpha = 1;
  }
  if (missing.length) loadSoon(missing);
}

function drawCurrent() {
  const [x, y] = at(current), picture = count <= THUMBS ? thumbs.get(plot.row[current])?.picture : null;
  context.strokeStyle = palette.ink;
  context.lineWidth = 2.5;
  context.beginPath();
  if (picture) {
    const [w, h] = [picture.width / size.ratio, picture.height / size.ratio];
    context.drawImage(picture, x - w / 2, y - h / 2, w, h);
    context.rect(x - w / 2 - 3, y - h / 2 - 3, w + 6, h + 6);
  } else context.arc(x, y, 8, 0, 2 * Math.PI);
  context.stroke();
}

function drawLasso() {
  context.beginPath();
  lasso.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x, y));
  context.closePath();
  context.fillStyle = `${palette.accent}26`;
  context.fill();
  context.strokeStyle = palette.accent;
  context.lineWidth = 2;
  context.setLineDash([6, 4]);
  context.stroke();
  context.setLineDash([]);
}

// ---- names and thumbnails ----------------------------------------------------------------------

let wantedRows = [];
let loadTimer = 0;

/** Load rows once the view has come to rest. */
function loadSoon(rows) {
  wantedRows = rows;
  clearTimeout(loadTimer);
  loadTimer = setTimeout(() => loadRows(wantedRows).catch(fail), 120);
}

/** Return the hits of rows, and load those that are not known. */
async function loadRows(rows) {
  const { index, version } = plot, missing = rows.filter((row) => !thumbs.has(row));
  for (let first = 0; first < missing.length; first += THUMBS) {
    const answer = await call(`api/rows?${parameters({ index, rows: missing.slice(first, first + THUMBS) })}`);
    if (plot.index !== index || plot.version !== version) return [];
    if (answer.version !== version) return load(); // the index has been written again
    for (const hit of answer.hits) thumbs.set(hit.row, { hit, picture: null });
  }
  for (const row of missing) if (thumbs.get(row)?.hit.thumbnail) loadPicture(thumbs.get(row));
  const visible = new Set(rows);
  for (const row of [...thumbs.keys()]) if (thumbs.size > KEPT_THUMBS && !visible.has(row)) thumbs.delete(row);
  return rows.map((row) => thumbs.get(row).hit);
}

/** Draw a thumbnail once in the size in which it is shown. */
function loadPicture(thumb) {
  const image = new Image();
  image.onload = () => {
    const scale = THUMB * size.ratio / Math.max(image.naturalWidth, image.naturalHeight);
    const small = element("canvas", { width: Math.max(1, Math.round(image.naturalWidth * scale)), height: Math.max(1, Math.round(image.naturalHeight * scale)) });
    small.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0, small.width, small.height);
    thumb.picture = small;
    request();
  };
  image.src = thumb.hit.thumbnail;
}

// ---- finding points ----------------------------------------------------------------------------

/** Return the visible point nearest to a position, at most `reach` pixels away; -1 if there is none. */
function nearest(x, y, reach) {
  let [best, least] = [-1, reach * reach];
  for (let n = 0; n < count; n++) {
    const i = seen[n], [px, py] = at(i), distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

/** Return the visible point nearest to the current one in a direction, which weighs less than aside; -1 if there is none. */
function neighbour(dx, dy) {
  const [x, y] = at(current);
  let [best, least] = [-1, Infinity];
  for (let n = 0; n < count; n++) {
    const i = seen[n], [px, py] = at(i), along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy - (py - y) * dx);
    const cost = along + 3 * aside;
    if (i !== current && along > 0.01 && cost < least) [best, least] = [i, cost];
  }
  return best;
}

/** Return a function that says whether a point is within a polygon, by the even-odd rule. */
function within(polygon) {
  const xs = Float64Array.from(polygon, ([x]) => x), ys = Float64Array.from(polygon, ([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  return (point) => {
    const [x, y] = at(point);
    if (x < left || x > right || y < top || y > bottom) return false;
    let inside = false;
    for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
      if (ys[i] > y !== ys[j] > y && x < (xs[j] - xs[i]) * (y - ys[i]) / (ys[j] - ys[i]) + xs[i]) inside = !inside;
    }
    return inside;
  };
}

let selectedCount = 0;
const anySelected = () => selectedCount > 0;

/** Select points for which a function is true; `add`: besides those that are selected. */
function select(test, add = false) {
  if (!plot) return;
  if (!add) selected.fill(0);
  for (let i = 0; i < selected.length; i++) if (!selected[i] && test(i)) selected[i] = 1;
  selectedCount = selected.reduce((sum, each) => sum + each, 0);
  sort();
  request();
  showSelection();
}

// ---- the view ----------------------------------------------------------------------------------

/** Zoom by a factor; the position (x, y) stays where it is. */
function zoomBy(factor, x = size.width / 2, y = size.height / 2) {
  const zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor)), scale = zoom / view.zoom;
  view = { zoom, x: x - (x - view.x) * scale, y: y - (y - view.y) * scale };
  panBy(0, 0);
}

/** Move the view, but not beyond the points. */
function panBy(dx, dy) {
  const clamp = (value, length) => Math.min(0, Math.max(length - length * view.zoom, value));
  view = { ...view, x: clamp(view.x + dx, size.width), y: clamp(view.y + dy, size.height) };
  hideTip();
  request();
}

function fit() {
  view = { zoom: 1, x: 0, y: 0 };
  hideTip();
  request();
}
