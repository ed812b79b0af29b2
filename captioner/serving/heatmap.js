const GAMMA = 0.6; // exponent of the colour scale, as in captioner/plots/overlays.py
const INFERNO = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [187, 55, 84],
  [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];

/** Draw a map over an image in the colours of captioner/plots/overlays.py; `most` is the end of the scale. */
function drawMap(canvas, image, map, most, offset) {
  const ratio = (image.clientWidth || 1) / (image.clientHeight || 1);
  canvas.width = Math.max(1, Math.round(200 * Math.sqrt(ratio)));
  canvas.height = Math.max(1, Math.round(200 / Math.sqrt(ratio)));
  const tall = transpose(transpose(map).map((column) => enlarge(column, canvas.height, offset)));
  const values = tall.map((row) => enlarge(row, canvas.width, offset));
  const context = canvas.getContext("2d"), overlay = context.createImageData(canvas.width, canvas.height);
  values.flat().forEach((value, i) => {
    const strength = Math.min(1, Math.max(0, value / most)) ** GAMMA;
    const at = strength * (INFERNO.length - 1), low = Math.min(Math.floor(at), INFERNO.length - 2);
    for (let c = 0; c < 3; c++) overlay.data[4 * i + c] = INFERNO[low][c] + (at - low) * (INFERNO[low + 1][c] - INFERNO[low][c]);
    overlay.data[4 * i + 3] = 255 * (0.05 + 0.65 * strength);
  });
  context.putImageData(overlay, 0, 0);
}

const transpose = (rows) => rows[0].map((_, i) => rows.map((row) => row[i]));

/** Resize one axis with Steffen's monotone cubic (1990); values are at the centres of pixels, and `offset` cells from those of cells. */
function enlarge(cells, length, offset) {
  const values = [cells[0], ...cells, cells.at(-1)];
  const slopes = values.map((value, i) => {
    if (i === 0 || i === values.length - 1) return 0;
    const before = value - values[i - 1], after = values[i + 1] - value;
    return (Math.sign(before) + Math.sign(after)) * Math.min(Math.abs(before), Math.abs(after), Math.abs(before + after) / 4);
  });
  return Array.from({ length }, (_, pixel) => {
    const position = (pixel + 0.5) * cells.length / length + 0.5 - offset;
    const i = Math.floor(position), t = position - i, rise = values[i + 1] - values[i];
    return values[i] + t * slopes[i] + t ** 2 * (3 * rise - 2 * slopes[i] - slopes[i + 1])
      + t ** 3 * (slopes[i] + slopes[i + 1] - 2 * rise);
  });
}

/** Return where in a map its largest value is: "upper left", "middle", "right part". */
function placeOf(map, offset) {
  const cells = map.flat(), at = cells.indexOf(Math.max(...cells)), width = map[0].length;
  const third = (cell, count) => Math.min(2, Math.floor(3 * (cell + 0.5 + offset) / count));
  const row = third(Math.floor(at / width), map.length), column = third(at % width, width);
  if (row === 1 && column === 1) return "middle";
  return [["upper", "", "lower"][row], ["left", "", "right"][column]].filter(Boolean).join(" ") + (row === 1 || column === 1 ? " part" : "");
}
