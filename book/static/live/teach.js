/* Teach it yours: a reader names things and gives each a few pictures; a new last layer learns to tell them apart.
 *
 * The features are those of the first network on the page, the mathematics is in head.js. What was learned can be saved
 * as JSON, which `python -m asymmlib predict --head` reads, too. */
"use strict";

if (globalThis.live) (() => {
  const { element, extras, needCamera, photos, queue, say, showRows, showSeen, text } = live;
  const FORMAT = "asymmnet-head-1", LEAST = 2, MOST = 5, DIGITS = 8;
  const network = photos[0], things = []; // {name: input, units, shown}
  let head = null;

  const make = (kind, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(kind), attributes);
    node.append(...children);
    return node;
  };

  function addThing() {
    const number = things.length + 1, thing = { units: [], shown: make("span") };
    const label = text.thing(number);
    thing.name = make("input", { type: "text", maxLength: 40, ariaLabel: label, placeholder: label });
    const files = make("input", { type: "file", accept: "image/*", multiple: true, ariaLabel: text.pictures(number) });
    files.addEventListener("change", () => {
      for (const file of files.files) queue(() => look(thing, file, file.name));
    });
    const shot = make("button", { type: "button", textContent: text.fromCamera(number) });
    shot.addEventListener("click", async () => {
      if (await needCamera()) queue(() => look(thing, element("live-video"), text.photo));
    });
    things.push(thing);
    element("live-things").append(make("div", { className: "live-thing" }, thing.name, files, shot, thing.shown));
    element("live-more").hidden = things.length >= MOST;
  }

  /* Keep the features of one picture, and show it as the network receives it. */
  async function look(thing, source, name) {
    try {
      const { features, pixels } = await liveEngine.run(network, await liveEngine.decode(source), 0);
      thing.units.push(liveHead.unit(features));
      const seen = make("canvas");
      showSeen(pixels, network.size, seen);
      thing.shown.append(seen);
      say(text.taken(thing.units.length));
    } catch (error) {
      say(text.unreadable(name, error.message));
    }
  }

  function learn() {
    const used = things.filter(({ name, units }) => name.value.trim() || units.length);
    const names = used.map(({ name }) => name.value.trim());
    if (names.length < LEAST || names.includes("") || new Set(names).size < names.length
        || used.some(({ units }) => units.length < 2)) return say(text.few(MOST));
    const units = used.flatMap((thing) => thing.units), labels = used.flatMap((thing, c) => thing.units.map(() => c));
    const start = performance.now();
    const found = liveHead.fit(units, labels, names.length, network.decay), ms = performance.now() - start;
    const right = liveHead.leaveOneOut(units, labels, names.length, network.decay);
    use({ format: FORMAT, network: network.name, sha256: network.sha256, weight_decay: network.decay, classes: names,
          pictures: used.map((thing) => thing.units.length), leave_one_out: right, ...found });
    return say(text.learned(network.label, units.length, ms.toFixed(0), right));
  }

  function use(found) {
    head = found;
    element("live-save").disabled = false;
  }

  function save() {
    const short = (values) => Array.from(values, (value) => Number(value.toPrecision(DIGITS)));
    const content = JSON.stringify({ ...head, weights: head.weights.map(short), bias: short(head.bias) });
    const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    make("a", { href: url, download: "head.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  async function open(file) {
    let found = null;
    try {
      found = JSON.parse(await file.text());
    } catch { /* no JSON: said below */ }
    if (!isHead(found)) return say(text.noHead(file.name));
    const same = found.sha256 && network.sha256 ? found.sha256 === network.sha256 : found.network === network.name;
    if (!same || found.weights[0].length !== network.features) return say(text.otherHead(file.name, network.label));
    use(found);
    return say(text.opened(text.list(head.classes)));
  }

  const numbers = (list) => Array.isArray(list) && list.every(Number.isFinite);

  function isHead(found) {
    const { format, classes, weights, bias } = found ?? {};
    return format === FORMAT && Array.isArray(classes) && classes.length >= LEAST
      && classes.every((name) => typeof name === "string") && numbers(bias) && bias.length === classes.length
      && Array.isArray(weights) && weights.length === classes.length
      && weights.every((row) => numbers(row) && row.length === weights[0].length);
  }

  /* One more answer about each picture that the network has seen. */
  extras.push((results) => {
    if (!head || !results[network.name]) return "";
    const shares = liveHead.probabilities(head, results[network.name].features);
    const best = showRows("own", head.classes, shares, false);
    return text.best(text.own, head.classes[best], (100 * shares[best]).toFixed(0), "");
  });

  function again() {
    element("live-things").replaceChildren();
    things.length = 0;
    for (let number = 0; number < LEAST; number++) addThing();
  }

  element("live-teach-how").textContent = text.teachHow(network.label, MOST);
  element("live-more").addEventListener("click", addThing);
  element("live-again").addEventListener("click", again);
  element("live-learn").addEventListener("click", () => queue(learn));
  element("live-save").addEventListener("click", save);
  element("live-open").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
  again();
})();
