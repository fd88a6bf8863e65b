// Live pages, the blink comparator and the chart. Without it, all pages and the search work.
"use strict";

const find = (id) => document.getElementById(id);
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

// --- Live: when the viewer has something new, the same address is fetched again, and its parts marked
// data-live take the place of ours. Nothing that can be clicked moves: see updateRows.

const PAUSE = 1000; // milliseconds between two questions
const PATIENCE = 60_000; // milliseconds for a page
const GONE = "This event has gone: what is shown is not there any more.";
const CHANGED = "This event has changed since then.";

let version = document.body.dataset.version;
let isAsking = false;
let next; // the timer of the next question
let isGone = false;

async function ask() {
  if (isAsking || document.hidden || !document.querySelector("[data-live]")) return;
  isAsking = true;
  clearTimeout(next);
  const began = performance.now();
  let pause = PAUSE;
  try {
    const answer = await get("/version", 10_000);
    if (!answer.ok) throw new Error(answer.statusText);
    if (await answer.text() !== version) await refresh();
    const hasChanged = find("state") && find("state").dataset.now !== find("state").dataset.state;
    say("connection", isGone ? GONE : hasChanged ? CHANGED : "", hasChanged && !isGone && "Show it as it is");
  } catch {
    say("connection", "The viewer doesn't answer: what is shown is how it was. Trying again.");
    pause *= 3;
  }
  isAsking = false;
  next = setTimeout(ask, Math.max(pause, 3 * (performance.now() - began))); // a busy viewer is asked less
}

const get = (address, patience) => fetch(address, { signal: AbortSignal.timeout(patience) });

async function refresh() {
  const answer = await get(location.href, PATIENCE);
  const there = new DOMParser().parseFromString(await answer.text(), "text/html");
  takeOver(there);
  isGone = answer.status === 404;
  const state = there.getElementById("state");
  if (state) find("state").dataset.now = state.dataset.state;
  version = there.body.dataset.version;
}

function takeOver(there) {
  const inner = (part) => [...part.querySelectorAll("[data-live]")].map((one) => one.id).join();
  const focused = document.activeElement;
  const isReading = find("reading");
  const [news, arrived] = [[], []]; // what waits to be shown, and what is shown already
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = there.getElementById(part.id);
    if (!now || !part.isConnected) continue;
    if (part.dataset.rows !== undefined) {
      updateRows(part, now, news);
    } else if (part.id === "chart") {
      Object.assign(part.dataset, { counts: now.dataset.counts, step: now.dataset.step });
    } else if (part.innerHTML !== now.innerHTML && !(inner(part) && inner(part) === inner(now))) {
      const hadFocus = part.contains(focused);
      const first = !part.querySelector("[data-rows]") && now.querySelector("[data-rows]");
      part.replaceWith(document.adoptNode(now));
      if (first && !isReading) arrived.push(...newsOf(first, first.children.length));
      if (hadFocus) focusAgain(now, focused);
    }
  }
  drawChart();
  if (news.length) say("news", news.join(", "), "Show");
  else if (find("news")) say("news", arrived.join(", "));
}

// Rows keep their places, so that nobody clicks what has just moved under the pointer: what has changed
// is changed in place, what has gone is crossed out, older rows are added below, and newer ones wait
// until they are asked for.
function updateRows(ours, theirs, news) {
  if (ours.dataset.step !== theirs.dataset.step) return; // other rows altogether
  const there = new Map([...theirs.children].map((row) => [row.dataset.key, row]));
  const rows = [...ours.children];
  const [top, bottom, end] = [rows[0], rows.at(-1), theirs.lastElementChild].map((row) => row.dataset.key);
  const focused = document.activeElement;
  for (const row of rows) {
    const { key } = row.dataset;
    const now = there.get(key);
    there.delete(key);
    if (now && row.innerHTML !== now.innerHTML) {
      const hadFocus = row.contains(focused);
      row.className = now.className;
      row.replaceChildren(...now.childNodes);
      if (hadFocus) focusAgain(row, focused);
    } else if (!now && (key > end || theirs.dataset.more === undefined) && !row.classList.contains("gone")) {
      row.classList.add("gone");
      for (const link of row.querySelectorAll("a")) {
        link.removeAttribute("href");
        link.tabIndex = -1; // a link that has the focus keeps it
      }
      (row.querySelector("th, h2") ?? row).append(Object.assign(document.createElement("span"), { className: "fault", textContent: " gone" }));
    }
  }
  const left = [...there.keys()];
  ours.append(...left.filter((key) => key < bottom).map((key) => there.get(key)));
  const newer = left.filter((key) => key > top).length;
  news.push(...newsOf(ours, newer, newer === theirs.children.length));
  const late = left.filter((key) => key < top && key > bottom).length;
  if (late && ours.dataset.rows) news.push(`${late} came late`);
}

// What is new, in words; of no news, and of rows without a name, nothing.
function newsOf(rows, count, isMore = false) {
  const noun = rows.dataset.rows;
  if (!noun || !count) return [];
  return [`${count}${isMore ? " or more" : ""} new ${noun}${count === 1 ? "" : "s"}`];
}

function focusAgain(now, focused) {
  const href = focused.getAttribute("href");
  const same = [...now.querySelectorAll("a")].find((link) => link.getAttribute("href") === href);
  (same ?? find("main")).focus({ preventScroll: true });
}

// Words in a place for them, with a link that loads the page again, if it has a text.
function say(id, words, link) {
  const place = find(id);
  if (place.dataset.words === words) return;
  place.dataset.words = words;
  place.replaceChildren();
  if (!words) return;
  const said = Object.assign(document.createElement(id === "news" ? "span" : "p"), { textContent: words });
  if (link) said.append(" ", Object.assign(document.createElement("a"), { href: location.pathname + location.search, textContent: link }));
  place.append(said);
}

// --- The blink comparator: `part` of the width, from the left, shows the image before.

const BLINK = 700; // milliseconds; twice that is a whole turn

function compare() {
  const [stage, sky, after, before] = ["stage", "sky", "after", "before"].map(find);
  const images = [after, before].map((layer) => layer.firstElementChild);
  if (images.some((image) => !image.naturalWidth)) return;
  find("blink").hidden = false;

  // Laid over each other at the top left, as they are compared.
  const width = Math.max(...images.map((image) => image.naturalWidth));
  const height = Math.max(...images.map((image) => image.naturalHeight));
  stage.style.setProperty("--ratio", width / height);
  for (const image of images) {
    image.style.width = `${100 * image.naturalWidth / width}%`;
    image.style.height = `${100 * image.naturalHeight / height}%`;
  }
  const box = stage.dataset.box?.split(" ").map(Number);

  const zoom = Panzoom(sky, {
    contain: "outside", minScale: 1, maxScale: 60, panOnlyWhenZoomed: true, cursor: "grab", touchAction: "pan-y",
  });
  const wipe = find("wipe");
  const names = images.map((image) => image.alt);

  function show(part) {
    wipe.value = part;
    const [outer, inner] = [stage.getBoundingClientRect(), sky.getBoundingClientRect()];
    const edge = 100 * (outer.left + outer.width * part / 100 - inner.left) / inner.width;
    const at = part <= 0 ? 0 : part >= 100 ? 100 : Math.min(100, Math.max(0, edge));
    after.style.clipPath = `inset(0 0 0 ${at}%)`;
    before.style.clipPath = `inset(0 ${100 - at}% 0 0)`;
    find("edge").hidden = part <= 0 || part >= 100;
    find("edge").style.left = `${part}%`;
    const pixel = inner.width / width;
    if (box) {
      const [left, top, wide, high] = box.map((side) => side * pixel);
      Object.assign(find("frame").style, {
        left: `${inner.left - outer.left + left}px`,
        top: `${inner.top - outer.top + top}px`,
        width: `${wide}px`,
        height: `${high}px`,
      });
      find("frame").hidden = !find("framed").checked;
    }
    const both = `Left: ${names[1].toLowerCase()}. Right: ${names[0].toLowerCase()}`;
    const words = part <= 0 ? names[0] : part >= 100 ? names[1] : both;
    images[0].ariaHidden = part >= 100;
    images[1].ariaHidden = part <= 0;
    wipe.setAttribute("aria-valuetext", words);
    stage.dataset.part = part;
    if (find("shown").textContent !== words) find("shown").textContent = words;
  }
  const swap = () => show(wipe.value < 50 ? 100 : 0);

  let blinking = 0;
  const blink = (isOn) => {
    clearInterval(blinking);
    blinking = isOn ? setInterval(swap, BLINK) : 0;
    find("by-itself").checked = isOn;
    find("shown").ariaLive = isOn ? "off" : "polite"; // or it would be read out all the time
    sessionStorage.setItem("blink", isOn ? "on" : "");
  };

  function toBox() {
    const [left, top, wide, high] = box;
    const unit = stage.clientWidth / width; // of a pixel
    const scale = Math.max(1, Math.min(60, 0.8 * stage.clientWidth / (wide * unit), 0.8 * stage.clientHeight / (high * unit)));
    const shift = (middle, side) => {
      const most = (side - side / scale) / 2; // so that nothing beyond the image is seen
      return Math.min(most, Math.max(-most, side / 2 - middle * unit));
    };
    zoom.zoom(scale, { animate: false, contain: undefined });
    zoom.pan(shift(left + wide / 2, stage.clientWidth), shift(top + high / 2, stage.clientHeight), { force: true, contain: undefined });
  }

  const closer = () => zoom.zoomIn({ animate: false });
  const whole = () => zoom.reset({ animate: false });
  const farther = () => (zoom.getScale() < 1.4 ? whole() : zoom.zoomOut({ animate: false }));
  const keys = { " ": swap, "+": closer, "=": closer, "-": farther, 0: whole, ArrowLeft: () => find("older")?.click(), ArrowRight: () => find("newer")?.click() };

  sky.addEventListener("panzoomchange", ({ detail }) => {
    stage.classList.toggle("close", detail.scale * stage.clientWidth / width > 3);
    stage.dataset.scale = Number(detail.scale.toFixed(2));
    // A finger moves the page over the whole image, and the image when that is close.
    const touch = detail.scale > 1.01 ? "none" : "pan-y";
    if (sky.style.touchAction !== touch) zoom.setOptions({ touchAction: touch });
    show(Number(wipe.value));
  });
  stage.addEventListener("wheel", (event) => {
    if (stage.matches(":focus-within") || event.ctrlKey) zoom.zoomWithWheel(event);
  }, { passive: false });
  stage.addEventListener("pointerdown", () => stage.focus({ preventScroll: true }));
  wipe.addEventListener("input", () => { blink(false); show(Number(wipe.value)); });
  find("by-itself").addEventListener("change", (event) => blink(event.target.checked));
  for (const [id, action] of Object.entries({ swap, closer, farther, whole, "to-box": toBox })) {
    find(id)?.addEventListener("click", action);
  }
  document.querySelector(".controls").addEventListener("click", (event) => {
    // After a mouse or a finger, Space is for the pictures again, not for what was clicked.
    if (event.detail && !event.target.closest(".wipe")) stage.focus({ preventScroll: true });
  });
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || !(key in keys)) return;
    if (target.closest("input:not([type=checkbox]), select, textarea")) return;
    if (key === " " && target.closest("button, input")) return;
    event.preventDefault();
    if (event.repeat && key === " ") return; // one press is one swap
    if (key === " ") blink(false);
    keys[key]();
  });
  find("framed")?.addEventListener("change", () => show(Number(wipe.value)));
  addEventListener("resize", () => show(Number(wipe.value)));
  show(0);
  if (sessionStorage.getItem("blink") && !isCalm.matches) blink(true);
}

// --- The chart: drawn from the numbers that the table has.

const TICKS = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400, 604800, 2592000, 31536000, 315360000];
let chart = null;

function drawChart() {
  const place = find("chart");
  if (!place) return;
  const step = Number(place.dataset.step);
  const rows = JSON.parse(place.dataset.counts).reverse(); // each with its time, images and events
  const counts = new Map(rows.map(([time, ...both]) => [time ?? 0, both]));
  const [first, last] = [rows[0][0] ?? 0, rows.at(-1)[0] ?? 0];
  const times = Array.from({ length: Math.round((last - first) / step) + 1 }, (_, place) => first + place * step);
  const series = [0, 1].map((which) => times.map((time) => counts.get(time)?.[which] ?? 0));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const label = (time, place) => {
    const [day, clock] = new Date(time * 1000).toISOString().split(/[T.]/);
    const shown = clock.slice(0, step < 60 ? 8 : 5);
    return step >= 86400 ? day : place && time % 86400 ? shown : `${shown}\n${day}`;
  };
  const bars = uPlot.paths.bars({ size: [0.8, 60], align: 1 });
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const of = (label, name) => ({ label, fill: colour(name), width: 0, paths: bars, points: { show: false } });
  chart?.destroy();
  chart = new uPlot({
    width: place.clientWidth,
    height: place.clientHeight,
    tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "UTC"),
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { range: () => [first, last + step] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
    axes: [{ ...axis, space: 90, incrs: TICKS, values: (_, times) => times.map(label), size: 44 }, { ...axis, size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6] }],
    series: [{}, of("Images", "--of-images"), of("Events", "--of-events")],
  }, [times, ...series], place);
}

if (find("chart") || document.title.startsWith("Timeline")) {
  addEventListener("load", drawChart);
  addEventListener("resize", drawChart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
}
if (find("blink")) addEventListener("load", compare);
document.addEventListener("visibilitychange", ask);
addEventListener("pageshow", ask);
