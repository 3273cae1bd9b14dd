"""The built site in a browser whose network is cut: every page of every language, two widths, light and dark.

Needs `make site` before; skipped, with the reason, where there is no built site or no Chromium. Light pages are served
from this machine, dark ones opened from file://, so that both ways are tested. Each page is loaded once in each way:
the tests that look at it share that visit.
"""
import contextlib
import functools
import gzip
import http.server
import itertools
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from asymmbook.checkout import project_root
from asymmlib.complexity import formula

SITE = project_root() / "_build" / "html"
HERE = Path(__file__).parent
PAGES = sorted(path.relative_to(SITE).as_posix() for folder in ("book", "notebooks", "zh/book", "zh/notebooks")
               for path in (SITE / folder).glob("*.html"))
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
# what passes is thousands of records a page: it stays in the browser
VIOLATIONS = "axe.run(document, {resultTypes: ['violations'], preload: false}).then(result => result.violations)"
# names, for the eye or the ear, of the controls that the theme puts around a page
CONTROLS = """[...document.querySelectorAll('button, nav, input')]
  .filter(e => e.offsetParent && !e.closest('.bd-article'))
  .map(e => e.ariaLabel || e.title || e.textContent.trim() ||
            document.getElementById(e.getAttribute('aria-labelledby'))?.textContent || '')"""
# what a reader sees of the live page's demo before it is loaded
DEMO = "() => document.querySelector('.live').innerText.trim()"
LIVES = [page for page in PAGES if page.endswith("book/live.html")]
EXPLORERS = [page for page in PAGES if page.endswith("book/explorer.html")]


@pytest.fixture(scope="session")
def chromium():
    if not PAGES:
        pytest.skip("no built site in _build/html: run `make site` first")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here; on Debian: apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", CUT])
        yield browser
        browser.close()


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
    assert page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)") == []
    assert visit.problems == []
    assert visit.weight() <= MAX_BYTES, f"{name} weighs {visit.weight():,} bytes"


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
    """Where links lead to inside a page's article."""
    article = path.read_text(encoding="utf-8").split('<article class="bd-article"')[1].split("</article>")[0]
    return set(re.findall(r'\bid="([^"]+)"', article))


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


@pytest.mark.parametrize(("folder", "word"), [("", "bottleneck"), ("zh/", "瓶颈")])
def test_search(visitor, folder, word):
    if not (SITE / folder / "search.html").is_file():
        pytest.skip(f"no edition in {folder}: `make site` builds it")
    page = visitor.open(f"{folder}search.html?q={word}")
    page.wait_for_selector("#search-results ul.search li a", timeout=15_000)
    links = page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(a => a.href)")
    assert any("04_asymmnet" in link for link in links) and not visitor.problems


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
    page.get_by_role("combobox").last.select_option("small")
    page.locator("#explorer-width").fill("0.75")
    page.locator("#explorer-asymmrate").fill("2")
    page.locator("#explorer-size").fill("160")
    assert total() == expected("small", 0.75, 2, 160)
    assert page.locator("#explorer svg").first.inner_html() != before and "r = 2" in status.inner_text()
    page.locator("#explorer input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    assert total() == expected("small", 0.8, 2, 160), "the keyboard moves the slider"
    page.locator("#explorer-asymmrate").fill("-1")
    with pytest.raises(ValueError) as refused:
        formula("small", 0.8, -1)
    assert str(refused.value) in status.inner_text() and not visitor.problems


@pytest.mark.parametrize("name", LIVES or ["none"])
def test_live_page_speaks_the_language_of_its_edition(visitor, name):
    words = visitor.open(name).evaluate(DEMO)
    ready, missing = (r"加载演示（\d+ MB）", "这一份书没有生成演示") if name.startswith("zh/") else \
        (r"Load the demo \(\d+ MB\)", "The demo was not built")
    assert re.fullmatch(ready, words) or words.startswith(missing)
    assert not visitor.problems
