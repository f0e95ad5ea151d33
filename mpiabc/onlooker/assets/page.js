"use strict";
// Follows the run: asks for its view again and again. All addresses are relative, as a proxy may be between.
const token = new URLSearchParams(location.search).get("token") ?? "";
const at = (path, more) => path + "?" + new URLSearchParams({ token, ...more });
const one = (id) => document.getElementById(id);
const number = /^(?:[-+]?(?:\d|inf|nan)|-$)/;
const words = ["error", "theta", "where", "worker", "host", "kind", "at"];

function made(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function put(parent, children) {
  parent.replaceChildren(...children);
}

function facts(pairs) {
  return pairs.map(([name, value]) => {
    const pair = made("div");
    pair.append(made("dt", name), made("dd", value));
    return pair;
  });
}

function table([title, [heading, ...rows]]) {
  const kinds = heading.map((name, i) =>
    words.includes(name) ? (name === "error" || name === "theta" ? "long" : "")
      : i > 0 && rows.every((row) => number.test(row[i])) ? "number" : "");
  const row = (cells, name) => {
    const line = made("tr");
    line.append(...cells.map((cell, i) => made(name, cell, kinds[i])));
    return line;
  };
  const whole = made("table"), head = made("thead"), body = made("tbody"), box = made("div", undefined, "table");
  head.append(row(heading, "th"));
  body.append(...rows.map((cells) => row(cells, "td")));
  whole.append(head, body);
  box.append(made("h2", title), whole);
  return box;
}

// A picture stays until its successor is there, so that nothing flickers.
async function renew(image, picture) {
  const next = new Image();
  next.src = at(`picture/${encodeURIComponent(picture.name)}.png`, { v: picture.version });
  await next.decode();
  image.src = next.src;
}

function figure(picture) {
  const whole = made("figure"), image = made("img");
  image.alt = `${picture.title}. ${picture.caption}`;
  whole.append(made("h2", picture.title), image, made("figcaption", picture.caption));
  whole.dataset.name = picture.name;
  return whole;
}

function pictures(shown) {
  const place = one("pictures");
  const there = new Map([...place.children].map((whole) => [whole.dataset.name, whole]));
  const wanted = shown.map((picture) => {
    const whole = there.get(picture.name) ?? figure(picture);
    if (whole.dataset.version !== picture.version) {
      whole.dataset.version = picture.version;
      renew(whole.querySelector("img"), picture).catch(() => { delete whole.dataset.version; });
    }
    return whole;
  });
  if (wanted.some((whole, i) => place.children[i] !== whole) || wanted.length !== place.children.length) {
    put(place, wanted);
  }
}

function trouble(sentence) {
  one("trouble").textContent = sentence;
  one("trouble").hidden = !sentence;
}

function show(view) {
  const state = one("state"), name = view.problem || view.name, kind = view.state.replaceAll(" ", "-");
  if (state.textContent !== view.state) state.textContent = view.state;
  state.className = `state ${kind}`;
  document.title = `${name} · ${view.state}` + (view.state === "running" ? ` ${view.generations}` : "");
  one("title").textContent = name;
  one("file").textContent = view.name === name ? "" : view.name;
  one("part").hidden = typeof view.part !== "number";
  one("part").value = view.part ?? 0;
  one("said").textContent = view.state === "running" ? "" : view.said;
  put(one("facts"), facts(view.facts ?? []));
  const warnings = (view.warnings ?? []).map((text) => made("li", text, "warning"));
  const warned = new Set(view.warnings ?? []);
  put(one("findings"), [...warnings,
    ...(view.findings ?? []).filter(([, text]) => !warned.has(text)).map(([kind, text]) => made("li", text, kind))]);
  pictures(view.pictures ?? []);
  put(one("tables"), (view.tables ?? []).map(table));
}

async function look() {
  let wait = 3000;
  try {
    const answer = await fetch(at("view.json"), { cache: "no-store" });
    if (answer.ok) {
      const view = await answer.json();
      show(view);
      trouble(view.state === "unreadable" ? view.said : "");
      document.body.dataset.looks = String(Number(document.body.dataset.looks ?? 0) + 1);
      if (view.state === "running") wait = 1000;
    } else {
      trouble(await answer.text());
    }
  } catch {
    trouble("The server does not answer: mpiabc serve has ended, or the tunnel to it is closed. It is asked again.");
  }
  setTimeout(look, document.hidden ? 10000 : wait);
}

document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`blocked: ${event.violatedDirective}`);
});
look();
