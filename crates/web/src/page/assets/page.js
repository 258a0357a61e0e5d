// Keeps a page up to date. Without this script, each page shows the state at the time when it was loaded.
"use strict";

// Longest wait before the next attempt to connect, milliseconds.
const AGAIN_MS = 5000;
// Most rows of a log that stay on the page.
const ROWS_MAX = 5000;

const connection = document.getElementById("connection");
const say = (word) => { if (connection.textContent !== word) connection.textContent = word; };

// Follows a source of events, and connects again when it is lost.
function follow(address, onData, onOver) {
  const source = new EventSource(address);
  source.onopen = () => say("live");
  source.onmessage = (event) => onData(event.data);
  source.addEventListener("over", (event) => { onData(event.data); source.close(); say("ended"); onOver(); });
  source.onerror = () => {
    say("not connected");
    if (source.readyState === EventSource.CLOSED && address === live?.dataset.live) {
      setTimeout(() => follow(address, onData, onOver), AGAIN_MS);
    }
  };
}

// Returns a selector for a link or a table that scrolls, by which its successor is found; none for other elements.
function named(one) {
  const key = ["href", "aria-label"].find((key) => one.hasAttribute(key));
  return key && `[${key}="${CSS.escape(one.getAttribute(key))}"]`;
}

const live = document.getElementById("live");
if (live) {
  follow(live.dataset.live, (html) => {
    // The reader keeps the focus, the selection of text, and the places of tables.
    if (!document.getSelection().isCollapsed) return;
    const focused = live.contains(document.activeElement) && named(document.activeElement);
    const scrolled = [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    live.innerHTML = html;
    live.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = scrolled[at] ?? 0; });
    if (focused) live.querySelector(focused)?.focus({ preventScroll: true });
    ages();
  }, () => {});
}

const log = document.getElementById("log");
if (log) {
  const box = log.parentElement;
  box.scrollTop = box.scrollHeight;
  if (log.dataset.live) {
    follow(log.dataset.live, (html) => {
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      log.insertAdjacentHTML("beforeend", html);
      while (log.childElementCount > ROWS_MAX) log.firstElementChild.remove();
      if (atEnd) box.scrollTop = box.scrollHeight;
    }, () => location.reload());
  }
}

// The words of text::span, in the same units.
function span(ms) {
  const s = Math.floor(Math.max(ms, 0) / 1000);
  if (s < 10) return `${s}.${Math.floor((Math.max(ms, 0) % 1000) / 100)} s`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function ages() {
  const now = Date.now();
  document.querySelectorAll("time[data-since]").forEach((one) => {
    const text = span(now - Number(one.dataset.since));
    if (one.textContent !== text && document.getSelection().isCollapsed) one.textContent = text;
  });
}
setInterval(ages, 1000);
