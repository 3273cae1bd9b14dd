/* From decoded pixels to what the network receives, exactly as asymmlib.data.pictures does it with Pillow and NumPy.
 *
 * What is transparent shows white: value * alpha / 255, rounded, + 255 - alpha. A canvas keeps colours multiplied by alpha
 * and gives them back rounded; multiplied again, they are what they were. Of 16 bits a browser keeps the upper eight.
 *
 * Pillow's bilinear filter is a triangle that widens when a picture shrinks, in fixed-point arithmetic with 22 bits, one
 * pass across and one down, each rounded to 8 bits. A canvas would resize differently, and differently in each browser.
 * Source: Pillow's Resample.c, read for its rounding. */
"use strict";

const PRECISION_BITS = 22;

/* For each output position: the first input pixel and the fixed-point weight of it and its followers. */
function weights(inSize, outSize) {
  const scale = inSize / outSize, filterScale = Math.max(scale, 1);
  return Array.from({ length: outSize }, (_, position) => {
    const center = (position + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - filterScale + 0.5));
    const end = Math.min(inSize, Math.trunc(center + filterScale + 0.5));
    const values = [];
    let total = 0;
    for (let pixel = first; pixel < end; pixel++) {
      const distance = Math.abs((pixel - center + 0.5) * (1 / filterScale));
      values.push(distance < 1 ? 1 - distance : 0);
      total += values[values.length - 1];
    }
    return { first, taps: values.map((value) => Math.trunc(0.5 + (value / total) * (1 << PRECISION_BITS))) };
  });
}

/* One pass over bytes [height, width, 3]: along x, or along y with `down`. */
function pass(pixels, width, height, outSize, down) {
  const table = weights(down ? height : width, outSize);
  const outWidth = down ? width : outSize, outHeight = down ? outSize : height;
  const out = new Uint8ClampedArray(outWidth * outHeight * 3), step = down ? width * 3 : 3;
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      const { first, taps } = table[down ? y : x];
      const start = down ? (first * width + x) * 3 : (y * width + first) * 3;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let tap = 0; tap < taps.length; tap++) sum += pixels[start + tap * step + channel] * taps[tap];
        out[(y * outWidth + x) * 3 + channel] = sum >> PRECISION_BITS;
      }
    }
  }
  return out;
}

/* RGBA bytes [height, width, 4] -> RGB bytes [height, width, 3] on a white ground. */
function onWhite(rgba) {
  const pixels = new Uint8ClampedArray(rgba.length / 4 * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      pixels[to++] = Math.round(rgba[from + channel] * alpha / 255) + 255 - alpha;
    }
  }
  return pixels;
}

/* RGBA bytes [height, width, 4] -> RGB bytes [size, size, 3]. */
function resize(rgba, width, height, size) {
  let pixels = onWhite(rgba);
  if (width !== size) pixels = pass(pixels, width, height, size, false);
  if (height !== size) pixels = pass(pixels, size, height, size, true);
  return pixels;
}

/* RGB bytes [size, size, 3] -> float32 [3, size, size]: value * scale + shift, rounded to float32 after each step. */
function normalise(pixels, mean, std) {
  const area = pixels.length / 3, out = new Float32Array(pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const scale = Math.fround(1 / (255 * std[channel])), shift = Math.fround(-mean[channel] / std[channel]);
    for (let pixel = 0; pixel < area; pixel++) {
      out[channel * area + pixel] = Math.fround(pixels[pixel * 3 + channel] * scale) + shift;
    }
  }
  return out;
}

globalThis.livePixels = { resize, normalise };
