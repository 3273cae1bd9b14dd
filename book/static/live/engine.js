/* The live page's engine: unpacks runtime and networks, decodes pictures, runs networks on them, times them.
 *
 * asymmbook.pages.live writes the files in built/: each adds one entry to `liveFiles`, gzip and base64 inside a script,
 * since scripts may be read where a page is opened as a file and other files may not. */
"use strict";

globalThis.liveEngine = (() => {
  const folder = new URL("built/", document.currentScript.src);
  const TURNS = 15; // of each of two engines that are compared, one after the other
  const TOLERANCE = 1e-2; // of a logit, beside the largest one

  /* missing: makes an error's text of a file's name. */
  function loadScript(name, missing) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, folder);
      script.onload = resolve;
      script.onerror = () => reject(new Error(missing(`${name}.js`)));
      document.head.append(script);
    });
  }

  async function unpack(name, missing) {
    await loadScript(name, missing);
    const packed = atob(globalThis.liveFiles[name]);
    delete globalThis.liveFiles[name];
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /* ONNX Runtime Web, from the packed files `runtime` and `wasm`, or others of the same kind. */
  async function loadRuntime(missing, runtime = "runtime", wasm = "wasm") {
    const source = new Blob([await unpack(runtime, missing)], { type: "text/javascript" });
    const module = await import(URL.createObjectURL(source));
    module.env.wasm.wasmBinary = (await unpack(wasm, missing)).buffer; // given here, so that nothing is fetched
    module.env.wasm.numThreads = 1;                                    // more need headers that a plain server does not send
    return module;
  }

  async function open(ort, bytes, provider) {
    return { ort, session: await ort.InferenceSession.create(bytes, { executionProviders: [provider] }) };
  }

  async function loadModel(model, ort, missing) {
    model.bytes = await unpack(model.name, missing);
    model.engine = await open(ort, model.bytes, "wasm");
  }

  /* Decoded RGBA pixels of a file, an <img> or a <video>, at their own size, turned as the camera says. */
  async function decode(source) {
    const bitmap = await createImageBitmap(source, {
      imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
    const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  }

  /* {logits, features} of prepared values, and how long it took. */
  async function once({ ort, session }, values, size) {
    const input = new ort.Tensor("float32", values, [1, 3, size, size]);
    const start = performance.now();
    const { logits, features } = await session.run({ pictures: input });
    return { ms: performance.now() - start, logits: Array.from(logits.data), features: Array.from(features.data) };
  }

  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1] ?? NaN;

  /* Logits, features and milliseconds of one model for decoded pixels; repeats after one run that is not counted. */
  async function run(model, { data, width, height }, repeats) {
    const pixels = livePixels.resize(data, width, height, model.size);
    const values = livePixels.normalise(pixels, model.mean, model.std), times = [];
    let found = await once(model.engine, values, model.size);
    for (let turn = 0; turn < repeats; turn++) {
      found = await once(model.engine, values, model.size);
      times.push(found.ms);
    }
    return { ...found, ms: median(times), pixels };
  }

  /* Time another engine's session beside the one in use, in turns, on noise; take it where it is faster and agrees.
   * Returns {before, after, faster}, milliseconds. */
  async function challenge(model, other) {
    const values = Float32Array.from({ length: 3 * model.size ** 2 }, (_, i) => 2 * Math.sin(i * i));
    const times = [[], []], engines = [model.engine, other], answers = [];
    for (let turn = 0; turn <= TURNS; turn++) {
      for (const [which, engine] of engines.entries()) {
        const { ms, logits } = await once(engine, values, model.size);
        if (turn) times[which].push(ms); else answers.push(logits);
      }
    }
    const scale = Math.max(1, ...answers[0].map(Math.abs));
    const agrees = answers[0].every((value, i) => Math.abs(value - answers[1][i]) <= TOLERANCE * scale);
    const [before, after] = times.map(median), faster = agrees && after < before;
    if (faster) model.engine = other;
    return { before, after, faster };
  }

  return { challenge, decode, loadModel, loadRuntime, loadScript, open, run };
})();
