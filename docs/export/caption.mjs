// Captions in Node, with a model written by `captioner export --onnx DIR`: docs/export.md in another language.
//
//     npm install onnxruntime-web@1.30.0 jpeg-js@0.4.4 fast-png@8.0.0 omggif@1.0.10
//     node caption.mjs DIR IMAGE [BEAM_SIZE]
//
// IMAGE is a JPEG, PNG or GIF file; without BEAM_SIZE, the search is greedy. Tested with Node 20.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { convertIndexedToRgb, decode as parsePng } from "fast-png";
import jpeg from "jpeg-js";
import omggif from "omggif";
import * as ort from "onnxruntime-web";

// ---- from a file to an upright image: { width, height, data, channels }, bytes row by row; 3 or 4 channels ----

function decode(bytes) {
  let image;
  if (bytes[0] === 0xff && bytes[1] === 0xd8) image = decodeJpeg(bytes);
  else if (bytes[0] === 0x89 && bytes[1] === 0x50) image = { ...decodePng(bytes), exif: exifOfPng(bytes) };
  else if (bytes[0] === 0x47 && bytes[1] === 0x49) image = decodeGif(bytes);
  else throw new Error("only JPEG, PNG and GIF files can be read");
  return turnUpright(image, exifOrientation(image.exif) ?? xmpOrientation(bytes));
}

// jpeg-js inverts the CMYK of Adobe's files and refuses other CMYK.
function decodeJpeg(bytes) {
  const image = jpeg.decode(bytes, { useTArray: true, maxMemoryUsageInMB: 4096 });
  return { ...image, channels: 4, exif: image.exifBuffer?.subarray(1) }; // after a zero byte
}

// The first frame; pixels outside of it stay transparent.
function decodeGif(bytes) {
  const gif = new omggif.GifReader(bytes);
  const data = new Uint8Array(4 * gif.width * gif.height);
  gif.decodeAndBlitFrameRGBA(0, data);
  return { width: gif.width, height: gif.height, data, channels: 4 };
}

function decodePng(bytes) {
  const png = parsePng(bytes);
  const { width, height, depth, channels, palette, transparency: key } = png;
  if (palette) return { width, height, data: convertIndexedToRgb(png), channels: palette[0].length };
  const colours = channels <= 2 ? 1 : 3;
  const rowBytes = Math.ceil((width * channels * depth) / 8); // fast-png does not unpack 1, 2 and 4 bits
  const sample = (y, i) => {
    if (depth >= 8) return png.data[y * width * channels + i];
    const byte = png.data[y * rowBytes + ((i * depth) >> 3)];
    return (byte >> (8 - depth - ((i * depth) & 7))) & (2 ** depth - 1);
  };
  const to8Bits = (v) =>
    depth < 16 ? (v * 255) / (2 ** depth - 1) : channels === 1 ? Math.floor((v + 128) / 257) : v >> 8;
  const data = new Uint8Array(4 * width * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 4) {
      const pixel = Array.from({ length: channels }, (_, c) => sample(y, x * channels + c));
      for (let c = 0; c < 3; c++) data[to + c] = to8Bits(pixel[colours === 1 ? 0 : c]);
      const isKey = key && pixel.every((value, c) => value === key[c]);
      data[to + 3] = channels > colours ? to8Bits(pixel[colours]) : isKey ? 0 : 255;
    }
  }
  return { width, height, data, channels: 4 };
}

// ---- orientation ----

function exifOfPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 8 < bytes.length; at += 12 + view.getUint32(at))
    if (view.getUint32(at + 4) === 0x65584966) return bytes.subarray(at + 8, at + 8 + view.getUint32(at)); // eXIf
}

// The orientation in an EXIF block: a TIFF header and its directory. Undefined without one, or if it is broken.
function exifOrientation(exif) {
  try {
    const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
    const little = view.getUint16(0) === 0x4949; // "II"
    const directory = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(directory, little); entry++) {
      const at = directory + 2 + 12 * entry;
      if (view.getUint16(at, little) === 0x0112) return view.getUint16(at + 8, little);
    }
  } catch {} // no block, or an offset outside of it
}

function xmpOrientation(bytes) {
  const found = /tiff:Orientation(?:="|>)([0-9])/.exec(Buffer.from(bytes).toString("latin1"));
  return found && Number(found[1]);
}

function turnUpright({ width, height, data, channels }, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return { width, height, data, channels };
  const swap = orientation >= 5;
  const mirrorX = [2, 3, 7, 8].includes(orientation); // of the stored image
  const mirrorY = [3, 4, 6, 7].includes(orientation);
  const result = new Uint8Array(data.length);
  const [newWidth, newHeight] = swap ? [height, width] : [width, height];
  for (let y = 0, to = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++, to += channels) {
      const [column, row] = swap ? [y, x] : [x, y];
      const from = (mirrorY ? height - 1 - row : row) * width + (mirrorX ? width - 1 - column : column);
      for (let c = 0; c < channels; c++) result[to + c] = data[from * channels + c];
    }
  }
  return { width: newWidth, height: newHeight, data: result, channels };
}

// ---- from an image to pixels ----

function compositeOverWhite({ width, height, data, channels }) {
  if (channels === 3) return data;
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    for (let c = 0; c < 3; c++) rgb[3 * i + c] = Math.round((data[4 * i + c] * alpha) / 255 + 255 - alpha);
  }
  return rgb;
}

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// For each of `size` new pixels in a line: the first of the old pixels that count, and the weights from there.
function bicubicWeights(length, size) {
  const step = length / size;
  const scale = Math.max(step, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * step;
    const first = Math.max(Math.floor(centre - 2 * scale), 0);
    const end = Math.min(Math.ceil(centre + 2 * scale), length);
    const weights = [];
    for (let j = first; j < end; j++) weights.push(cubic((j + 0.5 - centre) / scale));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

// Resize `lines` lines of `length` RGB pixels to `size` pixels. The strides are the bytes from line to line and from
// pixel to pixel, before and after.
function resizeLines(data, { lines, length, size, lineStride, stride, newLineStride, newStride }) {
  const result = new Uint8ClampedArray(3 * size * lines);
  bicubicWeights(length, size).forEach(({ first, weights }, i) => {
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0.5;
        let from = line * lineStride + first * stride + c;
        for (let j = 0; j < weights.length; j++, from += stride) sum += weights[j] * data[from];
        result[line * newLineStride + i * newStride + c] = Math.floor(sum);
      }
    }
  });
  return result;
}

// The bytes of an image file as pixels (1, 3, S, S); the second argument is `image` of captioner.json.
export function pixels(bytes, { size, mean, std }) {
  const image = decode(bytes);
  const { width, height } = image;
  const row = 3 * size; // bytes of a new row
  const across = { lines: height, length: width, lineStride: 3 * width, stride: 3, newLineStride: row, newStride: 3 };
  const down = { lines: size, length: height, lineStride: 3, stride: row, newLineStride: 3, newStride: row };
  const rows = resizeLines(compositeOverWhite(image), { ...across, size });
  const square = resizeLines(rows, { ...down, size });
  const values = new Float32Array(3 * size * size);
  const f32 = Math.fround;
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < size * size; i++)
      values[c * size * size + i] = f32(f32(square[3 * i + c] / 255) - f32(mean[c])) / f32(std[c]);
  return new ort.Tensor("float32", values, [1, 3, size, size]);
}

// ---- from pixels to words ----

export async function load(directory) {
  const spec = JSON.parse(readFileSync(`${directory}/captioner.json`, "utf8"));
  ort.env.wasm.numThreads = 1;
  const sessions = {};
  for (const [name, { file }] of Object.entries(spec.programs))
    sessions[name] = await ort.InferenceSession.create(readFileSync(`${directory}/${file}`));
  return { spec, sessions };
}

// The rows of a state (1, hypotheses, ...) from which the next hypotheses go on.
function selectRows(tensor, rows) {
  const size = tensor.size / tensor.dims[1];
  const data = new tensor.data.constructor(rows.length * size);
  rows.forEach((row, i) => data.set(tensor.data.subarray(row * size, (row + 1) * size), i * size));
  return new ort.Tensor(tensor.type, data, [1, rows.length, ...tensor.dims.slice(2)]);
}

function logSoftmax(scores) {
  const largest = Math.max(...scores);
  const logSum = Math.log(scores.reduce((sum, score) => sum + Math.exp(score - largest), 0));
  return scores.map((score) => score - largest - logSum);
}

// The caption of an image file, given as bytes, by a loaded model.
export async function caption({ spec, sessions }, bytes, beamSize = 1) {
  const { START, END } = spec.tokens;
  const { max_length: maxLength, min_length: minLength, length_penalty: lengthPenalty } = spec.decoding;
  const penalty = beamSize > 1 ? lengthPenalty : 0;
  const features = await sessions.encoder.run({ pixels: pixels(bytes, spec.image) });
  const inputs = { ...(await sessions.start.run(features)) };
  let live = [{ total: 0, tokens: [] }];
  const finished = [];
  for (let step = 0; step < maxLength; step++) {
    const last = live.map(({ tokens }) => BigInt(tokens.at(-1) ?? START));
    inputs.tokens = new ort.Tensor("int64", BigInt64Array.from(last), [1, live.length]);
    const outputs = await sessions.step.run(inputs);
    const size = outputs.scores.dims[2]; // words
    const excluded = step < minLength ? [...spec.never, END] : spec.never;
    const pairs = live.flatMap(({ total }, row) => {
      const scores = Array.from(outputs.scores.data.subarray(row * size, (row + 1) * size));
      for (const token of excluded) scores[token] = -Infinity;
      return logSoftmax(scores).map((score, token) => ({ total: total + score, row, token }));
    });
    const best = pairs.sort((a, b) => b.total - a.total).slice(0, 2 * beamSize);
    for (const { total, row, token } of best.slice(0, beamSize))
      if (token === END) finished.push({ total: total / (step + 1) ** penalty, tokens: live[row].tokens });
    finished.sort((a, b) => b.total - a.total);
    const survivors = best.filter(({ token }) => token !== END).slice(0, beamSize);
    live = survivors.map(({ total, row, token }) => ({ total, tokens: [...live[row].tokens, token] }));
    if (finished.length && finished[0].total >= live[0].total / maxLength ** penalty) break;
    const rows = survivors.map(({ row }) => row);
    for (const [name, state] of Object.entries(outputs))
      if (name.startsWith("next_")) inputs[name.slice("next_".length)] = selectRows(state, rows);
  }
  return (finished[0] ?? live[0]).tokens.map((token) => spec.words[token]).join(" ");
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [directory, image, beamSize = "1"] = process.argv.slice(2);
  console.log(await caption(await load(directory), readFileSync(image), Number(beamSize)));
}
