// The browser of the completions. What a model wrote reaches the page as textContent only.
"use strict";

const PAGE_SIZE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const count = data.step.length;

// The view, which the address keeps: filters, order, page.
const DEFAULTS = { q: "", verdict: "", reason: "", step: "", flag: "", sort: "flag", order: "descending", page: "1" };
const TEXT_KEYS = ["verdict", "gold", "answer", "question", "completion"];
let view = { ...DEFAULTS };
let haystacks = null;

const $ = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const question = (row) => data.prompts[data.prompt[row]];
const value = (key, row) => (key === "question" ? question(row) : data[key][row]);
const number = (value, digits) => (value === null ? "-" : value.toFixed(digits));

function matching() {
  const words = view.q.toLowerCase();
  if (words && !haystacks) {
    const fields = ["question", "completion", "gold", "answer"];
    haystacks = data.step.map((_, row) => fields.map((key) => value(key, row)).join("\n").toLowerCase());
  }
  const rows = [];
  for (let row = 0; row < count; row++) {
    if (view.verdict && data.verdict[row] !== view.verdict) continue;
    if (view.reason && data.reason[row] !== view.reason) continue;
    if (view.step && data.step[row] !== Number(view.step)) continue;
    if (view.flag && !data.flag[row]) continue;
    if (words && !haystacks[row].includes(words)) continue;
    rows.push(row);
  }
  return rows;
}

function compare(one, other, sign) {
  if (one === other) return 0;
  if (one === null || one === "") return 1; // what is missing comes last either way
  if (other === null || other === "") return -1;
  return one < other ? -sign : sign;
}

function byAnswer(one, other, sign) {
  const numbers = [one, other].map((text) => Number(text.replaceAll(",", "")));
  return one && other && numbers.every(Number.isFinite) ? compare(...numbers, sign) : compare(one, other, sign);
}

function sorted(rows) {
  const sign = view.order === "ascending" ? 1 : -1;
  const order = view.sort === "gold" || view.sort === "answer" ? byAnswer : compare;
  return rows.sort(
    (a, b) =>
      order(value(view.sort, a), value(view.sort, b), sign) ||
      data.flag[b] - data.flag[a] ||
      compare(data.score[a], data.score[b], -1) ||
      a - b,
  );
}

function rowElement(row) {
  const line = element("tr", undefined, "row");
  line.tabIndex = 0;
  line.setAttribute("aria-expanded", "false");
  const verdict = element("td", data.verdict[row], data.verdict[row]);
  verdict.append(element("small", data.reason[row] ? ` ${data.reason[row].replaceAll("_", " ")}` : ""));
  line.append(
    element("td", data.flag[row] ? "!" : "", "flag"),
    element("td", data.step[row], "number"),
    verdict,
    element("td", number(data.score[row], 2), "number"),
    element("td", number(data.reward[row], 3), "number"),
    element("td", number(data.advantage[row], 3), "number wide"),
    element("td", data.gold[row], "wide"),
    element("td", data.answer[row]),
    element("td", question(row).slice(0, 200), "wide"),
    element("td", data.completion[row].slice(0, 200), "wide"),
  );
  line.addEventListener("click", () => toggle(line, row));
  line.addEventListener("keydown", (event) => {
    if (event.key === "Enter") toggle(line, row);
  });
  return line;
}

function toggle(line, row) {
  const open = line.getAttribute("aria-expanded") === "true";
  line.setAttribute("aria-expanded", String(!open));
  if (open) line.nextSibling.remove();
  else line.after(detail(row));
}

function detail(row) {
  const list = element("dl");
  const add = (name, text, long) => list.append(element("dt", name), element("dd", text, long && "long"));
  add("Question", question(row), true);
  add("Completion", data.completion[row], true);
  add("Gold answer", data.gold[row] || "-");
  add("Extracted answer", data.answer[row] || "none");
  add("Verdict", data.verdict[row] + (data.reason[row] ? `: ${data.reason[row].replaceAll("_", " ")}` : ""));
  add("Reward model score", number(data.score[row], 4));
  add("Hybrid reward", number(data.reward[row], 4));
  add("Advantage", number(data.advantage[row], 4));
  const group = element("button", "All answers to this question at this step");
  group.type = "button";
  group.addEventListener("click", () => change({ ...DEFAULTS, q: question(row), step: String(data.step[row]), sort: "reward" }));
  const cell = element("td");
  cell.colSpan = [...document.querySelectorAll("#rows th")].filter((head) => head.offsetParent).length;
  cell.append(list, group);
  const line = element("tr", undefined, "detail");
  line.append(cell);
  return line;
}

function show() {
  const rows = sorted(matching());
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
  const page = Math.min(Math.max(1, Number(view.page) || 1), pages);
  view.page = String(page);
  $("count").textContent = `${rows.length.toLocaleString("en")} of ${count.toLocaleString("en")}`;
  $("page").textContent = `${page} of ${pages}`;
  $("previous").disabled = page === 1;
  $("next").disabled = page === pages;
  document.querySelector("#rows tbody").replaceChildren(
    ...rows.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE).map(rowElement),
  );
  for (const head of document.querySelectorAll("#rows th")) {
    if (head.dataset.key === view.sort) head.setAttribute("aria-sort", view.order);
    else head.removeAttribute("aria-sort");
  }
}

function fillForm() {
  for (const field of $("filters").elements) {
    if (field.type === "checkbox") field.checked = view[field.name] !== "";
    else if (field.name) field.value = view[field.name];
  }
}

function change(changes) {
  view = { ...view, page: "1", ...changes };
  show();
  const kept = Object.entries(view).filter(([key, value]) => value !== DEFAULTS[key]);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  fillForm();
}

function read() {
  const known = [...new URLSearchParams(location.hash.slice(1))].filter(([key]) => key in DEFAULTS);
  view = { ...DEFAULTS, ...Object.fromEntries(known) };
  const keys = [...document.querySelectorAll("#rows th")].map((head) => head.dataset.key);
  if (!keys.includes(view.sort)) view.sort = DEFAULTS.sort;
  fillForm();
  show();
}

function start() {
  for (const key of ["verdict", "reason"]) {
    const select = $("filters").elements[key];
    for (const name of [...new Set(data[key])].filter(Boolean).sort()) {
      const option = element("option", name.replaceAll("_", " "));
      option.value = name;
      select.append(option);
    }
  }
  $("filters").addEventListener("input", (event) => {
    const field = event.target;
    change({ [field.name]: field.type === "checkbox" ? (field.checked ? "1" : "") : field.value });
  });
  $("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    change(DEFAULTS);
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => change({ page: String(Number(view.page) - 1) }));
  $("next").addEventListener("click", () => change({ page: String(Number(view.page) + 1) }));
  for (const head of document.querySelectorAll("#rows th")) {
    head.addEventListener("click", () => {
      const key = head.dataset.key;
      const first = TEXT_KEYS.includes(key) ? "ascending" : "descending";
      const turned = view.order === "ascending" ? "descending" : "ascending";
      change({ sort: key, order: view.sort === key ? turned : first });
    });
  }
  window.addEventListener("hashchange", read);
  read();
}

if (count) start();
