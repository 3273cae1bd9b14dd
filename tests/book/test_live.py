"""The live page answers in a real browser what Python answers, keeps everything there, and says what is missing."""
import base64
import functools
import html
import http.server
import io
import json
import re
import shutil
import threading

import numpy as np
import paddle
import pytest
from PIL import Image

from asymmbook.checkout import project_root
from asymmbook.pages import live
from asymmbook.pages.browser import chromium, find_chromium
from asymmlib.base.extras import missing_package
from asymmlib.base.files import checksum
from asymmlib.data.pictures import decode, load_picture, normalise
from asymmlib.data.sample import draw
from asymmlib.deploy.export import eager_logits, save_half
from asymmlib.deploy.timing import typical_network
from asymmlib.runs import Classifier
from asymmlib.weights.own import load_weights

STATIC = project_root() / "book" / "static" / "live"
POLICY = re.search(r'^ +"http-equiv=Content-Security-Policy": "(.*)"$',
                   (project_root() / "book" / "live.md").read_text(encoding="utf-8"), re.M).group(1)
SIZES = {"asymmnet_small": 64, "mobilenet_v2": 40}
EPOCHS = {"asymmnet_small": 0, "mobilenet_v2": 3}
pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
FOLDERS = {"en": "book", "zh-CN": "zh"}
ENGLISH = ["Live demo", "Load the demo (1 MB)", "Choose a picture, drop one here, or paste one:",
           "Drawn pictures to try", "Use the camera", "Picture of the camera", "Classify what the camera sees",
           "The picture as the last network receives it", *2 * ["class", "probability"],
           "AsymmNet-Small", "64 × 64 pixels; released weights, run test-1.",
           "MobileNetV2", "40 × 40 pixels; 3 epochs on the drawn pictures, run test-1."]
NO_SCRIPTS = {"en": "This demo runs in your browser and needs JavaScript, which is switched off.",
              "zh-CN": "这个演示在你的浏览器中运行，需要 JavaScript，而它已被关闭。"}
# every text with a letter in it that the demo shows, or tells a screen reader
WORDS = r"""() => [...document.querySelectorAll("#live-demo, #live-demo :not(noscript)")].flatMap((part) =>
  [...[...part.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim()),
   part.ariaLabel, part.alt]).filter((words) => /\p{L}/u.test(words ?? ""))"""
# the names of classes, networks, runs, files and formats, and what Chromium itself says of a file that it cannot read
NAMES = r"<class> \d+|AsymmNet-Small|MobileNetV2|test-1|\w+\.(png|js)|PNG|JPEG|WebP|GIF|MB|The source image[^）]*"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Two networks with random weights as the page shows them: rounded to float16, another size and scale each."""
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
            (0.26, 0.25, 0.27), "MIT", {"run": "test-1", "recipe": {
                "epochs": EPOCHS[name] or 30, "data": "sample" if EPOCHS[name] else "caltech16"}}))
    return entries


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
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
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


def pictures(folder):
    """Ten picture files: drawn and noisy, large, small, narrow, half-transparent, grey, 16 bit grey, palette, turned by
    EXIF, PNG and JPEG."""
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
    return sorted(folder.iterdir())


def test_same_logits_as_python(page, shown, tmp_path):
    files = pictures(tmp_path)
    assert len(files) == 10
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
    found = page.evaluate("""async (text) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const { data, width, height } = await liveDecode(new Blob([bytes], { type: "image/png" }));
      return Array.from(livePixels.resize(data, width, height, 256));
    }""", base64.b64encode(file.getvalue()).decode())
    assert np.array_equal(np.array(found, np.uint8).reshape(256, 256, 3), np.asarray(decode(file)))


def test_normalising_equals_numpy_to_the_last_bit(page):
    pixels, mean, std = np.arange(192, dtype=np.uint8).reshape(8, 8, 3), [0.51, 0.48, 0.45], [0.26, 0.25, 0.27]
    found = page.evaluate("([data, m, s]) => Array.from(livePixels.normalise(data, m, s))",
                          [pixels.ravel().tolist(), mean, std])
    assert np.array_equal(np.array(found, np.float32).reshape(3, 8, 8), normalise(pixels, mean, std))


def test_a_picture_by_click_by_picker_and_by_drop(page, tmp_path):
    page.click("#live-samples button >> nth=0")
    hears(page, r"^drawn picture of a balloon\. .* milliseconds")
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
    for name in SIZES:
        rows = page.locator(f"#live-rows-{name} tr")
        assert rows.count() == 5 and rows.nth(0).locator("th").inner_text().startswith("<class> ")
        shares = [float(rows.nth(index).locator("td").nth(0).inner_text().split()[0]) for index in range(5)]
        assert shares == sorted(shares, reverse=True) and shares[0] > 0
        assert re.fullmatch(r"\d+\.\d ms a picture on this device", page.inner_text(f"#live-ms-{name}"))


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
      .filter((part) => !(part.textContent.trim() || part.labels?.length || part.querySelector("img[alt]"))).length""")
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
    hears(page, r"^绘制的图片：气球。AsymmNet-Small：<class> \d+，概率 \d+%，\d+\.\d 毫秒；")
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
    shown = page.evaluate(WORDS)
    page.click("#live-camera")
    hears(page, "^摄像头已关闭")
    heard, shown = page.evaluate("heard"), shown + page.evaluate(WORDS)
    assert len(set(heard)) >= 12 and len(set(shown)) > len(set(ENGLISH)) + len(live.SAMPLES), (heard, shown)
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
    assert live.networks() == [f"trained {name}" for name in live.SHOWN]
    network, name = typical_network("asymmnet_large", 3), "asymmnet_large"
    save_half(network, tmp_path / f"{name}.safetensors")
    card = {"model": name, "settings": {"asymmrate": 1}, "classes": ["a", "b", "c"], "image_size": 64,
            "mean": [0.5] * 3, "std": [0.25] * 3, "run": "compare-1", "licence": "MIT", "dtype": "float16",
            "recipe": {"epochs": 30, "data": "caltech16"}, "sha256": checksum(tmp_path / f"{name}.safetensors")}
    (tmp_path / f"{name}.json").write_text(json.dumps(card))
    shown, other = live.networks()
    assert other == f"trained {live.SHOWN[1]}" and shown.provenance["run"] == "compare-1"
    facts = json.loads(html.unescape(re.search('data-models="([^"]*)"', live.markup([shown], 1, "x"))[1]))
    assert facts[0]["epochs"] == 0 and facts[0]["classes"] == ["a", "b", "c"] and facts[0]["size"] == 64
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(eager_logits(shown.network, images), eager_logits(network, images), atol=1e-2)


def test_samples_are_drawn_and_small():
    found = live.samples()
    assert [sample["name"] for sample in found] == list(live.SAMPLES)
    assert len(json.dumps(found)) < 1e6
    assert Image.open(io.BytesIO(base64.b64decode(found[0]["png"]))).format == "PNG"


def test_the_runtime_is_pinned_with_its_hash():
    folder = project_root() / "book" / "live"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert lock["node_modules/onnxruntime-web"]["version"] == wanted
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock.items() if name)
    assert not [name for name, entry in lock.items() if "resolved" in entry], "no registry's address in the repository"
