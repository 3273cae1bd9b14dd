/* What the theme's markup lacks for readers with a screen reader or a keyboard. */
"use strict";

// A page that is opened as a file may not read other files: the search's results then come without their excerpts
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// 12, -3.5, 1e-05, 4,816, 97 %, < 0.001, 20.7 M, 70.8 ± 1.4, 65.9–75.2: as NUMBER in asymmbook/pages/tables.py
const NUMBER = /^([<>≤≥]=? ?)?[-+]?\d[\d.,]*(e[-+]?\d+)?( ?[%kMG×])?( ?[±–] ?[\d.,]+)?$/;

const SHORT = 12;  // letters of a row's name that stay on one line

// Numbers stand right-aligned under their headings; columns are counted from the right, as an index may span rows
function alignNumbers(table) {
  const rows = [...table.rows].map(row => [...row.cells].filter(cell => cell.colSpan === 1).reverse());
  const texts = [...table.tBodies].flatMap(body => [...body.rows]).map(
    row => [...row.cells].reverse().map(cell => cell.textContent.trim()));
  for (let column = 0; column < Math.max(0, ...rows.map(row => row.length)); column++) {
    const values = texts.map(row => row[column] ?? "").filter(text => text && text !== "NaN");
    if (!values.length || !values.every(text => NUMBER.test(text))) continue;
    for (const row of rows) row[column]?.classList.add("number");
  }
  for (const name of table.querySelectorAll("tbody th")) name.classList.toggle("short", name.textContent.length <= SHORT);
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-article table").forEach(alignNumbers);
  // The same section in the other language, in the same state: both editions share anchors and settings
  const twin = document.querySelector("a.language-switch");
  for (const event of twin ? ["pointerdown", "click"] : []) {
    twin.addEventListener(event, () => Object.assign(twin, { hash: location.hash, search: location.search }));
  }
  // A name that hides the visible text of a control: the text itself is the better name
  for (const control of document.querySelectorAll("button[aria-label], summary[aria-label], a.btn[aria-label]")) {
    if (control.textContent.trim()) control.removeAttribute("aria-label");
  }
  // Icons that are drawn by a font are no text
  for (const icon of document.querySelectorAll("button[aria-label] i")) icon.setAttribute("aria-hidden", "true");
  for (const icon of document.querySelectorAll(".theme-switch-button [title]")) icon.removeAttribute("title");
  // A list whose items are called otherwise is none
  for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
  // What scrolls by itself can be reached with the keyboard
  for (const box of document.querySelectorAll(".bd-article pre, .bd-article table, .bd-article mjx-container")) {
    if (box.scrollWidth > box.clientWidth && !box.closest("[tabindex]")) box.tabIndex = 0;
  }
});
