"""The built site in a browser whose network is cut: every page of every language, two widths, light and dark.

Needs `make site` before; skipped, with the reason, where there is no built site or no Chromium. Light pages are served
from this machine, dark ones opened from file://, so that both ways are tested. Each page is loaded once in each way:
the tests that look at it share that visit.
"""
import contextlib
import csv
import functools
import gzip
import http.server
import itertools
import os
import re
import shutil
import subprocess
import threading
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from asymmbook.checkout import project_root
from asymmbook.pages import browser
from asymmlib.complexity import formula
from asymmlib.recipes import Recipe

SITE = project_root() / "_build" / "html"
HERE = Path(__file__).parent
FOLDERS = ("book", "book/api", "notebooks")
PAGES = sorted(path.relative_to(SITE).as_posix() for edition in ("", "zh") for folder in FOLDERS
               for path in (SITE / edition / folder).glob("*.html"))
WAYS = {"light": "http", "dark": "file"}
WIDTHS = (1400, 390)
MAX_BYTES = 1_000_000
CUT = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # the network, for the browser
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"
# formulas of this page that MathJax has left as text, or set as an error
UNSET_FORMULAS = """[...document.querySelectorAll('.bd-article .math')].filter(e => e.offsetParent)
  .filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror')).map(e => e.textContent)"""
# what is wider than its box, or than the page: by its kind and how it begins
CUT_OFF = """(() => {
  const edge = document.querySelector('.bd-article').getBoundingClientRect().right + 1;
  return [...document.querySelectorAll('.bd-article :is(pre, table, img, svg, mjx-container, .explorer-table)')]
    .filter(e => e.checkVisibility())
    .filter(e => e.getBoundingClientRect().right > edge ||
                 (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && !e.matches('mjx-container:not([display])')))
    .map(e => `${e.tagName} ${e.textContent.trim().slice(0, 80)}`);
})()"""
# whatever in the text is wider than its box, so that a reader would have to push it; what is folded is opened
CLIPPED = """(() => {
  const folded = [...document.querySelectorAll('.bd-article details:not([open])')];
  for (const box of folded) box.open = true;
  const wide = [...document.querySelectorAll('.bd-article *')].filter(e => e.clientWidth > 1
    && (!e.closest('mjx-container') || e.matches('mjx-container[display]'))  // letters lean out of their boxes
    && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible');
  const found = wide.map(e =>
    `${e.tagName} ${e.scrollWidth} of ${e.clientWidth}: ${e.textContent.trim().slice(0, 80)}`);
  for (const box of folded) box.open = false;
  return found;
})()"""
# names in tables that are broken into more lines than they have words
BROKEN_NAMES = """[...document.querySelectorAll('.bd-article table code')].filter(e => e.checkVisibility())
  .filter(e => e.getClientRects().length > e.textContent.trim().split(/[\\s/-]+/).length).map(e => e.textContent)"""
# the texts of what cells have put out, and of the cells of their tables
OUTPUTS = "[...document.querySelectorAll('.bd-article .cell_output')].map(e => e.textContent)"
TABLE_CELLS = """[...document.querySelectorAll('.bd-article .cell_output :is(th, td)')]
  .filter(e => !e.querySelector('code')).map(e => e.textContent.trim())"""
# numbers in tables, and the headings above them, that do not stand to the right: column by column, from the right
ASKEW = """[...document.querySelectorAll('.bd-article table')].flatMap(table => {
  const rows = [...table.rows].map(row => [...row.cells].reverse()), found = [];
  for (let k = 0; k < Math.max(0, ...rows.map(row => row.length)); k++) {
    const cells = rows.map(row => row[k])
      .filter(cell => cell && cell.colSpan === 1 && cell.textContent.trim());
    const body = cells.filter(cell => cell.closest('tbody'));
    if (!body.length || !body.every(cell => /^[-+]?[0-9][0-9.,]*$/.test(cell.textContent.trim())))
      continue;
    found.push(...cells.filter(cell => getComputedStyle(cell).textAlign !== 'right')
      .map(cell => cell.textContent.trim()));
  }
  return found;
})"""
# what tables look like: for each part of one and each property, its values where they differ from table to table
LOOKS = """(() => {
  const parts = {'': ['borderTopWidth', 'borderLeftWidth', 'fontSize', 'color'],
    'thead tr': ['backgroundColor', 'borderBottomWidth', 'borderBottomColor'],
    'tbody tr': ['backgroundColor', 'borderBottomWidth', 'borderBottomColor'],
    ':is(th, td)': ['backgroundColor', 'borderLeftWidth', 'borderTopWidth', 'paddingLeft', 'verticalAlign']};
  return Object.entries(parts).flatMap(([part, names]) => names.map(name => {
    const found = [...document.querySelectorAll(`.bd-article table ${part}`)].filter(e => e.checkVisibility());
    const values = [...new Set(found.map(e => getComputedStyle(e)[name]))];
    return values.length > 1 ? `${part || 'table'}, ${name}: ${values.join(' | ')}` : '';
  })).filter(Boolean);
})()"""
# Of the thousands of tokens of a page's code, the first of each style stands for those that look the same: their
# contrast took half the time of these tests. What passes is thousands of records a page: it stays in the browser
VIOLATIONS = """(() => {
  const seen = new Set();
  for (const token of document.querySelectorAll('.highlight pre span[class]')) {
    const parents = [token.parentElement.closest('[class]'), token.closest('.highlight').parentElement];
    const style = [token, ...parents].map(e => e.className).join(' in ');
    if (seen.has(style)) token.dataset.again = ''; else seen.add(style);
  }
  axe.configure({rules: [{id: 'color-contrast', selector: '*:not([data-again])'}]});
  return axe.run(document, {resultTypes: ['violations'], preload: false}).then(result => result.violations);
})()"""
# names, for the eye or the ear, of the controls that the theme puts around a page
CONTROLS = """[...document.querySelectorAll('button, nav, input')]
  .filter(e => e.offsetParent && !e.closest('.bd-article'))
  .map(e => e.ariaLabel || e.title || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent ||
            e.textContent.trim() || '')"""
# what a reader sees of the live page's demo before it is loaded
DEMO = "() => document.querySelector('.live').innerText.trim()"
LIVES = [page for page in PAGES if page.endswith("book/live.html")]
EXPLORERS = [page for page in PAGES if page.endswith("book/explorer.html")]


# What a reader may type, and the page that must come first
QUERIES = {"": {
    "install": "book/how-to-run", "GPU": "book/how-to-run", "colab": "book/how-to-run", "overfitting": "notebooks/05",
    "train test split": "notebooks/01", "data loader": "notebooks/02", "augmentation": "notebooks/02",
    "learning rate": "notebooks/03", "callback": "notebooks/03", "Bottleneck": "notebooks/04",
    "squeeze and excitation": "notebooks/04", "mcnemar": "notebooks/05", "FLOPs": "notebooks/06",
    "asymmetry rate": "notebooks/07", "im2col": "notebooks/08", "quantization": "book/int8", "onnx": "notebooks/09",
    "grad-cam": "notebooks/10", "webcam": "book/live", "benchmark": "book/speed",
    "twelve flaws": "book/critical-reading", "fine-tuning": "book/transfer",
    "checkpoint": "book/trust", "multi-gpu": "book/scale-out", "glossary": "book/notation", "width": "book/explorer"},
    "zh/": {
    "怎么运行": "book/how-to-run", "显卡": "book/how-to-run", "安装": "book/how-to-run", "过拟合": "notebooks/05",
    "数据集划分": "notebooks/01", "数据加载": "notebooks/02", "数据增强": "notebooks/02", "学习率": "notebooks/03",
    "回调": "notebooks/03", "瓶颈": "notebooks/04", "挤压与激励": "notebooks/04", "置信区间": "notebooks/05",
    "参数量": "notebooks/06", "非对称率": "notebooks/07", "加速": "notebooks/08", "量化": "book/int8",
    "部署": "notebooks/09", "特征图": "notebooks/10", "摄像头": "book/live", "基准测试": "book/speed",
    "原教程": "book/critical-reading", "断点续训": "book/trust", "多机": "book/scale-out", "术语": "book/notation",
    "宽度系数": "book/explorer", "迁移学习": "book/transfer"}}
# Of each query, what Sphinx's search would show first: [docname, title, anchor, description, score, file name]
FIRST = "queries => queries.map(query => Search._performSearch(...Search._parseQuery(query)).at(-1))"
SEARCH_ICON = """(() => {
  const icon = document.querySelector('.bd-search-container .fa-magnifying-glass').getBoundingClientRect();
  const input = document.querySelector('.bd-search-container input'), style = getComputedStyle(input);
  return input.getBoundingClientRect().left + parseFloat(style.paddingLeft) - icon.right;
})()"""


FOR_NO_READER = (r"No ccache found|\b[WE]\d{4} \d\d:\d\d:|site-packages|\bWarning:|\b\w+Warning: |\d:\d\d:\d\d left"
                 r"|OMP_NUM_THREADS (?:is )?set to"
                 r"|(?<![\w.~/-])/(?:root|work|tmp|Users|var/folders|home/(?!aistudio\b))[\w./-]*")


@functools.cache
def raw_names():
    """Names of columns and cases in the recorded files that are no words: those with an underscore."""
    names = set()
    for path in (project_root() / "results").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            names.update(table.fieldnames or ())
            names.update(row["case"] for row in table if "case" in row)
    return {name for name in names if "_" in name} - {field.name for field in fields(Recipe)}  # code that readers write


@pytest.fixture(scope="session")
def chromium():
    if not PAGES:
        pytest.skip("no built site in _build/html: run `make site` first")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if browser.find_chromium() is None:
        pytest.skip("no Chromium here; on Debian: apt install chromium")
    with browser.chromium(CUT) as started:
        yield started


@pytest.fixture(scope="session")
def server():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def end_headers(self):
            self.send_header("Cache-Control", "max-age=600")  # as GitHub Pages
            super().end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Visitor:
    """A tab that records what went wrong, and what was loaded, while it shows pages of the site."""

    def __init__(self, context, base):
        self.base, self.problems, self.loaded = base, [], set()
        self.page = context.new_page()
        self.page.on("request", lambda request: self._note(request.url))  # to route them would turn the cache off
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("response", lambda answer: answer.status >= 400 and self.problems.append(answer.url))

    def _note(self, url):
        if url.startswith(("data:", "blob:")):
            return
        if not url.startswith(self.base):
            self.problems.append(f"left the site: {url}")
        path = SITE / unquote(urlsplit(url[len(self.base):].lstrip("/")).path)
        if path.is_file():
            self.loaded.add(path)

    def open(self, name):
        self.name = name
        self.page.goto(f"{self.base}/{name}", wait_until="load")
        self.page.evaluate("Promise.all([window.MathJax?.startup?.promise, document.fonts.ready]).then(() => 0)")
        return self.page

    def weight(self):
        """Bytes that GitHub Pages would send: text compressed, pictures and fonts as they are."""
        return sum(map(sent_bytes, self.loaded))


@functools.cache
def sent_bytes(path):
    text = path.suffix in {".html", ".css", ".js", ".svg", ".json"}
    return len(gzip.compress(path.read_bytes(), 6)) if text else path.stat().st_size


@pytest.fixture(scope="session")
def contexts(chromium):
    """One browser profile a theme: what many pages load, such as MathJax, comes from its cache."""
    return {theme: chromium.new_context(color_scheme=theme, reduced_motion="reduce",
                                        viewport={"width": WIDTHS[0], "height": 900}) for theme in WAYS}


@contextlib.contextmanager
def visiting(contexts, server, theme):
    visitor = Visitor(contexts[theme], server if WAYS[theme] == "http" else SITE.as_uri())
    visitor.theme = theme
    yield visitor
    visitor.page.close()


@pytest.fixture(params=WAYS)
def visitor(request, contexts, server):
    with visiting(contexts, server, request.param) as visitor:
        yield visitor


@pytest.fixture(scope="module", params=itertools.product(PAGES or ["none"], WAYS), ids="-".join)
def visit(request, contexts, server):
    """One page, loaded once: tests that change how it is shown put it back."""
    name, theme = request.param
    with visiting(contexts, server, theme) as visitor:
        visitor.open(name)
        yield visitor


@pytest.fixture(scope="session")
def axe():
    if not AXE.is_file():
        if shutil.which("npm") is None:
            pytest.skip("no npm here, which brings axe-core")
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, text=True,
                              capture_output=True, env=os.environ)
        if not AXE.is_file():
            pytest.skip(f"npm could not bring axe-core (no network?): {done.stderr.strip()[-200:]}")
    return AXE.read_text(encoding="utf-8")


def test_accessibility(visit, axe):
    """First of a visit: a while after each change of width the theme decides anew which code the keyboard reaches."""
    visit.page.evaluate(axe)
    found = visit.page.evaluate(VIOLATIONS)
    serious = [f"{item['id']}: {node['html'][:160]} {node['failureSummary'][:300]}" for item in found
               if item["impact"] in ("serious", "critical") for node in item["nodes"]]
    assert not serious, "\n".join(serious[:20])


def test_page(visit):
    page, name = visit.page, visit.name
    assert page.locator("html").get_attribute("data-theme") == visit.theme
    assert page.evaluate(UNSET_FORMULAS) == []
    for width in reversed(WIDTHS):
        page.set_viewport_size({"width": width, "height": 900})
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{name} is {overflow} px too wide on a screen of {width} px"
        assert page.evaluate(BROKEN_NAMES) == [], f"names in tables of {name} at {width} px"
    assert page.evaluate(CLIPPED) == [], f"cut off on {name} at {WIDTHS[0]} px"
    assert page.evaluate(ASKEW) == [], f"numbers in tables of {name}"
    assert page.evaluate(LOOKS) == [], f"tables of {name} look different"
    assert page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)") == []
    assert page.evaluate("[...document.images].map(i => i.alt).filter(alt => alt.includes('_images/'))") == []
    assert visit.problems == []
    assert visit.weight() <= MAX_BYTES, f"{name} weighs {visit.weight():,} bytes"


def test_outputs_are_for_readers(visit):
    """No path, no warning, no time left of one run; in tables no names of columns of files, unless they are code."""
    said = "\n".join(visit.page.evaluate(OUTPUTS))
    assert [found[0] for found in re.finditer(FOR_NO_READER, said)] == []
    assert sorted(raw_names() & set(visit.page.evaluate(TABLE_CELLS))) == []


def test_the_rule_for_outputs():
    for text in ("No ccache found. Please", "in /root/x", "0:00:03 left", "OMP_NUM_THREADS set to 2",
                 "x.py:7: UserWarning: y", "W1126 11:10:34.4 17 x.cc:1] y", "/usr/lib/python3/site-packages/paddle"):
        assert re.search(FOR_NO_READER, text), text
    for text in ("768 pictures", "32/64", "/home/aistudio/data", "OMP_NUM_THREADS"):
        assert not re.search(FOR_NO_READER, text), text
    assert {"last_eval_top1", "ours_data", "train_loss"} <= raw_names() and "epoch" not in raw_names()


def test_page_forbids_itself_other_hosts(visit):
    policy = visit.page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["object-src"] == "'none'" and "default-src" in rules
    assert not [source for rule in rules.values() for source in rule.split() if "//" in source or source == "*"]


def test_other_language_keeps_the_place(visit):
    """The switch leads to a page that is there, and to the same section of it."""
    link = visit.page.locator("a.language-switch")
    twin = SITE / (visit.name.removeprefix("zh/") if visit.name.startswith("zh/") else f"zh/{visit.name}")
    if not (SITE / "zh").is_dir():
        assert link.count() == 0, "no edition for it to lead to"
        return
    assert anchors(twin) == anchors(SITE / visit.name)
    place = visit.page.evaluate("""() => {
      history.replaceState(null, '', '#' + [...document.querySelectorAll('.bd-article section[id]')].pop().id);
      const twin = document.querySelector('a.language-switch');
      twin.dispatchEvent(new Event('pointerdown'));
      return twin.href;
    }""")
    path, section = place.split("#")
    assert path == f"{visit.base}/{twin.relative_to(SITE).as_posix()}" and section in anchors(twin)


def anchors(path):
    """Where links lead to inside a page's article; pandas numbers the cells of its tables anew each time."""
    article = path.read_text(encoding="utf-8").split('<article class="bd-article"')[1].split("</article>")[0]
    return set(re.findall(r'\bid="(?!T_[0-9a-f]{5})([^"]+)"', article))


def test_words_of_the_theme(visit):
    """Every control has a name, in the language of its edition."""
    names = visit.page.evaluate(CONTROLS)
    chinese = visit.name.startswith("zh/")
    assert len(names) > 3
    assert [name for name in names if not name or bool(re.search("[\u4e00-\u9fff]", name)) != chinese] == []


def test_print(visit):
    """On paper nothing is cut off, no line of code and no column: nothing inside an article is wider than it."""
    visit.page.emulate_media(media="print")
    visit.page.set_viewport_size({"width": 680, "height": 1000})  # A4 without the margins of `make pdf`, at 96 dpi
    wide = visit.page.evaluate(CUT_OFF)
    visit.page.emulate_media(media="screen")
    visit.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    assert wide == [], visit.name


@pytest.mark.parametrize("name", ["genindex", "py-modindex", "search", "zh/genindex", "zh/py-modindex", "zh/search"])
def test_pages_that_sphinx_adds_fit_a_phone(visitor, name):
    if not (SITE / f"{name}.html").is_file():
        pytest.skip("this edition is not built here")
    page = visitor.open(f"{name}.html")
    page.set_viewport_size({"width": WIDTHS[-1], "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("folder", "word"), [("", "bottleneck"), ("zh/", "瓶颈")])
def test_search(visitor, folder, word):
    if not (SITE / folder / "search.html").is_file():
        pytest.skip(f"no edition in {folder}: `make site` builds it")
    page = visitor.open(f"{folder}search.html?q={word}")
    page.wait_for_selector("#search-results ul.search li a", timeout=15_000)
    links = page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(a => a.href)")
    assert "04_asymmnet" in links[0] and not visitor.problems
    assert page.evaluate(SEARCH_ICON) > 0, "the icon lies on what is typed"
    if WAYS[visitor.theme] == "http":  # a page that was opened as a file may not read others
        page.wait_for_selector("#search-results li p.context")
        excerpt = page.locator("#search-results li p.context").first.inner_text()
        assert word in excerpt.lower() and not excerpt.startswith("…1."), "out of the text, not out of its contents"
    first = dict(zip(QUERIES[folder], page.evaluate(FIRST, list(QUERIES[folder])), strict=True))
    wrong = {query: first[query] and first[query][0] for query, name in QUERIES[folder].items()
             if not (first[query] and first[query][0].startswith(name))}
    assert not wrong


@pytest.mark.parametrize("name", [name for name in PAGES if Path(name).stem == "intro"] or ["none"])
def test_the_first_screen_says_what_was_found(visitor, name):
    """At both widths: sentence, buttons and every finding; beside or below them the figure begins."""
    page = visitor.open(name)
    for width, height in ((1400, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        lowest = page.evaluate("""[...document.querySelectorAll('.landing-buttons a, .tag_landing-found li')]
          .map(e => e.getBoundingClientRect().bottom)""")
        assert len(lowest) >= 6 and max(lowest) <= height, f"{width} px: {lowest}"
        top = page.evaluate("document.querySelector('.tag_landing-front img').getBoundingClientRect().top")
        assert top < height - 100, f"{width} px: the figure begins at {top}"
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    filters = {kind: page.evaluate(f"getComputedStyle(document.querySelector('{kind} img')).filter")
               for kind in (".tag_landing-front", ".cards")}
    assert filters[".cards"] == "none" or visitor.theme == "light"
    assert ("invert" in filters[".tag_landing-front"]) == (visitor.theme == "dark")


@pytest.mark.parametrize("name", EXPLORERS or ["none"])
def test_explorer(visitor, name):
    page = visitor.open(name)
    status = page.locator("#explorer [role=status]")

    def total():
        macs, params = page.locator("#explorer tbody tr:last-child td").all_inner_texts()[2:4]
        return int(macs.replace(",", "")), int(params.replace(",", ""))

    def expected(*setting):
        cost = formula(*setting[:3], size=setting[3])
        return cost.macs, cost.params

    assert total() == expected("large", 1.0, 1, 224)
    before = page.locator("#explorer svg").first.inner_html()
    page.locator("#explorer-variant").select_option("small")
    page.locator("#explorer-width").fill("0.75")
    page.locator("#explorer-asymmrate").fill("2")
    page.locator("#explorer-size").fill("160")
    assert total() == expected("small", 0.75, 2, 160)
    assert page.locator("#explorer svg").first.inner_html() != before and "r = 2" in status.inner_text()
    page.locator("#explorer input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    assert total() == expected("small", 0.8, 2, 160), "the keyboard moves the slider"
    page.locator("#explorer-against").select_option("mobilenet")
    assert "MobileNetV3" in page.locator("#explorer thead").inner_text() and "MobileNetV3" in status.inner_text()
    page.wait_for_load_state("networkidle")  # a reload breaks off what is still being fetched, such as the icon
    page.reload()
    assert total() == expected("small", 0.8, 2, 160), "the address carries the settings"
    assert "MobileNetV3" in status.inner_text()
    page.locator("#explorer-asymmrate").fill("-1")
    with pytest.raises(ValueError) as refused:
        formula("small", 0.8, -1)
    reason = "非对称率为 -1" if name.startswith("zh/") else str(refused.value)
    assert reason in status.inner_text() and not visitor.problems


@pytest.mark.parametrize("name", LIVES or ["none"])
def test_live_page_speaks_the_language_of_its_edition(visitor, name):
    words = visitor.open(name).evaluate(DEMO)
    ready, missing = (r"加载演示（\d+ MB）", "这一份书没有生成演示") if name.startswith("zh/") else \
        (r"Load the demo \(\d+ MB\)", "The demo was not built")
    assert re.search(f"{ready}$", words) or words.startswith(missing)
    assert words.startswith(missing) or ("豹、盆景" if name.startswith("zh/") else "Leopards, bonsai") in words
    assert not visitor.problems
