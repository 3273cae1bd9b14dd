// Classify pictures with an exported network: node classify.mjs FOLDER IMAGE... (npm install onnxruntime-web sharp)
// pixels.js is the book's own, book/static/live/pixels.js: it resizes exactly as in training.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import sharp from "sharp";
import "./pixels.js";

ort.env.wasm.numThreads = 1;
const [folder, ...paths] = process.argv.slice(2);
const about = JSON.parse(await readFile(`${folder}/export.json`, "utf8"));
const { classes, none_below: least = 0, preprocessing: { size: [height, width], mean, std }, reference } = about;
const session = await ort.InferenceSession.create(await readFile(`${folder}/model.onnx`));

async function logits(file) {
  const picture = sharp(file).autoOrient().toColourspace("srgb").ensureAlpha().raw({ depth: "uchar" });
  const { data, info } = await picture.toBuffer({ resolveWithObject: true });
  const pixels = livePixels.resize(data, info.width, info.height, height);
  const input = new ort.Tensor("float32", livePixels.normalise(pixels, mean, std), [1, 3, height, width]);
  return (await session.run({ [session.inputNames[0]]: input })).logits.data;
}

const found = await logits(`${folder}/${reference.picture}`);
const allowed = reference.tolerance * Math.max(...reference.logits.map(Math.abs));
if (reference.logits.some((value, index) => !(Math.abs(value - found[index]) <= allowed))) {
  throw new Error("the reference picture gets other logits: something here differs from training");
}
for (const path of paths) {
  const values = await logits(path), largest = Math.max(...values);
  const scores = Array.from(values, (value) => Math.exp(value - largest));
  const share = Math.max(...scores) / scores.reduce((sum, score) => sum + score);
  const best = classes[scores.indexOf(Math.max(...scores))];
  console.log(`${path}: ${best} ${(100 * share).toFixed(1)}%${share < least ? ", none of these" : ""}`);
}
