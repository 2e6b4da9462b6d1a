// What comes while one looks: entries, changed rows of the list, and windows as they are reached.
// The place of the reader stays. Without it a page is loaded again, and windows are links.
"use strict";

const MOST_WINDOWS = 5;
const live = document.querySelector("[data-live]");
const [bar, said, stay, below] = ["live-bar", "live-said", "stay", "new-below"].map((id) => document.getElementById(id));
const isSession = live?.matches("[data-position]");
let source = null;

function parsed(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  localise(holder.content);
  return holder.content;
}

// The first thing that the reader sees stays where it is, whatever comes above it.
function keepingPlace(change) {
  const seen = [...document.querySelectorAll(".entry, .turn h2, .seam")].find(
    (each) => each.getBoundingClientRect().bottom > 80 && each.checkVisibility(),
  );
  const before = seen?.getBoundingClientRect().top;
  change();
  if (seen?.isConnected) scrollBy({ top: seen.getBoundingClientRect().top - before, behavior: "instant" });
}

const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });

/* ---------------------------------------------------------------- windows */

const parts = [];
let isLoading = false;
const near = new IntersectionObserver(
  (found) => found.forEach((each) => each.isIntersecting && load(each.target)),
  { rootMargin: "100% 0px" },
);

// Anew, for of what stays in view it tells once.
function observe(part) {
  for (const link of part.querySelectorAll("[data-window]")) {
    near.unobserve(link);
    near.observe(link);
  }
}

async function load(link) {
  if (isLoading || !link.isConnected || !link.dataset.window) return;
  isLoading = true;
  try {
    const answer = await fetch(link.dataset.window);
    if (!answer.ok) return;
    const came = parsed(await answer.text());
    const seam = link.closest(".seam");
    // Towards what is there already it needs no seam.
    const kept = seam.dataset.keeps ?? link.dataset.seam;
    for (const each of came.querySelectorAll("[data-seam]")) {
      if (each.dataset.seam !== kept) each.closest(".seam").remove();
    }
    const nodes = [...came.children];
    keepingPlace(() => seam.replaceWith(came));
    parts.push({ seam, nodes });
    if (parts.length >= MOST_WINDOWS) dropFarthest();
    // With those that were reached meanwhile.
    observe(document);
  } catch {
    // It stays a link.
  } finally {
    isLoading = false;
  }
}

const far = ({ nodes }) => Math.abs(nodes[0].getBoundingClientRect().top - innerHeight / 2);

// What is farthest becomes a link again, as high as it was.
function dropFarthest() {
  const part = parts.reduce((one, other) => (far(other) > far(one) ? other : one));
  parts.splice(parts.indexOf(part), 1);
  const nodes = part.nodes.filter((each) => each.isConnected);
  const height = nodes.at(-1).getBoundingClientRect().bottom - nodes[0].getBoundingClientRect().top;
  const outer = nodes.find((each) => each.matches(".seam"))?.querySelector("[data-seam]");
  part.seam.dataset.keeps = outer?.dataset.seam ?? "";
  part.seam.style.minHeight = `${height}px`;
  keepingPlace(() => {
    nodes[0].before(part.seam);
    nodes.forEach((each) => each.remove());
  });
  observe(part.seam);
}

/* ---------------------------------------------------------------- entries */

let unseen = 0;
let announced = 0;
let lastCame = 0;
let lastScroll = scrollY;

function say(text) {
  if (bar) bar.textContent = text;
}

// One element of what came: in the place of the same one, else where it says, else at the end.
function put(element) {
  const known = element.id && document.getElementById(element.id);
  if (!known) {
    const parent = element.dataset.in && document.getElementById(element.dataset.in);
    (parent || document.querySelector("[data-live-end]")).append(element);
    return 1;
  }
  const open = [...known.querySelectorAll("details")].map((each) => each.open);
  const focused = known.contains(document.activeElement) && document.activeElement.id;
  known.replaceWith(element);
  [...element.querySelectorAll("details")].forEach((each, at) => (each.open = open[at] ?? each.open));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  return 0;
}

function entryCame(event) {
  const came = parsed(JSON.parse(event.data));
  let added = 0;
  keepingPlace(() => [...came.children].forEach((each) => (added += put(each))));
  live.dataset.position = event.lastEventId;
  lastCame = Date.now();
  if (stay?.checked) toEnd();
  else if (added) unseen += 1;
  showUnseen();
}

function showUnseen() {
  if (!below) return;
  below.hidden = !unseen;
  below.textContent = unseen === 1 ? "1 new entry below" : `${unseen} new entries below`;
}

addEventListener("scroll", () => {
  const isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
  if (stay && !isAtEnd && scrollY < lastScroll) stay.checked = false;
  lastScroll = scrollY;
  if (isAtEnd && unseen) showUnseen((unseen = 0));
}, { passive: true });
below?.addEventListener("click", toEnd);

// Read out as a count, and not so often that nothing else is heard.
setInterval(() => {
  if (said && unseen !== announced) said.textContent = unseen ? below.textContent : "";
  announced = unseen;
  const quiet = Math.floor((Date.now() - lastCame) / 60_000);
  if (lastCame && quiet && source?.readyState === EventSource.OPEN) say(`Quiet for ${quiet} min`);
}, 10_000);

// Nothing of a session that is gone is asked for any more.
function sessionGone() {
  source.close();
  near.disconnect();
  document.body.classList.add("is-gone");
  for (const each of document.querySelectorAll(".talk a, .turns a, .find a")) {
    if (!each.hash || each.pathname !== location.pathname) each.removeAttribute("href");
    each.removeAttribute("data-window");
  }
  for (const form of document.querySelectorAll(".find form, form.find")) form.inert = true;
  document.querySelectorAll(".name .live, .tail .live").forEach((each) => each.remove());
  document.getElementById("gone")?.removeAttribute("hidden");
  say("This session was erased.");
}

/* ---------------------------------------------------------------- the list */

const begun = new Set();
const fade = (row) => setTimeout(() => row.querySelector(".live")?.remove(), 60_000);

function rowsCame(event) {
  for (const { at, html, new: isNew } of JSON.parse(event.data)) {
    const row = document.getElementById(at);
    if (!row && isNew) begun.add(at);
    if (!row) continue;
    const came = parsed(html).firstElementChild;
    const had = row.contains(document.activeElement);
    row.replaceWith(came);
    if (had) came.querySelector("a")?.focus({ preventScroll: true });
    fade(came);
  }
  const news = document.getElementById("news");
  if (!news || !begun.size) return;
  const count = begun.size === 1 ? "1 more session has begun. " : `${begun.size} more sessions have begun. `;
  const line = Object.assign(document.createElement("p"), { className: "bar-line news", role: "status" });
  line.append(count, Object.assign(document.createElement("a"), { href: location.href, textContent: "Show them" }));
  news.replaceChildren(line);
}

function rowsGone(event) {
  for (const at of JSON.parse(event.data)) {
    begun.delete(at);
    const row = document.getElementById(at);
    row?.querySelectorAll("a").forEach((link) => link.removeAttribute("href"));
    row?.querySelector(".live")?.remove();
    row?.querySelector("th").append(Object.assign(document.createElement("span"), { className: "failed", textContent: " deleted" }));
  }
}

/* ---------------------------------------------------------------- connection */

function connect() {
  source = new EventSource(live.dataset.live + (isSession ? `?after=${live.dataset.position}` : ""));
  source.addEventListener("live", (event) => {
    const { session } = JSON.parse(event.data);
    // One of the same address that was made anew is another one.
    if (session !== (live.dataset.is ??= session)) return sessionGone();
    document.body.dataset.connection = "live";
    say("New entries appear here.");
  });
  source.addEventListener("entry", entryCame);
  source.addEventListener("rows", rowsCame);
  source.addEventListener("gone", isSession ? sessionGone : rowsGone);
  source.addEventListener("off", (event) => say(JSON.parse(event.data), source.close()));
  source.addEventListener("error", () => {
    document.body.dataset.connection = "lost";
    const isOver = source.readyState === EventSource.CLOSED;
    say(isOver ? "No longer connected. Load the page again." : "Not connected. Trying again. Nothing is missed.");
  });
}

observe(document);
if (live) {
  for (const each of [bar, stay?.parentElement]) if (each) each.hidden = false;
  if (stay) stay.checked = innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
  connect();
  // A browser keeps a page that was left, but not its connection.
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
