/* The explorer page: controls, two drawings and a table around Costs.formula (costs.js). Loads nothing. */
"use strict";

(() => {
  const TEXT = {
    en: { settings: "Settings", variant: "Variant", width: "Width k", asymmrate: "Asymmetry rate r",
          size: "Picture side (pixels)", slider: "slider", channels: "Channels of each block",
          macs: "MACs of each block", thick: "thick: AsymmNet, thin: MobileNetV3", copy: "copies of the input",
          fresh: "new channels", parts: ["first pointwise", "depthwise", "squeeze-and-excitation", "second pointwise"],
          table: "Costs of every part", columns: ["Part", "Side", "Channels in → wide → out", "MACs", "Parameters",
          "MACs, MobileNetV3", "Parameters, MobileNetV3"], stem: "stem", head: "head", total: "total",
          million: "M", unit: 1e6, parameters: "parameters", stale: "The drawings still show the last settings that work." },
    zh: { settings: "设置", variant: "变体", width: "宽度系数 k", asymmrate: "非对称率 r", size: "图片边长（像素）",
          slider: "滑块", channels: "各块的通道数", macs: "各块的 MACs", thick: "粗条：AsymmNet，细条：MobileNetV3",
          copy: "输入的副本", fresh: "新通道", parts: ["第一个逐点卷积", "逐通道卷积", "挤压与激励", "第二个逐点卷积"],
          table: "各部分的代价", columns: ["部分", "边长", "通道：输入 → 中间 → 输出", "MACs", "参数量",
          "MobileNetV3 的 MACs", "MobileNetV3 的参数量"], stem: "首层", head: "末层", total: "合计",
          million: "百万", unit: 1e6, parameters: "参数量", stale: "图中仍是上一组可用的设置。" },
  };
  const say = TEXT[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];
  const NUMBERS = { width: { value: 1, min: 0.25, max: 2, step: 0.05 }, asymmrate: { value: 1, min: 0, max: 3, step: 1 },
                    size: { value: 224, min: 32, max: 512, step: 32 } };
  const SVG = "http://www.w3.org/2000/svg";
  const exact = (number) => number.toLocaleString("en");

  /* An element with attributes and children; svg(...) the same for drawings. */
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function numberControl(name, settings, update) {
    const { value, ...limits } = NUMBERS[name];
    const slider = html("input", { type: "range", value, ...limits, "aria-label": `${say[name]}, ${say.slider}` });
    slider.value = value;
    const box = html("input", { type: "number", id: `explorer-${name}`, value, step: "any" });
    const set = (from, to) => {
      to.value = from.value;
      settings[name] = from.value === "" ? NaN : Number(from.value);
      update();
    };
    slider.addEventListener("input", () => set(slider, box));
    box.addEventListener("input", () => set(box, slider));
    settings[name] = value;
    return html("div", {}, html("label", { for: box.id }, say[name]), box, slider);
  }

  function variantControl(variants, settings, update) {
    const select = html("select", { id: "explorer-variant" },
                        ...variants.map((name) => html("option", { value: name }, `AsymmNet-${name}`)));
    select.addEventListener("change", () => { settings.variant = select.value; update(); });
    settings.variant = select.value;
    return html("div", {}, html("label", { for: select.id }, say.variant), select);
  }

  /* One line a block: stacked bars of [number, colour], a thick one and a thin one. */
  function bars(title, pairs, labels) {
    const row = 21, left = 26, room = 236, totals = pairs.flat().map((parts) => Costs.sum(parts.map(([n]) => n)));
    const scale = room / Math.max(...totals), height = pairs.length * row;
    const stack = (parts, y, thick) => {
      let x = left;
      return parts.map(([number, colour]) => {
        const rect = svg("rect", { x, y, width: number * scale, height: thick, fill: colour });
        x += number * scale;
        return rect;
      });
    };
    return svg("svg", { viewBox: `0 0 340 ${height}`, role: "img", "aria-label": `${title}. ${say.thick}.` },
      ...pairs.flatMap(([ours, theirs], index) => [
        svg("text", { x: left - 6, y: index * row + 13, "text-anchor": "end" }, String(index)),
        ...stack(ours, index * row + 2, 11), ...stack(theirs, index * row + 14, 4),
        svg("text", { x: 336, y: index * row + 13, "text-anchor": "end" }, labels[index])]));
  }

  function key(colours) {
    const items = Object.entries(colours).map(([text, colour]) => {
      const swatch = html("span", { class: "explorer-swatch", "aria-hidden": "true" });
      swatch.style.background = colour;
      return html("li", {}, swatch, text);
    });
    return html("ul", { class: "explorer-key" }, ...items);
  }

  function drawings(ours, theirs, colours) {
    const channels = ({ copies, cIn, fresh, depthwise }) => {
      const side = copies ? [[copies * cIn, colours.copy]] : [];
      return [...side, [fresh || depthwise, fresh ? colours.new : colours.copy], ...side];
    };
    const macs = (block) => block.macs.map((number, part) => [number, colours.parts[part]]);
    const pairs = (of) => ours.blocks.map((block, index) => [of(block), of(theirs.blocks[index])]);
    const figure = (title, of, labels, names) => html("figure", {},
      html("figcaption", {}, html("strong", {}, title), html("br"), say.thick), bars(title, pairs(of), labels),
      key(names));
    return [
      figure(say.channels, channels, ours.blocks.map((block) => exact(block.depthwise)),
             { [say.copy]: colours.copy, [say.fresh]: colours.new }),
      figure(say.macs, macs, ours.blocks.map((block) => `${(Costs.sum(block.macs) / say.unit).toFixed(2)} M`),
             Object.fromEntries(say.parts.map((name, part) => [name, colours.parts[part]])))];
  }

  function table(ours, theirs) {
    const line = (tag, [name, ...cells]) => html("tr", {}, html("th", { scope: tag === "th" ? "col" : "row" }, name),
      ...cells.map((cell) => html(tag, tag === "th" ? { scope: "col" } : {}, cell)));
    const costs = (a, b) => [a.macs, a.params, b.macs, b.params].map((part) => exact(Costs.sum([part].flat())));
    const channels = ({ cIn, depthwise, out }) => `${cIn} → ${depthwise} → ${out}`;
    const body = [
      [say.stem, String(ours.stem.size), `3 → ${ours.stem.out}`, ...costs(ours.stem, theirs.stem)],
      ...ours.blocks.map((block, i) => [String(i), String(block.size), channels(block),
                                        ...costs(block, theirs.blocks[i])]),
      [say.head, String(ours.head.size), `${ours.blocks.at(-1).out} → ${ours.head.out}`,
       ...costs(ours.head, theirs.head)],
      [say.total, "", "", ...costs(ours, theirs)]];
    return html("table", { class: "table" }, html("caption", {}, say.table), html("thead", {}, line("th", say.columns)),
                html("tbody", {}, ...body.map((cells) => line("td", cells))));
  }

  function summary(settings, ours, theirs) {
    const change = (a, b) => `${a >= b ? "+" : "−"}${(100 * Math.abs(a / b - 1)).toFixed(1)} %`;
    const cost = ({ macs, params }) => `${(macs / say.unit).toFixed(1)} ${say.million} MACs, ` +
                                       `${(params / say.unit).toFixed(2)} ${say.million} ${say.parameters}`;
    return `AsymmNet-${settings.variant}, k = ${settings.width}, r = ${settings.asymmrate}, ${settings.size} × ` +
           `${settings.size}: ${cost(ours)}. MobileNetV3 (r = 0): ${cost(theirs)}. ` +
           `${change(ours.macs, theirs.macs)} MACs, ${change(ours.params, theirs.params)} ${say.parameters}.`;
  }

  function start(root, facts) {
    const settings = {}, status = html("p", { role: "status", class: "explorer-summary" });
    const pictures = html("div", { class: "explorer-drawings" });
    const scroll = html("div", { class: "explorer-table", role: "region", tabindex: "0", "aria-label": say.table });
    function update() {
      let ours, theirs;
      try {
        ours = Costs.formula(settings, facts);
        theirs = Costs.formula({ ...settings, asymmrate: 0 }, facts);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        status.textContent = `ValueError: ${error.message}. ${say.stale}`;
        root.classList.add("explorer-refused");
        return;
      }
      root.classList.remove("explorer-refused");
      status.textContent = summary(settings, ours, theirs);
      pictures.replaceChildren(...drawings(ours, theirs, facts.colours));
      scroll.replaceChildren(table(ours, theirs));
    }
    const later = () => "variant" in settings && update();
    const controls = html("form", { class: "explorer-controls", "aria-label": say.settings },
                          variantControl(Object.keys(facts.rows), settings, later),
                          ...Object.keys(NUMBERS).map((name) => numberControl(name, settings, later)));
    controls.addEventListener("submit", (event) => event.preventDefault());
    root.replaceChildren(controls, status, pictures, scroll);
    update();
  }

  document.addEventListener("DOMContentLoaded", () => start(
    document.getElementById("explorer"), JSON.parse(document.getElementById("explorer-facts").textContent)));
})();
