/* The live page's engine: unpacks runtime and networks, decodes pictures, runs networks on them, times them.
 *
 * asymmbook.pages.live writes the files in built/: each adds one entry to `liveFiles`, gzip and base64 inside a script,
 * since scripts may be read where a page is opened as a file and other files may not. */
"use strict";

globalThis.liveEngine = (() => {
  const folder = new URL("built/", document.currentScript.src);
  const TURNS = 15; // of each of two engines that are compared, one after the other
  const ENOUGH = 3, PATIENCE = 3000; // turns that decide where all of them would take more than so many milliseconds
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

  /* Whether the browser offers a graphics chip; a processor that plays one is none. */
  async function hasGpu() {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
  }

  /* {ort, session, lost} of an ONNX file; lost: a promise that fails when the browser loses the graphics chip, since a
   * run then never ends. */
  async function open(ort, bytes, provider) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
    const device = provider === "webgpu" ? await ort.env.webgpu.device : null;
    const lost = device?.lost.then(({ message }) => { throw new Error(message); });
    lost?.catch(() => {}); // whoever waits for a run hears of it
    return { ort, session, lost };
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
  async function once({ ort, session, lost }, values, size) {
    if (lost) await Promise.race([lost, null]); // a runtime that waits for a lost chip must not be asked again
    const input = new ort.Tensor("float32", values, [1, 3, size, size]);
    const start = performance.now();
    const { logits, features } = await Promise.race([session.run({ pictures: input }), ...(lost ? [lost] : [])]);
    return { ms: performance.now() - start, logits: Array.from(logits.data), features: Array.from(features.data) };
  }

  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1] ?? NaN;

  async function repeat(engine, values, size, repeats) {
    const times = [];
    let found = await once(engine, values, size);
    for (let turn = 0; turn < repeats; turn++) {
      found = await once(engine, values, size);
      times.push(found.ms);
    }
    return { ...found, ms: median(times) };
  }

  /* Logits, features and milliseconds of one model for decoded pixels; repeats after one run that is not counted. An
   * engine that fails gives way to the one that it had replaced; failed: whether it did. */
  async function run(model, { data, width, height }, repeats) {
    const pixels = livePixels.resize(data, width, height, model.size);
    const values = livePixels.normalise(pixels, model.mean, model.std);
    let failed = false;
    const found = await repeat(model.engine, values, model.size, repeats).catch((error) => {
      if (!model.engine.replaced) throw error;
      failed = true;
      model.engine = model.engine.replaced;
      return repeat(model.engine, values, model.size, repeats);
    });
    return { ...found, failed, pixels };
  }

  /* Time another engine's session beside the one in use, in turns, on noise; take it where it is faster and agrees, and
   * free its memory where not. Returns {before, after, faster}, milliseconds. */
  async function challenge(model, other) {
    const values = Float32Array.from({ length: 3 * model.size ** 2 }, (_, i) => 2 * Math.sin(i * i));
    const times = [[], []], engines = [model.engine, other], answers = [];
    let until = Infinity;
    for (let turn = 0; turn <= TURNS && (turn <= ENOUGH || performance.now() < until); turn++) {
      if (turn === 1) until = performance.now() + PATIENCE;
      for (const [which, engine] of engines.entries()) {
        const { ms, logits } = await once(engine, values, model.size);
        if (turn) times[which].push(ms); else answers.push(logits);
      }
    }
    const scale = Math.max(1, ...answers[0].map(Math.abs));
    const agrees = answers[0].every((value, i) => Math.abs(value - answers[1][i]) <= TOLERANCE * scale);
    const [before, after] = times.map(median), faster = agrees && after < before;
    if (faster) model.engine = { ...other, replaced: model.engine }; else await other.session.release();
    return { before, after, faster };
  }

  return { challenge, decode, hasGpu, loadModel, loadRuntime, loadScript, open, run };
})();
