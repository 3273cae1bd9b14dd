/* The costs of AsymmNet by the rules of asymmlib.network.plan_blocks and asymmlib.complexity.formula, and those of
 * Paddle's MobileNetV3.
 *
 * Rows and constants come from asymmbook.pages.explorer as `facts`; nothing here repeats them.
 * tests/book/test_explorer.py compares this file with Python on random settings, messages of refused ones included.
 */
"use strict";

const Costs = (() => {
  const makeDivisible = (channels) => Math.ceil(channels / 8) * 8;

  // MobileNetV3's rule: the nearest multiple of 8, unless that takes away more than a tenth
  function nearestDivisible(channels) {
    const nearest = Math.max(8, Math.floor(Math.trunc(channels + 4) / 8) * 8);
    return nearest < 0.9 * channels ? nearest + 8 : nearest;
  }

  /* What Python refuses: `message` in Python's words; `reason` and `values` for a page in another language. */
  class Refusal extends RangeError {
    constructor(reason, values, message) {
      super(message);
      Object.assign(this, { reason, values });
    }
  }

  // Numbers as Python writes them: a float keeps its point
  const pythonInt = (x) => (Number.isNaN(x) ? "nan" : String(x));
  const pythonFloat = (x) => (Number.isInteger(x) ? x.toFixed(1) : pythonInt(x).replace("Infinity", "inf"));

  function checkSettings({ variant, width, asymmrate, size }, facts) {
    if (!(variant in facts.rows)) {
      const known = Object.keys(facts.rows).join(", ");
      throw new Refusal("variant", { variant, known }, `unknown variant '${variant}'; known: ${known}`);
    }
    if (!(width > 0 && width < Infinity)) {
      throw new Refusal("width", { width: pythonFloat(width) },
                        `width is ${pythonFloat(width)}; it must be a number above 0, such as 0.5 or 1.0`);
    }
    if (!(Number.isInteger(asymmrate) && asymmrate >= 0)) {
      throw new Refusal("asymmrate", { asymmrate: pythonInt(asymmrate) },
                        `asymmrate is ${pythonInt(asymmrate)}; it must be an integer of at least 0, such as 0, 1 or 2`);
    }
    if (!(Number.isInteger(size) && size >= 32)) {
      throw new Refusal("size", { size: pythonInt(size) },
                        `size is ${pythonInt(size)}; it must be an integer of at least 32, such as 128 or 224`);
    }
  }

  function planBlock(index, row, cIn, width, rate) {
    const expansion = makeDivisible(width * row.expansion);
    const expands = expansion > Math.max(cIn, rate * cIn);
    if (!expands && expansion !== cIn) {
      const widest = Math.max(cIn, rate * cIn);
      throw new Refusal("block", { index, width: pythonFloat(width), rate, expansion, widest, cIn },
        `block ${index} at width ${pythonFloat(width)} with asymmrate ${rate} cannot be built: its expansion ` +
        `(${expansion} channels) is not wider than max(c_in, asymmrate*c_in) = ${widest}, so the ` +
        `block would not expand, yet its depthwise convolution needs ${expansion} channels and gets ${cIn}; ` +
        "use a larger width or a smaller asymmrate");
    }
    const copies = expands ? rate : 0;
    return { index, cIn, fresh: expands ? expansion - copies * cIn : 0, copies, depthwise: expansion + copies * cIn,
             out: makeDivisible(width * row.out), kernel: row.kernel, stride: row.stride, se: row.se };
  }

  /* Parts in the order of asymmlib.complexity.PARTS; parameters with batch norm's two a channel, as Python counts. */
  function countBlock(plan, inSize, round = makeDivisible) {
    const size = Math.ceil(inSize / plan.stride), wide = plan.depthwise;
    const squeezed = round(Math.floor(wide / 4));
    const weights = [plan.cIn * plan.fresh, plan.kernel ** 2 * wide, plan.se ? 2 * wide * squeezed : 0,
                     wide * plan.out];
    const places = [inSize ** 2, size ** 2, 1, size ** 2];
    const others = [2 * plan.fresh, 2 * wide, plan.se ? squeezed + wide : 0, 2 * plan.out];
    return { ...plan, size, macs: weights.map((w, i) => w * places[i]), params: weights.map((w, i) => w + others[i]) };
  }

  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

  const countStem = (channels, size) => (
    { out: channels, size, macs: [27 * channels * size ** 2], params: [29 * channels] });

  function total(stem, blocks, head) {
    const all = [stem, ...blocks, head];
    return { stem, blocks, head, macs: sum(all.map((part) => sum(part.macs))),
             params: sum(all.map((part) => sum(part.params))) };
  }

  /* The blocks of a network, one after the other: plan(row, index, channels) says what each is made of. */
  function countBlocks(rows, stem, plan, round) {
    let before = stem;
    return rows.map((row, index) => (before = countBlock(plan(row, index, before.out), before.size, round)));
  }

  /* settings {variant, width, asymmrate, size} -> {stem, blocks, head, macs, params}; a Refusal where Python's
   * ValueError is. */
  function formula(settings, facts) {
    checkSettings(settings, facts);
    const { variant, width, asymmrate, size } = settings;
    const stem = countStem(makeDivisible(width * facts.stem), Math.ceil(size / 2));
    const plan = (row, index, cIn) => planBlock(index, row, cIn, width, asymmrate);
    const blocks = countBlocks(facts.rows[variant], stem, plan), { out: channels, size: side } = blocks.at(-1);
    const squeeze = makeDivisible(width * facts.squeeze[variant]), { features, classes } = facts;
    const head = { out: classes, size: 1,
                   macs: [channels * squeeze * side ** 2, squeeze * features, features * classes],
                   params: [channels * squeeze + 2 * squeeze, squeeze * features, (features + 1) * classes] };
    return total(stem, blocks, head);
  }

  /* The same for paddle.vision.models.mobilenet_v3_large and _small: its rows, its rounding, its head. */
  function mobileNetV3(settings, facts) {
    checkSettings(settings, facts);
    const { variant, width, size } = settings, round = nearestDivisible;
    const stem = countStem(round(width * facts.stem), Math.ceil(size / 2));
    const plan = (row, index, cIn) => {
      const wide = round(width * row.expansion);
      return { index, cIn, fresh: wide === cIn ? 0 : wide, copies: 0, depthwise: wide, out: round(width * row.out),
               kernel: row.kernel, stride: row.stride, se: row.se };
    };
    const blocks = countBlocks(facts.rows[variant], stem, plan, round);
    const { out: channels, size: side } = blocks.at(-1);
    const squeeze = 6 * channels, hidden = round(width * facts.hidden[variant]), { classes } = facts;
    const head = { out: classes, size: 1, macs: [channels * squeeze * side ** 2, squeeze * hidden, hidden * classes],
                   params: [channels * squeeze + 2 * squeeze, (squeeze + 1) * hidden, (hidden + 1) * classes] };
    return total(stem, blocks, head);
  }

  return { formula, mobileNetV3, sum };
})();

if (typeof module !== "undefined") module.exports = Costs;
