"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const said = one("#said");
  let silence = 0;

  function say(text) {
    said.textContent = text;
    clearTimeout(silence);
    silence = setTimeout(() => { said.textContent = ""; }, 2500);
  }

  // Times in the time zone of the browser

  const pad = (number, width = 2) => String(number).padStart(width, "0");

  function localTime(date) {
    return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} `
      + `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  }

  function showLocalTimes(root) {
    for (const each of all("time[data-local], time[data-hint]", root)) {
      const date = new Date(each.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      if ("local" in each.dataset) each.textContent = localTime(date);
      else each.title = localTime(date);
      each.title ||= date.toISOString();
    }
  }

  // Copying

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("The browser does not allow copying here");
    }
  }

  async function copyMessage(seq) {
    const response = await fetch(`${messages.dataset.api}/messages/${seq}`);
    if (response.ok) await copy((await response.json()).text);
    else say("This message cannot be read");
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-copy], [data-copy-message], [data-help], [data-hit]");
    if (!target) return;
    if ("copy" in target.dataset) copy(target.dataset.copy);
    else if ("copyMessage" in target.dataset) copyMessage(target.dataset.copyMessage);
    else if ("help" in target.dataset) one("#help").showModal();
    else if (document.getElementById(`m${target.dataset.hit}`)) {
      event.preventDefault();
      show(target.dataset.hit);
    }
  });

  // Moving

  const items = () => all("[data-item]");
  const current = () => one("[data-item].here");

  function select(item, block = "nearest") {
    if (!item) return;
    current()?.classList.remove("here");
    item.classList.add("here");
    (item.matches("[tabindex]") ? item : item.querySelector("[data-open]"))?.focus({ preventScroll: true });
    item.scrollIntoView({ block });
  }

  function show(seq) {
    const place = document.getElementById(`m${seq}`);
    if (!place) return;
    const item = place.closest("[data-item]") ?? place;
    if (place !== item) place.previousElementSibling.open = true;
    select(item, "center");
  }

  function step(by, isWanted = () => true) {
    const list = items().filter(isWanted);
    const at = current();
    if (!at) {
      const seen = list.filter((each) => each.getBoundingClientRect().bottom > 80);
      select(by > 0 ? seen[0] : seen[0] && (list[list.indexOf(seen[0]) - 1] ?? seen[0]));
      return;
    }
    const after = (each) => at.compareDocumentPosition(each) & Node.DOCUMENT_POSITION_FOLLOWING;
    const before = (each) => at.compareDocumentPosition(each) & Node.DOCUMENT_POSITION_PRECEDING;
    select(by > 0 ? list.find(after) : list.findLast(before));
  }

  const isUser = (item) => item.classList.contains("user") || !item.classList.contains("message");
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    J: () => step(1, isUser),
    K: () => step(-1, isUser),
    o: () => current()?.querySelector("details.tool > summary, [data-open]")?.click(),
    g: () => (one("#older") ? location.assign(one("#oldest").href) : scrollTo(0, 0)),
    G: () => (one("#newer") ? location.assign(messages.dataset.thread) : scrollTo(0, document.body.scrollHeight)),
    t: () => location.assign("/"),
    f: () => one("#follow")?.click(),
    "/": () => one("[data-find]")?.focus(),
    "?": () => one("#help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, dialog")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const act = Object.hasOwn(keys, event.key) ? keys[event.key] : undefined;
    if (!act) return;
    event.preventDefault();
    act();
  });

  // Messages: older ones are added above, without moving the ones in view

  const messages = one("#messages");
  let anchor = null;

  document.addEventListener("htmx:beforeSwap", (event) => {
    const seen = messages && items().find((each) => each.getBoundingClientRect().bottom > 0);
    anchor = event.detail.target.id === "older" && seen ? { seen, top: seen.getBoundingClientRect().top } : null;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    showLocalTimes(document);
    if (!anchor) return;
    scrollBy(0, anchor.seen.getBoundingClientRect().top - anchor.top);
    anchor = null;
  });
  document.addEventListener("htmx:responseError", () => say("This could not be loaded"));
  document.addEventListener("htmx:sendError", () => say("The viewer has ended"));

  // Following

  const follow = one("#follow");
  const POLL_MS = 2000;

  function isFollowing() {
    return follow.getAttribute("aria-pressed") === "true";
  }

  function showFollowing(behind = 0) {
    follow.textContent = isFollowing() ? "Following" : behind ? `Paused, ${behind} behind` : "Paused";
  }

  async function look() {
    const end = one("#end");
    if (!end || document.hidden) return;
    const response = await fetch(messages.dataset.api);
    if (!response.ok) {
      if (response.status === 404) end.textContent = "This thread was deleted";
      return;
    }
    const thread = await response.json();
    const behind = thread.next_seq - Number(end.dataset.next);
    if (Date.parse(thread.created) !== Number(messages.dataset.created) || behind < 0) {
      end.textContent = "This thread was deleted and created again: reload the page";
    } else if (behind > 0 && isFollowing()) {
      const isAtEnd = end.getBoundingClientRect().top < innerHeight + 200;
      const path = `${messages.dataset.thread}/rows?start=${end.dataset.next}&mode=${messages.dataset.mode}`;
      await htmx.ajax("GET", path, { target: "#end", swap: "outerHTML" });
      if (isAtEnd) scrollTo(0, document.body.scrollHeight);
    } else {
      showFollowing(behind);
    }
  }

  async function keepLooking() {
    try {
      await look();
      setTimeout(keepLooking, POLL_MS);
    } catch {
      one("#end").textContent = "The viewer has ended";
      setTimeout(keepLooking, 5 * POLL_MS);
    }
  }

  follow?.addEventListener("click", () => {
    follow.setAttribute("aria-pressed", String(!isFollowing()));
    showFollowing();
  });

  // The beginning

  showLocalTimes(document);
  if (messages) {
    history.scrollRestoration = "manual";
    const at = /^#m([0-9]+)$/.exec(location.hash)?.[1] ?? messages.dataset.at;
    if (at !== undefined && document.getElementById(`m${at}`)) show(at);
    else if (at === undefined) scrollTo(0, document.body.scrollHeight);
    addEventListener("hashchange", () => show(location.hash.slice(2)));
    setTimeout(keepLooking, POLL_MS);
  }
})();
