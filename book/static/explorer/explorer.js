/* The explorer page: controls, two drawings and a table around Costs.formula (costs.js). Loads nothing. */
"use strict";

(() => {
  const TEXT = {
    en: { settings: "Settings", variant: "Variant", width: "Width k", asymmrate: "Asymmetry rate r",
          size: "Picture side (pixels)", against: "Compare with", slider: "slider", channels: "Channels of each block",
          macs: "MACs of each block", thick: (other) => `thick: your settings, thin: ${other}`,
          others: { r0: "r = 0", mobilenet: "Paddle's MobileNetV3" }, copy: "copies of the input",
          fresh: "new channels", parts: ["first pointwise", "depthwise", "squeeze-and-excitation", "second pointwise"],
          table: "Costs of every part",
          columns: (other) => ["Part", "Side", "Channels in → wide → out", "MACs", "Parameters", `MACs, ${other}`,
                               `Parameters, ${other}`],
          stem: "stem", head: "head", total: "total", comma: ", ", stop: ". ", colon: ": ",
          units: [[1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""]],
          cost: (macs, params) => `${macs} MACs, ${params} parameters`,
          change: (macs, params) => `${macs} MACs, ${params} parameters`,
          stale: "The drawings still show the last settings that work.",
          refused: (error) => `ValueError: ${error.message}` },
    zh: { settings: "设置", variant: "型号", width: "宽度系数 k", asymmrate: "非对称率 r", size: "图片边长（像素）",
          against: "比较对象", slider: "滑块", channels: "各块的通道数", macs: "各块的乘加次数",
          thick: (other) => `粗条：当前设置；细条：${other}`,
          others: { r0: "r = 0", mobilenet: "Paddle 自带的 MobileNetV3" }, copy: "输入的副本",
          fresh: "新通道", parts: ["第一个逐点卷积", "逐通道卷积", "SE 模块", "第二个逐点卷积"],
          table: "各部分的开销",
          columns: (other) => ["部分", "边长", "通道：输入 → 中间 → 输出", "乘加次数", "参数量", `乘加次数（${other}）`,
                               `参数量（${other}）`],
          stem: "起始卷积", head: "分类头", total: "合计", comma: "，", stop: "。", colon: "：",
          units: [[1e8, " 亿"], [1e4, " 万"], [1, " "]], cost: (macs, params) => `${macs}次乘加，${params}个参数`,
          change: (macs, params) => `乘加次数 ${macs}，参数量 ${params}`.replaceAll(" %", "%"), stale: "图中仍是上一组可用的设置。",
          refused: ({ reason, values: v }) => ({
            variant: () => `没有型号“${v.variant}”，可选：${v.known}`,
            width: () => `宽度系数为 ${v.width}，应为大于 0 的数，例如 0.5 或 1.0`,
            asymmrate: () => `非对称率为 ${v.asymmrate}，应为不小于 0 的整数，例如 0、1 或 2`,
            size: () => `图片边长为 ${v.size}，应为不小于 32 的整数，例如 128 或 224`,
            block: () => `宽度系数 ${v.width}、非对称率 ${v.rate} 时，块 ${v.index} 无法搭建：扩展后的通道数` +
              `（${v.expansion}）不大于 max(c_in, r·c_in) = ${v.widest}，块不会扩展，而逐通道卷积需要 ${v.expansion} ` +
              `个通道，却只得到 ${v.cIn} 个；请增大宽度系数，或减小非对称率`,
          })[reason]() },
  };
  const say = TEXT[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];
  const NUMBERS = { width: { value: 1, min: 0.25, max: 2, step: 0.05 }, asymmrate: { value: 1, min: 0, max: 3, step: 1 },
                    size: { value: 224, min: 32, max: 512, step: 32 } };
  const OTHERS = { r0: (settings, facts) => Costs.formula({ ...settings, asymmrate: 0 }, facts),
                   mobilenet: Costs.mobileNetV3 };
  const SVG = "http://www.w3.org/2000/svg";
  const exact = (number) => number.toLocaleString("en");

  /* Four figures and the unit that fits: 216.9 M, 53.4 k; 2.169 亿, 608.4 万. */
  function fitting(number) {
    const [size, unit] = say.units.find(([least]) => number >= least);
    return `${Number((number / size).toPrecision(4))}${unit}`;
  }

  /* The settings in the page's address, after #: they can be kept and sent. What cannot be read there is left out. */
  function fromAddress(variants) {
    const given = new URLSearchParams(location.hash.slice(1)), known = {};
    for (const name of Object.keys(NUMBERS)) {
      const value = Number(given.get(name));
      if (given.get(name) && Number.isFinite(value)) known[name] = value;
    }
    if (variants.includes(given.get("variant"))) known.variant = given.get("variant");
    if (given.get("against") in OTHERS) known.against = given.get("against");
    return known;
  }
  const toAddress = (settings) => history.replaceState(null, "", `#${new URLSearchParams(settings)}`);

  /* An element with attributes and children; svg(...) the same for drawings. */
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function numberControl(name, settings, update) {
    const { value: usual, ...limits } = NUMBERS[name], value = settings[name] ?? usual;
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

  function choiceControl(name, choices, settings, update) {
    const select = html("select", { id: `explorer-${name}` },
                        ...Object.entries(choices).map(([value, text]) => html("option", { value }, text)));
    select.value = settings[name] ?? select.value;
    select.addEventListener("change", () => { settings[name] = select.value; update(); });
    settings[name] = select.value;
    return html("div", {}, html("label", { for: select.id }, say[name]), select);
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
    return svg("svg", { viewBox: `0 0 340 ${height}`, role: "img", "aria-label": title },
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

  function drawings(ours, theirs, colours, other) {
    const channels = ({ copies, cIn, fresh, depthwise }) => {
      const side = copies ? [[copies * cIn, colours.copy]] : [];
      return [...side, [fresh || depthwise, fresh ? colours.new : colours.copy], ...side];
    };
    const macs = (block) => block.macs.map((number, part) => [number, colours.parts[part]]);
    const pairs = (of) => ours.blocks.map((block, index) => [of(block), of(theirs.blocks[index])]);
    const figure = (title, of, labels, names) => html("figure", {},
      html("figcaption", {}, html("strong", {}, title), html("br"), say.thick(other)),
      bars(`${title}${say.stop}${say.thick(other)}`, pairs(of), labels), key(names));
    return [
      figure(say.channels, channels, ours.blocks.map((block) => exact(block.depthwise)),
             { [say.copy]: colours.copy, [say.fresh]: colours.new }),
      figure(say.macs, macs, ours.blocks.map((block) => fitting(Costs.sum(block.macs)).trim()),
             Object.fromEntries(say.parts.map((name, part) => [name, colours.parts[part]])))];
  }

  function table(ours, theirs, other) {
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
    return html("table", { class: "table" }, html("caption", {}, say.table),
                html("thead", {}, line("th", say.columns(other))), html("tbody", {}, ...body.map((cells) => line("td", cells))));
  }

  function summary(settings, ours, theirs, other) {
    const change = (a, b) => `${a >= b ? "+" : "−"}${(100 * Math.abs(a / b - 1)).toFixed(1)} %`;
    const cost = ({ macs, params }) => say.cost(fitting(macs), fitting(params));
    const name = [`AsymmNet-${settings.variant}`, `k = ${settings.width}`, `r = ${settings.asymmrate}`,
                  `${settings.size} × ${settings.size}`].join(say.comma);
    const changes = say.change(change(ours.macs, theirs.macs), change(ours.params, theirs.params));
    return [`${name}${say.colon}${cost(ours)}`, `${other}${say.colon}${cost(theirs)}`, changes, ""].join(say.stop).trim();
  }

  function start(root, facts) {
    const variants = Object.fromEntries(Object.keys(facts.rows).map((name) => [name, `AsymmNet-${name}`]));
    const settings = fromAddress(Object.keys(variants));
    const status = html("p", { role: "status", class: "explorer-summary" });
    const pictures = html("div", { class: "explorer-drawings" });
    const scroll = html("div", { class: "explorer-table", role: "region", tabindex: "0", "aria-label": say.table });
    function update() {
      const other = say.others[settings.against];
      let ours, theirs;
      try {
        ours = Costs.formula(settings, facts);
        theirs = OTHERS[settings.against](settings, facts);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        status.textContent = `${say.refused(error)}${say.stop}${say.stale}`;
        root.classList.add("explorer-refused");
        return;
      }
      root.classList.remove("explorer-refused");
      status.textContent = summary(settings, ours, theirs, other);
      pictures.replaceChildren(...drawings(ours, theirs, facts.colours, other));
      scroll.replaceChildren(table(ours, theirs, other));
    }
    function changed() {
      update();
      toAddress(settings);
    }
    const controls = html("form", { class: "explorer-controls", "aria-label": say.settings },
                          choiceControl("variant", variants, settings, changed),
                          ...Object.keys(NUMBERS).map((name) => numberControl(name, settings, changed)),
                          choiceControl("against", say.others, settings, changed));
    controls.addEventListener("submit", (event) => event.preventDefault());
    root.replaceChildren(controls, status, pictures, scroll);
    update();
  }

  document.addEventListener("DOMContentLoaded", () => start(
    document.getElementById("explorer"), JSON.parse(document.getElementById("explorer-facts").textContent)));
})();
