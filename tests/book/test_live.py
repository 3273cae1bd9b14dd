"""The live page answers in a real browser what Python answers, keeps everything there, and says what is missing."""
import base64
import functools
import html
import http.server
import io
import json
import re
import shutil
import struct
import threading
import zlib
from dataclasses import replace

import numpy as np
import paddle
import pytest
from PIL import Image

from asymmbook.checkout import project_root
from asymmbook.evidence.drawn import RECIPE, open_drawn
from asymmbook.pages import live
from asymmbook.pages.browser import chromium, find_chromium
from asymmbook.pages.webgpu import SIMULATED
from asymmlib.base.extras import missing_package
from asymmlib.base.files import checksum
from asymmlib.data.pictures import decode, load_picture, normalise
from asymmlib.data.sample import CLASSES, draw
from asymmlib.deploy.export import eager_logits, save_half
from asymmlib.deploy.heads import with_head
from asymmlib.deploy.timing import typical_network
from asymmlib.runs import Classifier
from asymmlib.weights.own import load_weights

STATIC = project_root() / "book" / "static" / "live"
POLICY = re.search(r'^ +"http-equiv=Content-Security-Policy": "(.*)"$',
                   (project_root() / "book" / "live.md").read_text(encoding="utf-8"), re.M).group(1)
SIZES = {"asymmnet_small": 64, "mobilenet_v2": 40}
NONE_BELOW = {"asymmnet_small": 0.6, "mobilenet_v2": None}
DRAWN = "asymmnet_small-drawn"
pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
FOLDERS = {"en": "book", "zh-CN": "zh"}
TABLE = ["class", "probability"]
ENGLISH = ["Live demo", "Load the demo (1 MB)", "Choose a picture, drop one here, or paste one:",
           "Drawn pictures to try", "Use the camera", "Picture of the camera", "Classify what the camera sees",
           "Try the graphics chip, too (WebGPU, 0 MB)",
           "The picture as the last network receives it", *4 * TABLE, "Your things",
           "AsymmNet-Small and MobileNetV2 know these things, on photographs, and nothing else:",
           ", ".join(f"<class> {number}" for number in range(16)),
           "AsymmNet-Small", "64 × 64 pixels; released weights, run test-1.",
           "MobileNetV2", "40 × 40 pixels; released weights, run test-1.",
           "AsymmNet-Small knows these things, drawn, and nothing else:", ", ".join(CLASSES), "AsymmNet-Small",
           f"64 × 64 pixels; {RECIPE.epochs} epochs on the drawn pictures, run {DRAWN}.",
           "Teach it yours", "Teach it yours", "One thing more", "Learn", "Save what was learned", "Start over",
           "Open what was saved:", "Name two to 5 things and give each a few pictures. AsymmNet-Small looks at them, "
           "and a new last layer learns to tell them apart, here, in less than a second. Nothing is sent.",
           *(f"{what} thing {number}{end}" for number in (1, 2) for what, end in (
               ("Name of", ""), ("Pictures of", ""), ("Take", " from the camera")))]
NO_SCRIPTS = {"en": "This demo runs in your browser and needs JavaScript, which is switched off.",
              "zh-CN": "这个演示在你的浏览器中运行，需要 JavaScript，而它已被关闭。"}
# every text with a letter in it that the demo shows, or tells a screen reader
WORDS = r"""() => [...document.querySelectorAll("#live-demo, #live-demo :not(noscript)")].flatMap((part) =>
  [...[...part.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim()),
   part.ariaLabel, part.alt]).filter((words) => /\p{L}/u.test(words ?? ""))"""
# the names of classes, networks, runs, files and formats, and what Chromium itself says of a file that it cannot read
NAMES = (r"<class> \d+|AsymmNet-Small|MobileNetV2|test-1|asymmnet_small-drawn|\w+\.(png|json|js)|PNG|JPEG|WebP|GIF|MB"
         r"|WebGPU|The source image[^）]*")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Two networks with random weights, rounded to float16, another size and scale each, as networks of photographs;
    and the page's own of drawn things."""
    entries = []
    for name, size in SIZES.items():
        network, path = typical_network(name), tmp_path_factory.mktemp("half") / "w.safetensors"
        noise = np.random.default_rng(0).normal(size=(8, 3, size, size)).astype(np.float32)
        last = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
        scale = 10 / np.abs(eager_logits(network, noise)).max()  # logits as large as a trained network's
        paddle.assign(scale * last.weight, last.weight)
        save_half(network, path)
        load_weights(network, path)
        network.eval()
        entries.append(Classifier(
            name, name, network, tuple(f"<class> {number}" for number in range(16)), size, (0.51, 0.48, 0.45),
            (0.26, 0.25, 0.27), "MIT", {"run": "test-1", "sha256": name, "none_below": NONE_BELOW[name],
                                        "recipe": {"epochs": 30, "data": "caltech16"}}))
    return [*entries, open_drawn()]


@pytest.fixture(scope="module")
def site(shown, tmp_path_factory):
    """A folder with the page as Sphinx would lay it out."""
    if live.obstacle():
        pytest.skip(live.obstacle())
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(STATIC, root / "_static" / "live", ignore=shutil.ignore_patterns("built", ".*"))
    live.build(shown, root / "_static" / "live" / "built")
    for language, folder in FOLDERS.items():
        (root / folder).mkdir()
        (root / folder / "live.html").write_text(
            f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>live</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"></head><body>'
            f'{live.markup(shown, 1.0, "../_static/live")}</body></html>', encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api")
    if find_chromium() is None:
        pytest.skip("no Chromium here: the page is not tried in a browser")
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                  *SIMULATED) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        log_message = staticmethod(lambda *_: None)

    handler = functools.partial(Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def page(browser, address):
    """The page with its demo loaded by keyboard; `page.seen` lists the addresses of all requests."""
    page = browser.new_page()
    page.seen, page.faults = [], []
    page.on("request", lambda request: page.seen.append(request.url))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(f"{address}/book/live.html")
    assert not [url for url in page.seen if "/built/" in url], "nothing heavy is loaded before the click"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "live-load"
    page.keyboard.press("Enter")
    page.wait_for_selector("#live-panel:not([hidden])", timeout=120_000)
    return page


def hears(page, pattern):
    """Wait until the text that screen readers hear matches a pattern."""
    from playwright.sync_api import expect
    expect(page.locator("#live-status")).to_have_text(re.compile(pattern), timeout=60_000)


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def deep_png(pixels):
    """A PNG file of uint16 pixels [H, W, 3 or 4], which Pillow reads and does not write."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
                      + chunk(b"IEND", b""))


def seen_in_browser(page, file, size):
    """The RGB pixels that the page makes of a picture file, uint8 [size, size, 3]."""
    found = page.evaluate("""async ([text, size]) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const { data, width, height } = await liveEngine.decode(new Blob([bytes], { type: "image/png" }));
      return Array.from(livePixels.resize(data, width, height, size));
    }""", [base64.b64encode(file.getvalue()).decode(), size])
    return np.array(found, np.uint8).reshape(size, size, 3)


def pictures(folder):
    """Eleven picture files: drawn and noisy, large, small, narrow, half-transparent, grey, 16 bits in grey and in
    colour, palette, turned by EXIF, PNG and JPEG."""
    rng = np.random.default_rng(5)
    noise = [Image.fromarray(rng.integers(0, 256 if kind == "u1" else 65_536, shape, dtype=kind)) for shape, kind in (
        ((300, 417, 3), "u1"), ((31, 200, 4), "u1"), ((64, 64), "u1"), ((7, 5, 3), "u1"), ((333, 100), "u2"))]
    drawn = [draw(name, np.random.default_rng([7, number]), 160).convert("RGB")
             for number, name in enumerate(("fish", "house", "car", "tree", "key"))]
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = [{"format": "PNG"}] * 8 + [{"format": "JPEG", "quality": 90, "exif": turned},
                                       {"format": "JPEG", "quality": 80, "subsampling": 0}]
    made = [*noise, drawn[0].quantize(64), *drawn[1:]]
    for number, (image, kind) in enumerate(zip(made, kinds, strict=True)):
        image.save(folder / f"{number}.{kind['format'].lower()}", **kind)
    (folder / "deep.png").write_bytes(deep_png(rng.integers(0, 65_536, (90, 120, 4), dtype="u2")).getvalue())
    return sorted(folder.iterdir())


def test_same_logits_as_python(page, shown, tmp_path):
    files = pictures(tmp_path)
    assert len(files) == 11
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<input type=file id=probe>')")
    for path in files:
        page.set_input_files("#probe", path)
        found = page.evaluate("liveLogits(document.getElementById('probe').files[0])")
        for classifier in shown:
            pixels = load_picture(path, classifier.image_size)
            inputs = normalise(pixels, classifier.mean, classifier.std)[None]
            name, expected = classifier.name, eager_logits(classifier.network, inputs)[0]
            assert np.abs(expected).max() > 0.5, "logits near zero would agree with anything"
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=TOLERANCE, err_msg=f"{path.name} {name}")


@pytest.mark.parametrize(("width", "height", "size"), [(300, 200, 64), (20, 31, 64), (64, 5, 64), (129, 64, 64),
                                                       (1, 1, 40), (1000, 3, 32)])
def test_resizing_equals_pillow_to_the_last_bit(page, width, height, size):
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    expected = np.asarray(decode(png_of(pixels)).resize((size, size), Image.Resampling.BILINEAR))
    found = page.evaluate("([data, w, h, s]) => Array.from(livePixels.resize(Uint8ClampedArray.from(data), w, h, s))",
                          [pixels.ravel().tolist(), width, height, size])
    assert np.array_equal(np.array(found, np.uint8).reshape(size, size, 3), expected)


def test_every_colour_of_every_transparency_is_the_one_of_python(page):
    """Through a real file, the browser's decoder and its canvas, which keeps colours multiplied by their alpha."""
    colour, alpha = np.mgrid[:256, :256].astype(np.uint8)
    file = png_of(np.stack([colour, colour[::-1], np.roll(colour, 77, 0), alpha], axis=-1))
    assert np.array_equal(seen_in_browser(page, file, 256), np.asarray(decode(file)))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_those_of_python(page, channels):
    """All 65,536 values in each colour, and 64 steps of transparency."""
    values = np.arange(65_536, dtype=np.uint16)
    pixels = np.stack([values, values[::-1], np.roll(values, 4321), (values % 64) * 1040][:channels], axis=-1)
    file = deep_png(pixels.reshape(256, 256, channels))
    expected = np.asarray(decode(file))
    assert np.array_equal(seen_in_browser(page, file, 256), expected)
    assert len(np.unique(expected)) == 256


def test_normalising_equals_numpy_to_the_last_bit(page):
    pixels, mean, std = np.arange(192, dtype=np.uint8).reshape(8, 8, 3), [0.51, 0.48, 0.45], [0.26, 0.25, 0.27]
    found = page.evaluate("([data, m, s]) => Array.from(livePixels.normalise(data, m, s))",
                          [pixels.ravel().tolist(), mean, std])
    assert np.array_equal(np.array(found, np.float32).reshape(3, 8, 8), normalise(pixels, mean, std))


def test_a_picture_by_click_by_picker_and_by_drop(page, tmp_path):
    page.click("#live-samples button >> nth=0")
    hears(page, rf"^drawn picture: {live.samples()[0]['name']}\. AsymmNet-Small: .* milliseconds")
    assert page.is_visible(f"#live-table-{DRAWN}") and page.is_hidden("#live-table-mobilenet_v2")
    path = tmp_path / "mine.png"
    draw("sun", np.random.default_rng(1), 100).save(path)
    page.set_input_files("#live-file", path)
    hears(page, r"^mine\.png\. ")
    page.evaluate("""async (bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png", { type: "image/png" }));
      document.getElementById("live-drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
    }""", list(path.read_bytes()))
    hears(page, r"^dropped\.png\. ")
    assert page.is_hidden(f"#live-table-{DRAWN}") and page.is_visible("#live-table-mobilenet_v2")
    for name in SIZES:
        rows = page.locator(f"#live-rows-{name} tr")
        assert rows.count() == 5 and rows.nth(0).locator("th").inner_text().startswith("<class> ")
        shares = [float(rows.nth(index).locator("td").nth(0).inner_text().split()[0]) for index in range(5)]
        assert shares == sorted(shares, reverse=True) and shares[0] > 0
        assert re.fullmatch(r"\d+\.\d ms a picture on this device", page.inner_text(f"#live-ms-{name}"))


def test_forty_pictures_get_the_answers_of_python(page, shown, tmp_path):
    """Drawings that no network has seen; where two classes are nearly level, either may be the browser's."""
    paths, names = [], [CLASSES[number % len(CLASSES)] for number in range(40)]
    for number, name in enumerate(names):
        paths.append(tmp_path / f"{number:02d}.png")
        draw(name, np.random.default_rng([13, number]), 120).save(paths[-1])
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<input type=file multiple id=many>')")
    page.set_input_files("#many", paths)
    found = page.evaluate("""async () => { const all = [];
      for (const file of document.getElementById('many').files) all.push(await liveLogits(file));
      return all; }""")
    for classifier in shown:
        expected, logits = classifier.predict(paths), np.array([answer[classifier.name] for answer in found])
        best = logits.argmax(axis=1)
        assert (expected[np.arange(40), best] > expected.max(axis=1) - TOLERANCE).all(), classifier.name
    assert classifier.name == DRAWN, "the last one knows these drawings"
    assert sum(classifier.classes[number] == name for number, name in zip(best, names, strict=True)) >= 36


def test_the_samples_are_known(page):
    """Seven of the eight at least: they are the first drawings of a seed, whatever the network makes of them."""
    names, right = [sample["name"] for sample in live.samples()], 0
    assert page.locator("#live-samples button").count() == len(names) == 8
    for number, name in enumerate(names):
        page.click(f"#live-samples button >> nth={number}")
        hears(page, rf"^drawn picture: {name}\. ")
        right += page.inner_text(f"#live-rows-{DRAWN} tr:first-child th") == name
    assert right >= 7


def test_none_of_these_as_python_says(page, shown, tmp_path):
    """Below the threshold that comes with the weights, and only there; a network without one always names a class."""
    limited, free = shown[:2]
    said = []
    for path in pictures(tmp_path):
        best = limited.predict([path]).max()
        page.set_input_files("#live-file", path)
        hears(page, rf"^{path.name}\. ")
        none = page.inner_text(f"#live-none-{limited.name}")
        if abs(best - limited.none_below) > TOLERANCE:
            said.append(none)
            assert none == ("None of these. The most probable are:" if best < limited.none_below else "")
            assert ("AsymmNet-Small: none of these" in page.inner_text("#live-status")) == bool(none)
        assert page.inner_text(f"#live-none-{free.name}") == ""
    assert len(set(said)) == 2, "both answers were tried"


def test_teach_it_yours(page, shown, tmp_path):
    """What is learned here answers as Python does with the saved head, and can be opened again."""
    files = {}
    for kind in ("sun", "key"):
        for number in range(8):
            files.setdefault(kind, []).append(tmp_path / f"{kind}{number}.png")
            draw(kind, np.random.default_rng([5, number]), 100).save(files[kind][-1])
    page.click("#live-learn")
    hears(page, "^Name two to 5 things")
    for number, kind in enumerate(files):
        page.locator(".live-thing input[type=text]").nth(number).fill(f"my {kind}")
        page.locator(".live-thing input[type=file]").nth(number).set_input_files(files[kind][:5])
        page.wait_for_function(
            "n => document.querySelectorAll('.live-thing')[n].querySelectorAll('canvas').length == 5", arg=number)
    page.click("#live-learn")
    hears(page, r"^AsymmNet-Small has learned from 10 pictures in \d+ milliseconds\. .* gets \d+ of 10 right")
    with page.expect_download() as download:
        page.click("#live-save")
    head = tmp_path / "head.json"
    download.value.save_as(head)
    network = typical_network(shown[0].name)
    network.set_state_dict(shown[0].network.state_dict())
    network.eval()
    mine = with_head(replace(shown[0], network=network), head)
    assert mine.classes == ("my sun", "my key")
    tests = [*files["sun"][5:], *files["key"][5:]]
    for path, expected in zip(tests, mine.predict(tests), strict=True):
        page.set_input_files("#live-file", path)
        hears(page, rf"^{path.name}\. .*Your things: my ")
        row = page.locator("#live-rows-own tr").first
        assert row.locator("th").inner_text() == mine.classes[expected.argmax()]
        assert float(row.locator("td").first.inner_text().split()[0]) == pytest.approx(100 * expected.max(), abs=0.11)
    content = json.loads(head.read_text(encoding="utf-8"))
    for name, change, words in (("other.json", {"sha256": "another"}, "other weights"),
                                ("no.json", {"bias": [1]}, "nothing"),
                                ("short.json", {"weights": [[1.0], [2.0]]}, "another network")):
        (tmp_path / name).write_text(json.dumps({**content, **change}), encoding="utf-8")
        page.set_input_files("#live-open", tmp_path / name)
        hears(page, rf"^{name} .*{words}")
    page.set_input_files("#live-open", head)
    hears(page, "^Opened: my sun, my key")
    page.click("#live-again")
    assert page.locator(".live-thing").count() == 2 and page.locator(".live-thing canvas").count() == 0


def test_the_graphics_chip_is_taken_only_where_it_is_faster(page):
    """By timing: the page's engine against a slow and a fast one that stand in for it, and one with other answers."""
    taken = page.evaluate("""async () => {
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms)), answers = [3, 1], found = [];
      const engine = (ms, logits) => ({ ort: { Tensor: class {} }, session: { run: async () => {
        await wait(ms);
        return { logits: { data: logits }, features: { data: [0] } }; }, release: async () => { freed++; } } });
      let freed = 0;
      for (const other of [engine(12, answers), engine(1, answers), engine(1, [1, 3])]) {
        const before = engine(6, answers), model = { size: 32, engine: before };
        const { faster } = await liveEngine.challenge(model, other);
        found.push([faster, model.engine.session === other.session, model.engine.replaced === before, freed]);
      }
      return found;
    }""")
    assert taken == [[False, False, False, 1], [True, True, True, 1], [False, False, False, 2]]


def test_a_slow_chip_is_not_waited_for(page):
    """Three turns of more than a second decide; fifteen would take a reader's patience."""
    turns = page.evaluate("""async () => {
      const answer = { logits: { data: [1] }, features: { data: [1] } }, ort = { Tensor: class {} };
      let turns = 0;
      const quick = { run: async () => answer }, slow = { release: async () => {}, run: async () => {
        turns++;
        await new Promise((done) => setTimeout(done, 1100));
        return answer; } };
      await liveEngine.challenge({ size: 8, engine: { ort, session: quick } }, { ort, session: slow });
      return turns;
    }""")
    assert turns == 1 + 3


def simulated(browser):
    """Skip where this Chromium has no WebGPU on the processor."""
    page = browser.new_page()
    page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("http://localhost/")
    found = page.evaluate("async () => (await navigator.gpu?.requestAdapter())?.info.architecture")
    page.close()
    if not found:
        pytest.skip("this Chromium has no WebGPU that works without a graphics chip")


def test_a_lost_chip_gives_way_to_webassembly(browser, page):
    """The device of a session is destroyed: a run on it would never end. `page` answers as before, and says so."""
    simulated(browser)
    found = page.evaluate("""async () => {
      const model = live.photos[1], engine = model.engine;
      const gpu = await liveEngine.loadRuntime(String, "runtime-webgpu", "wasm-webgpu");
      const chip = await liveEngine.open(gpu, model.bytes, "webgpu");
      const picture = new ImageData(model.size, model.size);
      const late = new Promise((done) => setTimeout(done, 60000, "hangs"));
      const run = () => Promise.race([late, liveEngine.run(model, picture, 0)]);
      const known = await run();
      (await gpu.env.webgpu.device).destroy();
      model.engine = { ...chip, replaced: engine };
      const after = await run(), again = await run();
      const timed = liveEngine.challenge(model, chip).then(() => "timed", () => "refused");
      const refused = await Promise.race([late, timed]);
      model.engine = { ...chip, replaced: engine };
      return { known: known.logits, after: after.logits, failed: [after.failed, again.failed], refused };
    }""")
    assert found["failed"] == [True, False] and found["after"] == found["known"] and found["refused"] == "refused"
    page.click("#live-samples button >> nth=0")  # the drawn network is as it was
    hears(page, "milliseconds.$")
    page.evaluate("""async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 9, height: 9 });
      canvas.getContext("2d");
      const transfer = new DataTransfer();
      const blob = await new Promise((done) => canvas.toBlob(done));
      transfer.items.add(new File([blob], "lost.png", { type: "image/png" }));
      document.getElementById("live-drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
    }""")
    hears(page, r"^lost\.png\. .*milliseconds\. The graphics chip was lost; MobileNetV2 without it from now on\.")


@pytest.mark.parametrize(("adapter", "offered"), [
    ("null", False), ("{ info: { isFallbackAdapter: true } }", False), ("{ info: { isFallbackAdapter: false } }", True),
    ("{}", True)])
def test_webgpu_is_offered_where_there_is_a_chip(page, adapter, offered):
    """One that the processor plays is none, and browsers before 2025 do not say what they have."""
    found = page.evaluate(f"""async () => {{
      const kept = GPU.prototype.requestAdapter;
      GPU.prototype.requestAdapter = async () => ({adapter});
      try {{ return await liveEngine.hasGpu(); }} finally {{ GPU.prototype.requestAdapter = kept; }}
    }}""")
    assert found is offered and page.is_hidden("#live-gpu"), "Chromium's own runs on the processor"


def test_what_is_no_picture_is_said(page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#live-file", tmp_path / "text.png")
    hears(page, r"^text\.png could not be read as a picture")


def test_camera(page):
    page.click("#live-camera")
    page.wait_for_selector("#live-shot:not([hidden])")
    page.click("#live-shot")
    hears(page, r"^picture from the camera\. ")
    page.click("#live-camera")
    assert page.inner_text("#live-status") == "The camera is off." and page.is_hidden("#live-video")


def test_everything_has_a_name_and_news_are_announced(page):
    assert page.get_attribute("#live-status", "aria-live") == "polite"
    unnamed = page.evaluate("""() => Array.from(document.querySelectorAll("#live-demo button, #live-demo input"))
      .filter((part) => !(part.textContent.trim() || part.labels?.length || part.ariaLabel
        || part.querySelector("img[alt]"))).length""")
    assert unnamed == 0


def test_nothing_leaves_the_browser(page, address):
    """Last of those that use `page`: after all of them, every request went to the page's own files."""
    assert page.seen and all(url.startswith((address, "blob:", "data:")) for url in page.seen), page.seen
    tried = page.evaluate("""(url) => fetch(url).then(() => "sent", () => "refused")""", f"{address}/book/live.html")
    assert tried == "refused", "the policy forbids even the page's own server"
    assert page.faults == []


def test_english_words(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/book/live.html")
    assert sorted(page.evaluate(WORDS)) == sorted(ENGLISH)


def test_chinese_words(browser, address, tmp_path):
    """All that the demo shows and all that it says, complaints too, is Chinese."""
    page = browser.new_page()
    page.goto(f"{address}/zh/live.html")
    page.evaluate("""() => {
      globalThis.heard = [];
      new MutationObserver((changes) => heard.push(...changes.flatMap(({ addedNodes: [text] }) => text?.data ?? [])))
        .observe(document.getElementById("live-status"), { childList: true });
    }""")
    page.route("**/wasm.js", lambda route: route.abort())
    page.click("#live-load")
    hears(page, "^演示无法加载：本页旁边缺少 wasm.js")
    page.unroute("**/wasm.js")
    page.click("#live-load")
    hears(page, "^已就绪")
    page.click("#live-samples button >> nth=0")
    hears(page, r"^合成图片：[\u4e00-\u9fff]+。AsymmNet-Small：[\u4e00-\u9fff]+，概率 \d+%，\d+\.\d 毫秒。")
    page.evaluate("""() => { const model = live.photos[1];
      model.engine = { ort: model.engine.ort, replaced: model.engine, session: { run: () => Promise.reject() } }; }""")
    draw("sun", np.random.default_rng(1), 100).save(tmp_path / "sun.png")
    page.set_input_files("#live-file", tmp_path / "sun.png")
    hears(page, "图形处理器已失去连接，MobileNetV2 此后不用。$")
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#live-file", tmp_path / "text.png")
    hears(page, "^无法把 text.png 作为图片读取")
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject('没有设备'); }")
    page.click("#live-camera")
    hears(page, "^摄像头不可用：没有设备。")
    page.evaluate("delete navigator.mediaDevices.getUserMedia")
    page.click("#live-camera")
    hears(page, "^摄像头已打开")
    page.click("#live-shot")
    hears(page, "^摄像头拍到的图片。")
    page.click("#live-learn")
    hears(page, "^请给 2.5 样东西起不同的名称")
    for number in range(2):
        page.locator(".live-thing input[type=text]").nth(number).fill(f"<class> {number}")
        for count in range(2):
            page.locator(".live-thing button").nth(number).click()
            hears(page, f"^{count + 1} 张图片")
    page.click("#live-learn")
    hears(page, "^AsymmNet-Small 用 4 张图片学习，用时")
    (tmp_path / "no.json").write_text("[]")
    page.set_input_files("#live-open", tmp_path / "no.json")
    hears(page, "^no.json 不是本页保存的")
    shown = page.evaluate(WORDS)
    page.click("#live-camera")
    hears(page, "^摄像头已关闭")
    heard, shown = page.evaluate("heard"), shown + page.evaluate(WORDS)
    assert len(set(heard)) >= 12 and len(set(shown)) > len(set(ENGLISH)) + live.SAMPLES, (heard, shown)
    assert [words for words in heard + shown if re.search("[A-Za-z]", re.sub(NAMES, "", words))] == []


@pytest.mark.parametrize("language", FOLDERS)
def test_without_scripts_the_page_says_so(browser, address, language):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/{FOLDERS[language]}/live.html")
    assert page.inner_text("#live-demo").strip() == NO_SCRIPTS[language]


@pytest.mark.parametrize(("language", "words"), [("en", "The demo was not built"), ("zh-CN", "这一份书没有生成演示")])
def test_a_missing_demo_is_said_in_one_language(browser, tmp_path, language, words):
    text = live.MISSING.format(root=STATIC.as_uri(), reason="a reason")
    path, page = tmp_path / "live.html", browser.new_page()
    path.write_text(f'<html lang="{language}"><meta charset="utf-8">{text}</html>', encoding="utf-8")
    page.goto(path.as_uri())
    found = page.inner_text("#live-missing")
    assert found.startswith(words) and found.count("a reason") == 1 and len(found.splitlines()) == 1


def test_works_when_opened_as_a_file(browser, site):
    page = browser.new_page()
    page.goto((site / "book" / "live.html").as_uri())
    page.click("#live-load")
    page.wait_for_selector("#live-panel:not([hidden])", timeout=120_000)
    page.click("#live-samples button >> nth=1")
    hears(page, "milliseconds")


def test_a_missing_file_is_said(browser, site, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "_static" / "live" / "built" / "wasm.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "site" / "book" / "live.html").as_uri())
    page.click("#live-load")
    hears(page, "wasm.js is missing")
    assert page.is_enabled("#live-load")


@pytest.mark.skipif(bool(missing_package("onnx")), reason=missing_package("onnx"))
def test_without_the_runtime_the_page_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "runtime_dir", lambda: tmp_path / "nowhere")
    monkeypatch.setattr(live, "built_dir", lambda: tmp_path / "built")
    (tmp_path / "built").mkdir()
    text = live.demo()._repr_html_()
    assert "was not built" in text and live.SET_UP in text and "<script" not in text
    assert not (tmp_path / "built").exists(), "nothing of an older build stays"
    with pytest.raises(RuntimeError, match="onnxruntime-web is not here; with npm installed: npm ci"):
        live.build()


def test_without_onnx_the_page_names_the_extra(monkeypatch):
    monkeypatch.setattr(live, "missing_package", lambda name: "the package onnx is in the extra `ship`")
    monkeypatch.setattr(live, "built_dir", lambda: project_root() / "_build" / "nothing")
    assert "extra `ship`" in live.demo()


def test_released_weights_are_taken_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("ASYMMLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(live, "trained", lambda name: f"trained {name}")
    assert live.networks()[:2] == [f"trained {name}" for name in live.SHOWN]
    network, name = typical_network("asymmnet_large", 3), "asymmnet_large"
    save_half(network, tmp_path / f"{name}.safetensors")
    card = {"model": name, "settings": {"asymmrate": 1}, "classes": ["a", "b", "c"], "image_size": 64,
            "mean": [0.5] * 3, "std": [0.25] * 3, "run": "compare-1", "licence": "MIT", "dtype": "float16",
            "recipe": {"epochs": 30, "data": "caltech16"}, "sha256": checksum(tmp_path / f"{name}.safetensors")}
    (tmp_path / f"{name}.json").write_text(json.dumps(card))
    shown, other, drawn = live.networks()
    assert drawn.name == DRAWN and other == f"trained {live.SHOWN[1]}" and shown.provenance["run"] == "compare-1"
    facts = json.loads(html.unescape(re.search('data-models="([^"]*)"', live.markup([shown], 1, "x"))[1]))
    assert facts[0]["epochs"] == 0 and facts[0]["classes"] == ["a", "b", "c"] and facts[0]["size"] == 64
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(eager_logits(shown.network, images), eager_logits(network, images), atol=1e-2)


def test_samples_are_drawn_and_small():
    found = live.samples()
    assert len(found) == len({sample["name"] for sample in found}) == live.SAMPLES
    assert {sample["name"] for sample in found} < set(CLASSES)
    assert len(json.dumps(found)) < 1e6
    assert Image.open(io.BytesIO(base64.b64decode(found[0]["png"]))).format == "PNG"


def test_the_runtime_is_pinned_with_its_hash():
    folder = project_root() / "book" / "live"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert lock["node_modules/onnxruntime-web"]["version"] == wanted
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock.items() if name)
    assert not [name for name, entry in lock.items() if "resolved" in entry], "no registry's address in the repository"
