/* The live page: pictures in, top 5 and milliseconds out, all of it in this browser.
 *
 * asymmbook.pages.live writes the files in built/: each adds one entry to `liveFiles`, gzip and base64 inside a script, since
 * scripts may be read where a page is opened as a file and other files may not. */
"use strict";

(() => {
  const TEXT = {
    en: { demo: "Live demo", load: (megabytes) => `Load the demo (${megabytes} MB)`,
          choose: "Choose a picture, drop one here, or paste one:", samples: "Drawn pictures to try",
          on: "Use the camera", off: "Switch the camera off", video: "Picture of the camera",
          shot: "Classify what the camera sees", seen: "The picture as the last network receives it",
          class: "class", probability: "probability", released: "released weights",
          trained: (epochs) => `${epochs} epochs on the drawn pictures`,
          origin: (size, weights, run) => `${size} × ${size} pixels; ${weights}, run ${run}.`,
          runtime: "Loading the runtime …", loading: (name) => `Loading ${name} …`, ready: "Ready. Choose a picture.",
          missing: (file) => `${file} is missing beside this page; build the book again`,
          failed: (reason) => `The demo could not be loaded: ${reason}`, drawings: {},
          alt: (name) => `drawn picture: ${name}`, drawing: (name) => `drawn picture of a ${name}`,
          classifying: (name) => `Classifying ${name} …`, ms: (ms) => `${ms} ms a picture on this device`,
          best: (label, name, share, ms) => `${label}: ${name}, ${share} percent, ${ms} milliseconds`,
          results: (name, best) => `${[name, ...best].join(". ")}.`, photo: "picture from the camera",
          unreadable: (name, reason) =>
            `${name} could not be read as a picture (${reason}). PNG, JPEG, WebP and GIF can.`,
          refused: (reason) => `No camera: ${reason}. Choose a picture file instead.`,
          started: "The camera is on. Its picture stays in this page.", stopped: "The camera is off." },
    zh: { demo: "互动演示", load: (megabytes) => `加载演示（${megabytes} MB）`,
          choose: "选择一张图片，或拖放到这里，或直接粘贴：", samples: "可以试用的绘制图片",
          on: "打开摄像头", off: "关闭摄像头", video: "摄像头画面",
          shot: "对摄像头画面分类", seen: "最后一个网络实际收到的图片",
          class: "类别", probability: "概率", released: "随书发布的权重",
          trained: (epochs) => `在绘制的图片上训练了 ${epochs} 轮`,
          origin: (size, weights, run) => `${size} × ${size} 像素；${weights}，训练记录 ${run}。`,
          runtime: "正在加载运行时……", loading: (name) => `正在加载 ${name}……`, ready: "已就绪，请选择一张图片。",
          missing: (file) => `本页旁边缺少 ${file}，请重新生成本书`,
          failed: (reason) => `演示无法加载：${reason}`,
          drawings: { balloon: "气球", boat: "船", butterfly: "蝴蝶", car: "汽车", fish: "鱼", guitar: "吉他",
                      house: "房子", rocket: "火箭" },
          alt: (name) => `绘制的图片：${name}`, drawing: (name) => `绘制的图片：${name}`,
          classifying: (name) => `正在分类：${name}……`, ms: (ms) => `在本设备上每张图片 ${ms} 毫秒`,
          best: (label, name, share, ms) => `${label}：${name}，概率 ${share}%，${ms} 毫秒`,
          results: (name, best) => `${name}。${best.join("；")}。`, photo: "摄像头拍到的图片",
          unreadable: (name, reason) =>
            `无法把 ${name} 作为图片读取（${reason}）。可用的格式有 PNG、JPEG、WebP 和 GIF。`,
          refused: (reason) => `摄像头不可用：${reason}。请改为选择图片文件。`,
          started: "摄像头已打开，画面不会离开本页。", stopped: "摄像头已关闭。" },
  };
  const text = TEXT[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];
  const RUNS = 5; // measured after one unmeasured run
  const element = (id) => document.getElementById(id);
  const panel = element("live-demo");
  if (!panel) return;
  const folder = new URL("built/", document.currentScript.src);
  const models = JSON.parse(panel.dataset.models);
  let ort = null, stream = null, busy = Promise.resolve();

  const say = (news) => { element("live-status").textContent = news; };

  function loadScript(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, folder);
      script.onload = resolve;
      script.onerror = () => reject(new Error(text.missing(`${name}.js`)));
      document.head.append(script);
    });
  }

  async function unpack(name) {
    await loadScript(name);
    const packed = atob(globalThis.liveFiles[name]);
    delete globalThis.liveFiles[name];
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
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
      say(text.runtime);
      ort = await loadRuntime();
      for (const model of models) {
        say(text.loading(model.label));
        model.session = await ort.InferenceSession.create(await unpack(model.name), { executionProviders: ["wasm"] });
      }
      await loadScript("samples");
      showSamples(globalThis.liveSamples);
      element("live-panel").hidden = false;
      element("live-load").hidden = true;
      say(text.ready);
      element("live-file").focus();
    } catch (error) {
      element("live-load").disabled = false;
      say(text.failed(error.message));
      throw error;
    }
  }

  function showSamples(samples) {
    for (const { name: english, png } of samples) {
      const name = text.drawings[english] ?? english;
      const image = Object.assign(new Image(), { src: `data:image/png;base64,${png}`, alt: text.alt(name) });
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(image);
      button.addEventListener("click", () => show(image, text.drawing(name)));
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
    element(`live-ms-${model.name}`).textContent = text.ms(result.ms.toFixed(1));
    const [best] = order;
    return text.best(model.label, model.classes[best], (100 * shares[best]).toFixed(0), result.ms.toFixed(1));
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
    say(text.classifying(name));
    try {
      const decoded = await decode(source), best = [];
      for (const model of models) {
        await new Promise((resolve) => setTimeout(resolve)); // let the page draw
        const result = await run(model, decoded, RUNS);
        showSeen(result.pixels, model.size);
        best.push(showResult(model, result));
      }
      element("live-results").hidden = false;
      say(text.results(name, best));
    } catch (error) {
      say(text.unreadable(name, error.message));
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
      return say(text.refused(error.message ?? error));
    }
    element("live-video").srcObject = stream;
    await element("live-video").play();
    showCamera(true);
    return say(text.started);
  }

  function stopCamera() {
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
    Object.assign(element("live-load"), { textContent: text.load(panel.dataset.megabytes), hidden: false });
  }

  function connect() {
    const files = (list) => Array.from(list).slice(0, 1).forEach((file) => show(file, file.name));
    element("live-load").addEventListener("click", load);
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
  /* For tests: the pixels, and {model: logits}, of a picture file. */
  globalThis.liveDecode = decode;
  globalThis.liveLogits = async (file) => {
    const decoded = await decode(file), found = {};
    for (const model of models) found[model.name] = (await run(model, decoded, 0)).logits;
    return found;
  };
})();
