/* What Sphinx's search leaves to the book: pages before code, and excerpts out of the text.
 *
 * Loaded before searchtools.js, which takes its weights from `Scorer`. The words by which a page is to be found first
 * stand in book/keywords.csv; they come here as entries of the index.
 */
"use strict";

var Scorer = {
  // [docname, title, anchor, description, score, file name] -> score: the library's own pages come after the book's
  score: ([docname, , , , score]) => (/^(book\/api|_modules)\b/.test(docname) ? score / 10 : score),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};

(() => {
  const LENGTH = 240;
  const NO_TEXT = ".headerlink, script, style, pre, nav, .toctree-wrapper, .onlyprint, #jb-print-toc, .tag_remove-input";

  /* The block of a page's text that holds most of the words, the first of several. */
  function bestBlock(html, words, anchor) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector(".bd-article") ?? page.querySelector('[role="main"]');
    const part = (anchor && article?.querySelector(anchor)?.closest("section")) || article;
    if (!part) return "";
    part.querySelectorAll(NO_TEXT).forEach((element) => element.remove());
    let best = "", most = -1;
    for (const block of part.querySelectorAll("p, li, dd, td, figcaption")) {
      const text = block.textContent.replace(/\s+/g, " ").trim(), lower = text.toLowerCase();
      const found = words.filter((word) => lower.includes(word)).length;
      if (text && found > most) [best, most] = [text, found];
    }
    return best;
  }

  /* A cut of a text around the first of the words. */
  function cut(text, words) {
    const places = words.map((word) => text.toLowerCase().indexOf(word)).filter((place) => place >= 0);
    let start = Math.max(0, Math.min(...places, text.length) - LENGTH / 2);
    if (!places.length || text.length <= LENGTH) start = 0;
    if (start) start = text.indexOf(" ", start) + 1 || start; // at a word's beginning
    const piece = text.slice(start, start + LENGTH).trim();
    return (start ? "… " : "") + piece + (start + LENGTH < text.length ? " …" : "");
  }

  // Before Sphinx's own listener, which starts the search
  document.addEventListener("DOMContentLoaded", () => {
    if (typeof Search === "undefined") return;
    Search.makeSearchSummary = (html, keywords, anchor) => {
      const words = [...keywords].map((word) => word.toLowerCase()), text = bestBlock(html, words, anchor);
      if (!text) return null;
      const summary = document.createElement("p");
      summary.classList.add("context");
      summary.textContent = cut(text, words);
      return summary;
    };
  });
})();
