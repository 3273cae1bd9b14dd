/* The live page: pictures in, top 5 and milliseconds out, all of it in this browser.
 *
 * asymmlib.live writes the files in built/: each adds one entry to `liveFiles`, gzip and base64 inside a script, since
 * scripts may be read where a page is opened as a file and other files may not. */
"use strict";

(() => {
  const RUNS = 5; // measured after one unmeasured run
  const element = (id) => document.getElementById(id);
  const panel = element("live-demo");
  if (!panel) return;
  const folder = new URL("built/", document.currentScript.src);
  const models = JSON.parse(panel.dataset.models);
  let ort = null, stream = null, busy = Promise.resolve();

  const say = (text) => { element("live-status").textContent = text; };

  function loadScript(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, folder);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${name}.js is missing beside this page; build the book again`));
      document.head.append(script);
    });
  }

  async function unpack(name) {
    await loadScript(name);
    const text = atob(globalThis.liveFiles[name]);
    delete globalThis.liveFiles[name];
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function loadRuntime() {
    const source = new Blob([await unpack("runtime")], { type: "text/javascript" });
    const module = await import(URL.createObjectURL(source));
    module.env.wasm.wasmBinary = (await unpack("wasm")).buffer; // given here, so that nothing is fetched
    module.env.wasm.numThreads = 1;                             // more need headers that a plain server does not send
    return module;
  }

  async function load() {
    element("live-load").disabled = true;
    try {
      say("Loading the runtime …");
      ort = await loadRuntime();
      for (const model of models) {
        say(`Loading ${model.label} …`);
        model.session = await ort.InferenceSession.create(await unpack(model.name), { executionProviders: ["wasm"] });
      }
      await loadScript("samples");
      showSamples(globalThis.liveSamples);
      element("live-panel").hidden = false;
      element("live-load").hidden = true;
      say("Ready. Choose a picture.");
      element("live-file").focus();
    } catch (error) {
      element("live-load").disabled = false;
      say(`The demo could not be loaded: ${error.message}`);
      throw error;
    }
  }

  function showSamples(samples) {
    for (const { name, png } of samples) {
      const image = Object.assign(new Image(), { src: `data:image/png;base64,${png}`, alt: `drawn picture: ${name}` });
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(image);
      button.addEventListener("click", () => show(image, `drawn picture of a ${name}`));
      element("live-samples").append(button);
    }
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

  /* Logits and milliseconds of one model for decoded pixels. */
  async function run(model, { data, width, height }, repeats) {
    const pixels = livePixels.resize(data, width, height, model.size);
    const values = livePixels.normalise(pixels, model.mean, model.std), times = [];
    let logits = null;
    for (let turn = 0; turn <= repeats; turn++) {
      const input = new ort.Tensor("float32", values, [1, 3, model.size, model.size]);
      const start = performance.now();
      logits = (await model.session.run({ pictures: input })).logits.data;
      if (turn > 0) times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    return { logits: Array.from(logits), ms: times[times.length >> 1] ?? NaN, pixels };
  }

  function probabilities(logits) {
    const largest = Math.max(...logits), powers = logits.map((value) => Math.exp(value - largest));
    const total = powers.reduce((a, b) => a + b);
    return powers.map((value) => value / total);
  }

  function showResult(model, result) {
    const shares = probabilities(result.logits);
    const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]).slice(0, 5);
    const rows = order.map((index) => {
      const row = document.createElement("tr");
      const name = Object.assign(document.createElement("th"), { scope: "row", textContent: model.classes[index] });
      const share = Object.assign(document.createElement("td"), { textContent: `${(100 * shares[index]).toFixed(1)} %` });
      const bar = document.createElement("td");
      bar.setAttribute("aria-hidden", "true");
      bar.append(Object.assign(document.createElement("meter"), { value: shares[index] }));
      row.append(name, share, bar);
      return row;
    });
    element(`live-rows-${model.name}`).replaceChildren(...rows);
    element(`live-ms-${model.name}`).textContent = `${result.ms.toFixed(1)} ms a picture on this device`;
    return `${model.label}: ${model.classes[order[0]]}, ${(100 * shares[order[0]]).toFixed(0)} percent, ` +
      `${result.ms.toFixed(1)} milliseconds`;
  }

  function showSeen(pixels, size) {
    const canvas = Object.assign(element("live-seen"), { width: size, height: size });
    const image = new ImageData(size, size);
    for (let pixel = 0; pixel < size * size; pixel++) {
      image.data.set(pixels.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
      image.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  async function classify(source, name) {
    say(`Classifying ${name} …`);
    try {
      const decoded = await decode(source), said = [];
      for (const model of models) {
        await new Promise((resolve) => setTimeout(resolve)); // let the page draw
        const result = await run(model, decoded, RUNS);
        showSeen(result.pixels, model.size);
        said.push(showResult(model, result));
      }
      element("live-results").hidden = false;
      say(`${name}. ${said.join(". ")}.`);
    } catch (error) {
      say(`${name} could not be read as a picture (${error.message}). PNG, JPEG, WebP and GIF can.`);
    }
  }

  /* One picture after the other, however fast they come. */
  function show(source, name) {
    busy = busy.then(() => classify(source, name));
    return busy;
  }

  async function camera() {
    if (stream) return stopCamera();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      return say(`No camera: ${error.message ?? error}. Choose a picture file instead.`);
    }
    element("live-video").srcObject = stream;
    await element("live-video").play();
    showCamera(true);
    return say("The camera is on. Its picture stays in this page.");
  }

  function stopCamera() {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    showCamera(false);
    say("The camera is off.");
  }

  function showCamera(on) {
    element("live-video").hidden = element("live-shot").hidden = !on;
    element("live-camera").textContent = on ? "Switch the camera off" : "Use the camera";
  }

  function connect() {
    const files = (list) => Array.from(list).slice(0, 1).forEach((file) => show(file, file.name));
    element("live-load").addEventListener("click", load);
    element("live-file").addEventListener("change", (event) => files(event.target.files));
    element("live-camera").addEventListener("click", camera);
    element("live-shot").addEventListener("click", () => show(element("live-video"), "picture from the camera"));
    const drop = element("live-drop");
    for (const kind of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.toggle("live-over", kind === "dragover");
        if (kind === "drop") files(event.dataTransfer.files);
      });
    }
    document.addEventListener("paste", (event) => ort && files(event.clipboardData.files));
  }

  connect();
  /* For tests: {model: logits} of a picture file. */
  globalThis.liveLogits = async (file) => {
    const decoded = await decode(file), found = {};
    for (const model of models) found[model.name] = (await run(model, decoded, 0)).logits;
    return found;
  };
})();
