/* What the theme's markup lacks for readers with a screen reader or a keyboard. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
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

// The icon script turns titles into text inside the drawing, which the button's name does not repeat
window.addEventListener("load", () => {
  for (const icon of document.querySelectorAll(".theme-switch-button svg")) {
    icon.querySelector("title")?.remove();
    icon.removeAttribute("aria-labelledby");
    icon.setAttribute("aria-hidden", "true");
  }
});
