/* A new last layer from a few pictures: softmax regression with weight decay on the features that a network computes.
 *
 * The minimum of mean cross-entropy + decay / 2 * squares of all weights, biases included, is a weighted sum of the
 * examples, so one number for each example and class is sought in place of 1280 weights a class: with 25 pictures the
 * table of their inner products is all that is needed. Nesterov's accelerated gradient descent, from zero, until no
 * slope is larger than TOLERANCE. asymmbook.evidence.heads finds the same minimum with SciPy. */
"use strict";

const TOLERANCE = 1e-9, ROUGH = 1e-5, MOST_STEPS = 20000;

/* Numbers scaled to length 1, as Float64Array. */
function unit(values) {
  const length = Math.max(Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)), 1e-12);
  return Float64Array.from(values, (value) => value / length);
}

const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };

function softmax(logits) {
  const largest = Math.max(...logits), powers = logits.map((value) => Math.exp(value - largest));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / total);
}

/* Inner products of examples, the constant 1 that the bias multiplies included. */
const products = (units) => units.map((a) => units.map((b) => dot(a, b) + 1));

/* For each example and class its share in the weights, Float64Array [examples * classes].
 * table: `products`; labels: class numbers; start: shares of an earlier fit. */
function shares(table, labels, count, decay, tolerance, start) {
  const size = labels.length, rate = 1 / (1 + decay);  // 1: the largest curvature where all lengths are 1, bias and all
  const root = Math.sqrt(decay * rate), momentum = (1 - root) / (1 + root);
  let now = start ?? new Float64Array(size * count), next = new Float64Array(size * count);
  const ahead = now.slice(), logits = new Float64Array(count);
  for (let step = 0; step < MOST_STEPS; step++) {
    let largest = 0;
    for (let example = 0; example < size; example++) {
      logits.fill(0);
      for (let other = 0; other < size; other++) {
        for (let c = 0; c < count; c++) logits[c] += table[example][other] * ahead[other * count + c];
      }
      softmax(logits).forEach((share, c) => {
        const place = example * count + c;
        const slope = (share - (labels[example] === c ? 1 : 0)) / size + decay * ahead[place];
        largest = Math.max(largest, Math.abs(slope));
        next[place] = ahead[place] - rate * slope;
      });
    }
    for (let i = 0; i < ahead.length; i++) ahead[i] = next[i] + momentum * (next[i] - now[i]);
    [now, next] = [next, now];
    if (largest < tolerance) break;
  }
  return now;
}

/* {weights: [classes][features], bias: [classes]} from features of length 1 and class numbers. */
function fit(units, labels, count, decay) {
  const found = shares(products(units), labels, count, decay, TOLERANCE);
  const weights = Array.from({ length: count }, () => new Float64Array(units[0].length));
  const bias = new Array(count).fill(0);
  found.forEach((share, place) => {
    const values = units[Math.floor(place / count)], c = place % count;
    bias[c] += share;
    for (let i = 0; i < values.length; i++) weights[c][i] += share * values[i];
  });
  return { weights, bias };
}

/* How many examples are told right by what the others teach. */
function leaveOneOut(units, labels, count, decay) {
  const table = products(units), whole = shares(table, labels, count, decay, ROUGH);
  return labels.filter((label, out) => {
    const without = (list) => Array.from(list).filter((_, example) => example !== out);
    const start = whole.filter((_, place) => Math.floor(place / count) !== out);
    const found = shares(without(table.map(without)), without(labels), count, decay, ROUGH, start);
    const logits = new Array(count).fill(0);
    without(table[out]).forEach((product, i) => logits.forEach((_, c) => { logits[c] += product * found[i * count + c]; }));
    return logits.indexOf(Math.max(...logits)) === label;
  }).length;
}

/* Probabilities of one picture by a head {weights, bias}; features as the network gives them. */
function probabilities(head, features) {
  const values = unit(features);
  return softmax(head.weights.map((row, c) => dot(row, values) + head.bias[c]));
}

globalThis.liveHead = { fit, leaveOneOut, probabilities, softmax, unit };
