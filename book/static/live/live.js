/* The live page: pictures in, top 5 and milliseconds out, all of it in this browser.
 *
 * Words are in words.js, networks and decoding in engine.js; teach.js learns new classes. A picture of a reader's goes to
 * the networks of photographs, a drawn sample to the network of drawings: each to those that can know it. */
"use strict";

globalThis.live = (() => {
  const chinese = document.documentElement.lang.startsWith("zh");
  const text = liveWords[chinese ? "zh" : "en"];
  const RUNS = 5; // measured after one unmeasured run
  const element = (id) => document.getElementById(id);
  const panel = element("live-demo");
  if (!panel) return null;
  const models = JSON.parse(panel.dataset.models);
  for (const model of models) model.names = chinese ? model.chinese : model.classes;
  const some = (chosen) => (chosen.length ? chosen : models);
  const photos = some(models.filter((model) => !model.epochs)), drawings = some(models.filter((model) => model.epochs));
  let ort = null, stream = null, busy = Promise.resolve();
  const extras = []; // of teach.js: each answers a picture from the results of the networks

  const say = (news) => { element("live-status").textContent = news; };

  async function load() {
    element("live-load").disabled = true;
    try {
      say(text.runtime);
      ort = await liveEngine.loadRuntime(text.missing);
      for (const model of models) {
        say(text.loading(model.label));
        await liveEngine.loadModel(model, ort, text.missing);
      }
      await liveEngine.loadScript("samples", text.missing);
      showSamples(globalThis.liveSamples);
      element("live-panel").hidden = element("live-teach").hidden = false;
      element("live-load").hidden = true;
      element("live-gpu").hidden = !await liveEngine.hasGpu();
      say(text.ready);
      element("live-file").focus();
    } catch (error) {
      element("live-load").disabled = false;
      say(text.failed(error.message));
      throw error;
    }
  }

  /* Whether the graphics chip is faster is measured, for each network, and decided by that alone. */
  async function tryGpu() {
    element("live-gpu").disabled = true;
    try {
      say(text.timing);
      const gpu = await liveEngine.loadRuntime(text.missing, "runtime-webgpu", "wasm-webgpu"), news = [];
      for (const model of models) model.other = await liveEngine.open(gpu, model.bytes, "webgpu"); // all or none
      for (const model of models) {
        const found = await liveEngine.challenge(model, model.other);
        news.push(text.compared(model.label, found.before.toFixed(1), found.after.toFixed(1), found.faster));
      }
      say(text.results(news[0], news.slice(1)));
    } catch (error) {
      say(text.noGpu(error.message ?? error));
    }
  }

  function showSamples(samples) {
    for (const { name: english, png } of samples) {
      const name = drawings[0].names[drawings[0].classes.indexOf(english)] ?? english;
      const image = Object.assign(new Image(), { src: `data:image/png;base64,${png}`, alt: text.drawing(name) });
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(image);
      button.addEventListener("click", () => show(image, text.drawing(name), drawings));
      element("live-samples").append(button);
    }
  }

  /* Fill a table with the five best of some classes; none: say that none of them fits. */
  function showRows(name, names, shares, none) {
    const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]).slice(0, 5);
    const rows = order.map((index) => {
      const row = document.createElement("tr");
      const label = Object.assign(document.createElement("th"), { scope: "row", textContent: names[index] });
      const share = Object.assign(document.createElement("td"), { textContent: `${(100 * shares[index]).toFixed(1)} %` });
      const bar = document.createElement("td");
      bar.setAttribute("aria-hidden", "true");
      bar.append(Object.assign(document.createElement("meter"), { value: shares[index] }));
      row.append(label, share, bar);
      return row;
    });
    element(`live-rows-${name}`).replaceChildren(...rows);
    element(`live-none-${name}`).textContent = none ? text.none : "";
    element(`live-table-${name}`).hidden = false;
    return order[0];
  }

  function showResult(model, result) {
    const shares = liveHead.softmax(result.logits);
    const none = model.none_below !== null && Math.max(...shares) < model.none_below;
    const best = showRows(model.name, model.names, shares, none), ms = result.ms.toFixed(1);
    element(`live-ms-${model.name}`).textContent = text.ms(ms);
    return none ? text.noneOf(model.label, ms)
      : text.best(model.label, model.names[best], (100 * shares[best]).toFixed(0), ms);
  }

  function showSeen(pixels, size, canvas = element("live-seen")) {
    Object.assign(canvas, { width: size, height: size });
    const image = new ImageData(size, size);
    for (let pixel = 0; pixel < size * size; pixel++) {
      image.data.set(pixels.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
      image.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  async function classify(source, name, chosen) {
    say(text.classifying(name));
    try {
      const decoded = await liveEngine.decode(source), best = [], results = {};
      for (const table of element("live-results").querySelectorAll("[id^=live-table-]")) table.hidden = true;
      for (const model of chosen) {
        await new Promise((resolve) => setTimeout(resolve)); // let the page draw
        const result = results[model.name] = await liveEngine.run(model, decoded, RUNS);
        showSeen(result.pixels, model.size);
        best.push(showResult(model, result), ...(result.failed ? [text.lostGpu(model.label)] : []));
      }
      element("live-results").hidden = false;
      say(text.results(name, [...best, ...extras.map((extra) => extra(results)).filter(Boolean)]));
    } catch (error) {
      say(text.unreadable(name, error.message));
    }
  }

  /* One piece of work after the other, however fast they come. */
  function queue(work) {
    busy = busy.then(work);
    return busy;
  }

  const show = (source, name, chosen = photos) => queue(() => classify(source, name, chosen));

  /* Switch the camera on where it is off; whether it was on already. */
  async function needCamera() {
    if (stream) return true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(text.refused(error.message ?? error));
      return false;
    }
    element("live-video").srcObject = stream;
    await element("live-video").play();
    showCamera(true);
    say(text.started);
    return false;
  }

  async function camera() {
    if (!await needCamera() || !stream) return;
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    showCamera(false);
    say(text.stopped);
  }

  function showCamera(on) {
    element("live-video").hidden = element("live-shot").hidden = !on;
    element("live-camera").textContent = on ? text.off : text.on;
  }

  /* The words of the page's language, where the markup names them. */
  function label() {
    panel.setAttribute("aria-label", text.demo);
    for (const node of panel.querySelectorAll("[data-text]")) node.textContent = text[node.dataset.text];
    for (const node of panel.querySelectorAll("[data-label]")) node.setAttribute("aria-label", text[node.dataset.label]);
    for (const { name, size, epochs, run } of models) {
      const weights = epochs ? text.trained(epochs) : text.released;
      element(`live-origin-${name}`).textContent = text.origin(size, weights, run);
    }
    const { megabytes, gpuMegabytes } = panel.dataset;
    Object.assign(element("live-load"), { textContent: text.load(megabytes), hidden: false });
    element("live-gpu").textContent = text.gpu(gpuMegabytes);
    for (const chosen of photos.length === models.length ? [models] : [photos, drawings]) showKnown(chosen);
  }

  function showKnown(chosen) {
    const paragraph = document.createElement("p"), known = document.createElement("strong");
    known.textContent = text.knows(text.and(chosen.map((model) => model.label)), !chosen[0].epochs, chosen.length);
    paragraph.append(known, " ", text.list(chosen[0].names));
    element("live-known").append(paragraph);
  }

  function connect() {
    const files = (list) => Array.from(list).slice(0, 1).forEach((file) => show(file, file.name));
    element("live-load").addEventListener("click", load);
    element("live-gpu").addEventListener("click", () => queue(tryGpu));
    element("live-file").addEventListener("change", (event) => files(event.target.files));
    element("live-camera").addEventListener("click", camera);
    element("live-shot").addEventListener("click", () => show(element("live-video"), text.photo));
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

  label();
  connect();
  /* For tests: {model: logits} of a picture file. */
  globalThis.liveLogits = async (file) => {
    const decoded = await liveEngine.decode(file), found = {};
    for (const model of models) found[model.name] = (await liveEngine.run(model, decoded, 0)).logits;
    return found;
  };
  return { element, extras, needCamera, photos, queue, say, showRows, showSeen, text };
})();
