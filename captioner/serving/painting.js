const SIDE = 8; // cells along each side of the painted grid
const MAX_LAYERS = 8;
const PRESETS = { // rows and columns [first, last) of cells
  left: [0, SIDE, 0, SIDE / 2],
  right: [0, SIDE, SIDE / 2, SIDE],
  top: [0, SIDE / 2, 0, SIDE],
  bottom: [SIDE / 2, SIDE, 0, SIDE],
  centre: [SIDE / 4, SIDE * 3 / 4, SIDE / 4, SIDE * 3 / 4],
};
const MEANING = { "1": "should be here", "0": "not painted", "-1": "should not be here" };
let layers = []; // words and their cells: 1 where a word should be, -1 where it should not be
let layer = 0; // the layer that is painted
let cell = 0; // the cell that Tab reaches
let stroke = null; // the cell where the pointer is while it paints
let settled = 0; // the timer after which a painting is searched for

// ---- paintings in addresses and requests -------------------------------------------------------

/** Write a layer as word:DIGITS, 16 hexadecimal digits for the cells that are 1, then 16 for those that are -1, if any. */
function encodeLayer({ word, cells }) {
  const digits = (value) => Array.from({ length: cells.length / 4 }, (_, i) =>
    [0, 1, 2, 3].reduce((sum, k) => sum + (cells[4 * i + k] === value ? 8 >> k : 0), 0).toString(16)).join("");
  return `${word}:${digits(1)}${cells.includes(-1) ? digits(-1) : ""}`;
}

/** Read what `encodeLayer` wrote; return null for any other text. */
function decodeLayer(code) {
  const [, word, yes, no] = code.match(/^(.+):([0-9a-f]{16})([0-9a-f]{16})?$/s) ?? [];
  if (!word?.trim()) return null;
  const cells = new Int8Array(SIDE * SIDE);
  const mark = (digits, value) => [...digits ?? ""].forEach((digit, i) => {
    for (let k = 0; k < 4; k++) if (parseInt(digit, 16) & (8 >> k)) cells[4 * i + k] = value;
  });
  mark(no, -1);
  mark(yes, 1);
  return { word: word.trim().slice(0, 200), cells };
}

/** Return the layers on which something is painted, as the service takes them. */
function paintedLayers(codes) {
  return codes.map(decodeLayer).filter((each) => each?.cells.some(Boolean)).slice(0, MAX_LAYERS).map(({ word, cells }) =>
    ({ word, grid: Array.from({ length: SIDE }, (_, row) => [...cells.subarray(row * SIDE, (row + 1) * SIDE)]) }));
}

// ---- the panel ---------------------------------------------------------------------------------

/** Show the painting of an address, unless it is already shown; `canPaint`: whether the index can be searched by it. */
function showPainting(codes, canPaint) {
  $("paint").hidden = !canPaint;
  if (!canPaint) openPainting(false);
  if (codes.join("\n") === layers.map(encodeLayer).join("\n")) return;
  layers = codes.map(decodeLayer).filter(Boolean).slice(0, MAX_LAYERS);
  layer = Math.max(0, Math.min(layer, layers.length - 1));
  if (layers.length && canPaint) openPainting(true);
  listLayers();
}

function openPainting(open) {
  $("painting").hidden = !open;
  $("workspace").classList.toggle("painted", open);
  $("paint").setAttribute("aria-expanded", open);
}

/** List the words, and show the cells of one of them. */
function listLayers() {
  $("layers").replaceChildren(...layers.map((each, i) => {
    const item = element("li"), choose = element("button", { type: "button", "aria-pressed": i === layer });
    choose.append(mini(each), element("span", {}, each.word));
    choose.onclick = () => { layer = i; listLayers(); $("layers").children[i].firstChild.focus(); };
    const remove = element("button", { type: "button", "aria-label": `Remove the painting of ${each.word}` }, "×");
    remove.onclick = () => { $("word").focus(); removeLayer(i); };
    item.classList.toggle("on", i === layer);
    item.append(choose, remove);
    return item;
  }));
  $("strokes").hidden = !layers.length;
  $("new-layer").querySelector("button").disabled = layers.length >= MAX_LAYERS;
  if (layers.length) showCells();
}

function removeLayer(number) {
  layers.splice(number, 1);
  layer = Math.max(0, Math.min(layer, layers.length - 1));
  listLayers();
  go({ paint: layers.map(encodeLayer) });
}

/** Return a small picture of a layer. */
function mini({ cells }) {
  const canvas = element("canvas", { class: "mini", width: SIDE, height: SIDE, "aria-hidden": "true" });
  const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  cells.forEach((value, i) => {
    if (!value) return;
    context.fillStyle = style.getPropertyValue(value > 0 ? "--accent" : "--edge");
    const x = i % SIDE, y = Math.floor(i / SIDE);
    if (value > 0 || (x + y) % 2) context.fillRect(x, y, 1, 1);
  });
  return canvas;
}

const cellAt = (number) => $("grid").querySelectorAll("[role=gridcell]")[number];

function showCells() {
  const { word, cells } = layers[layer];
  $("grid").setAttribute("aria-label", `Where ${word} should be: ${SIDE} rows of ${SIDE} cells`);
  $("grid-word").textContent = word;
  cells.forEach((value, i) => {
    const item = cellAt(i);
    item.className = value > 0 ? "yes" : value < 0 ? "no" : "";
    item.setAttribute("aria-label", `row ${Math.floor(i / SIDE) + 1}, column ${i % SIDE + 1}: ${MEANING[value]}`);
    item.tabIndex = i === cell ? 0 : -1;
  });
}

$("grid").append(...Array.from({ length: SIDE }, () => {
  const row = element("div", { role: "row" });
  row.append(...Array.from({ length: SIDE }, () => element("div", { role: "gridcell", tabindex: -1 })));
  return row;
}));

$("new-layer").onsubmit = (event) => {
  event.preventDefault();
  const word = $("word").value.trim();
  if (!word || layers.length >= MAX_LAYERS) return;
  const known = layers.findIndex((each) => each.word === word);
  if (known < 0) layers.push({ word, cells: new Int8Array(SIDE * SIDE) });
  layer = known < 0 ? layers.length - 1 : known;
  $("word").value = "";
  listLayers();
  cellAt(cell).focus({ preventScroll: true });
};

$("paint").onclick = () => {
  openPainting($("painting").hidden);
  if (!$("painting").hidden) (layers.length ? cellAt(cell) : $("word")).focus();
};

// ---- strokes -----------------------------------------------------------------------------------

const brush = () => Number(document.querySelector("#brushes :checked").value);

/** Set cells of the layer, and search once the hand rests. */
function paintCells(numbers, value) {
  const { cells } = layers[layer];
  if (numbers.every((number) => cells[number] === value)) return;
  for (const number of numbers) cells[number] = value;
  showCells();
  clearTimeout(settled);
  if (stroke === null) settled = setTimeout(searchPainting, 250);
}

function searchPainting() {
  const focused = $("layers").contains(document.activeElement);
  if (!focused) listLayers();
  go({ paint: layers.map(encodeLayer) }, true);
}

/** Return the number of the cell at the position of an event, or at the edge nearest to it. */
function cellUnder(event) {
  const box = $("grid").getBoundingClientRect();
  const place = (position, length) => Math.min(SIDE - 1, Math.max(0, Math.floor(position / length * SIDE)));
  return place(event.clientY - box.top, box.height) * SIDE + place(event.clientX - box.left, box.width);
}

/** Return the cells of a line between two cells, so that a fast stroke has no gaps. */
function between(from, to) {
  const [y, x] = [Math.floor(from / SIDE), from % SIDE], [dy, dx] = [Math.floor(to / SIDE) - y, to % SIDE - x];
  const steps = Math.max(1, Math.abs(dx), Math.abs(dy));
  return Array.from({ length: steps + 1 }, (_, i) => Math.round(y + dy * i / steps) * SIDE + Math.round(x + dx * i / steps));
}

$("grid").onpointerdown = (event) => {
  if (event.button) return;
  event.preventDefault();
  $("grid").setPointerCapture(event.pointerId);
  stroke = cell = cellUnder(event);
  paintCells([stroke], brush());
  showCells();
  cellAt(cell).focus({ preventScroll: true });
};
$("grid").onpointermove = (event) => {
  if (stroke === null) return;
  const next = cellUnder(event);
  paintCells(between(stroke, next), brush());
  stroke = next;
};
$("grid").onpointerup = $("grid").onpointercancel = () => {
  if (stroke === null) return;
  stroke = null;
  searchPainting();
};

$("grid").onkeydown = (event) => {
  const [row, column] = [Math.floor(cell / SIDE), cell % SIDE], end = SIDE - 1;
  const moves = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
    Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? end : row, end], PageUp: [0, column], PageDown: [end, column],
  };
  const values = { " ": brush(), Enter: brush(), "+": 1, "-": -1, "0": 0, Delete: 0, Backspace: 0 };
  if (event.key in moves) {
    const [y, x] = moves[event.key].map((each) => Math.min(end, Math.max(0, each)));
    cell = y * SIDE + x;
    if (event.shiftKey) paintCells([row * SIDE + column, cell], brush());
    showCells();
    cellAt(cell).focus();
  } else if (event.key in values) paintCells([cell], values[event.key]);
  else return;
  event.preventDefault();
};

for (const [name, [top, bottom, left, right]] of Object.entries(PRESETS)) {
  $(`preset-${name}`).onclick = () => {
    const numbers = [...Array(SIDE * SIDE).keys()].filter((i) =>
      i >= top * SIDE && i < bottom * SIDE && i % SIDE >= left && i % SIDE < right);
    paintCells(numbers, brush());
  };
}
$("clear").onclick = () => paintCells([...Array(SIDE * SIDE).keys()], 0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listLayers); // redraws the small pictures
