"use strict";
// The theme button, and the galleries: filters, search and pages of cards. All texts are set as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const PAGE = 12, FIRST_CANDIDATES = 4, MANY_STEPS = 5, TOO_MANY_STEPS = 9;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function add(parent, ...children) {
  parent.append(...children.filter(Boolean));
  return parent;
}

function button(text, onClick, className) {
  const node = make("button", className, text);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

const number = (value, decimals) => value.toFixed(decimals).replace("-", "−");

function picture(place, alt) {
  if (place === null || place === undefined) {
    const box = make("div", "missing", "picture not found");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", alt + " (picture not found)");
    return box;
  }
  const image = make("img", "picture");
  image.src = DATA.pictures[place];
  image.alt = alt;
  return image;
}

function named(item) {
  const span = make("span", "", item.text);
  if (item.right) add(span, make("span", "mark", " ✓"));
  return span;
}

function side(part) {
  const withPictures = part.items.some((item) => "picture" in item);
  const node = make("div", "side" + (withPictures ? " pictures" : ""));
  const mark = part.right === true ? ", right" : part.right === false ? ", wrong" : "";
  add(node, make("h4", "", part.name + (part.note ? ": " + part.note : mark)));
  const list = make("ul");
  for (const item of part.items) {
    const line = make("li", item.right ? "isright" : "");
    if (withPictures) add(line, picture(item.picture, item.text + (item.right ? ", the right answer" : "")));
    else add(line, named(item), item.share === undefined || item.share === null ? null : make("span", "", " " + number(100 * item.share, 1) + "%"));
    add(list, line);
  }
  return add(node, list);
}

function views(card) {
  if (!card.views || !card.views.length) return null;
  const node = make("div", "views");
  for (const view of card.views) {
    const name = view.number === 0 ? "centre" : "view " + view.number;
    const frame = add(make("figure"), picture(view.picture, name + " of " + card.id));
    const entropy = view.entropy === null ? "" : number(view.entropy, 2);
    add(node, add(frame, add(make("figcaption", "", name), make("br"), entropy)));
  }
  const title = make("h4", "", card.views[0].entropy === null ? "confident views, the most confident first" : "confident views and their entropy in nats");
  return add(make("div", "steps"), title, node);
}

function cell(values, step, most) {
  const node = make("div", "cell");
  if (values === null) return add(node, "·");
  const [reward, lift, count] = values;
  node.textContent = number(reward, 2);
  if (lift > 0) node.classList.add("up");
  const bar = make("i");
  bar.style.width = (100 * reward) / most + "%";
  add(node, add(make("span"), bar));
  node.title = `step ${step}: reward ${number(reward, 3)}, ${lift > 0 ? "above" : "not above"} the average` + (count > 1 ? `, ${count} views` : "");
  return node;
}

function cells(children) {
  const node = make("div", children.length > MANY_STEPS ? "cells many" : "cells");
  node.style.setProperty("--steps", children.length);
  return add(node, ...children);
}

function candidateRow(candidate, most) {
  const label = make("div", "label");
  if ("picture" in candidate) add(label, picture(candidate.picture, ""));
  add(label, named(candidate));
  return add(make("div", "row"), label, cells(candidate.steps.map((values, step) => cell(values, step + 1, most))));
}

function totalRow(name, values, decimals) {
  if (!values.length) return null;
  const row = add(make("div", "row total"), make("div", "label", name));
  return add(row, cells(values.map((value) => make("div", "cell", number(value, decimals)))));
}

function steps(card) {
  if (!card.losses.length) return null;
  const node = make("div", "steps"), count = card.candidates.length;
  add(node, make("h4", "", count ? "candidates and their rewards" : "loss"));
  const most = Math.max(...card.candidates.flatMap((c) => c.steps.filter(Boolean).map((values) => values[0])), 1e-9);
  const list = make("div");
  const show = (all) => list.replaceChildren(...card.candidates.slice(0, all ? count : FIRST_CANDIDATES).map((c) => candidateRow(c, most)));
  show(false);
  const head = cells(card.losses.map((_, step) => make("div", "cell", (card.losses.length < TOO_MANY_STEPS ? "step " : "") + (step + 1))));
  head.classList.add("head");
  add(node, head, list);
  if (count > FIRST_CANDIDATES) {
    const more = button(`all ${count} candidates`, () => {
      const open = more.getAttribute("aria-expanded") !== "true";
      show(open);
      more.setAttribute("aria-expanded", open);
      more.textContent = open ? "fewer candidates" : `all ${count} candidates`;
    }, "plain");
    more.setAttribute("aria-expanded", "false");
    add(node, more);
  }
  return add(node, totalRow("mean reward", card.rewards, 2), totalRow("loss", card.losses, card.losses.length < MANY_STEPS ? 3 : 2));
}

function draw(card) {
  const node = make("article", "card");
  node.dataset.id = card.id;
  add(node, add(make("header"), make("span", "outcome " + card.outcome, card.badge), make("code", "", card.id)));
  const words = make("div");
  if (card.query) add(words, make("p", "query", "“" + card.query + "”"));
  for (const [name, value] of card.facts || []) add(words, add(make("p", "facts", name + " "), make("b", "", value)));
  add(words, ...card.sides.map(side));
  const frame = add(make("figure"), picture(card.picture, card.alt), card.under ? make("p", "note", card.under) : null);
  add(node, add(make("div", "top"), frame, words));
  if (card.references && card.references.length) {
    const list = make("ul", "references");
    add(list, ...card.references.map((text) => make("li", "", text)));
    add(node, add(make("details"), make("summary", "", `${card.references.length} references`), list));
  }
  add(node, views(card), steps(card));
  if (card.moved !== null) add(node, make("p", "note", card.moved ? "parameters moved by " + card.moved.toPrecision(3) : "no parameter moved"));
  return node;
}

function gallery(section) {
  const run = DATA.runs[Number(section.dataset.run)];
  let filter = "all", wanted = "", page = 0;
  const cards = make("div", "cards"), status = make("span", "note"), filters = new Map();
  status.setAttribute("role", "status");
  const previous = button("Previous", () => { page -= 1; update(); });
  const next = button("Next", () => { page += 1; update(); });
  const found = () => run.cards.filter((card) => (filter === "all" || card.outcome === filter) && card.id.toLowerCase().includes(wanted));

  function update() {
    const list = found(), first = page * PAGE, shown = list.slice(first, first + PAGE);
    cards.replaceChildren(...shown.map(draw));
    status.textContent = shown.length ? `${first + 1} to ${first + shown.length} of ${list.length}` : "no sample fits";
    previous.disabled = page === 0;
    next.disabled = first + PAGE >= list.length;
    for (const [name, node] of filters) node.setAttribute("aria-pressed", name === filter);
  }

  const controls = make("div", "controls");
  for (const [name, label] of Object.entries({ all: "all", ...run.outcomes })) {
    const count = name === "all" ? run.cards.length : run.cards.filter((card) => card.outcome === name).length;
    const node = button(`${label} (${count})`, () => { filter = name; page = 0; update(); });
    node.dataset.filter = name;
    filters.set(name, node);
    add(controls, node);
  }
  const search = make("input");
  search.type = "search";
  search.placeholder = "Search ids";
  search.setAttribute("aria-label", "Search sample ids");
  search.addEventListener("input", () => { wanted = search.value.trim().toLowerCase(); page = 0; update(); });
  add(controls, search);
  if (run.cards.some((card) => card.candidates.length)) {
    add(section, make("p", "note", "Bars are rewards; a blue one is above the average of the candidates that it competes with, so its probability is raised."));
  }
  add(section, controls, cards, add(make("div", "pager"), previous, next, status));
  update();
}

function theme() {
  const root = document.documentElement, node = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => node.setAttribute("aria-pressed", isDark());
  node.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; show(); });
  system.addEventListener("change", show);
  show();
}

theme();
document.querySelectorAll(".gallery").forEach(gallery);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
