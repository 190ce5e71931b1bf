// Sorts and filters tables, searches pages, compares methods. Without it the tables are all there.
"use strict";
document.documentElement.classList.add("scripted");

const number = (text) => {
  const found = text.replace(/[, ]/g, "").match(/^[<=]?([+-]?\d*\.?\d+(?:e[+-]?\d+)?)(k?)/i);
  return found ? parseFloat(found[1]) * (found[2] ? 1000 : 1) : NaN;
};

// Numbers by size, other texts by letters; empty cells stay last in both directions.
function sort(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    const [m, n] = [number(x), number(y)];
    const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
    return descending ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

document.querySelector(".filter input")?.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("table.sortable tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});

// Search: every word of the query must be in a page's name or summary; names that match come first.
const top_ = document.body.dataset.top;
const box = document.querySelector(".search");
function shown(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const hits = PAGES.filter(([name, , about]) =>
    words.every((word) => `${name} ${about}`.toLowerCase().includes(word)));
  const inName = ([name]) => (words.every((word) => name.toLowerCase().includes(word)) ? 0 : 1);
  return hits.sort((a, b) => inName(a) - inName(b)).slice(0, 12);
}
box?.querySelector("input").addEventListener("input", (event) => {
  const list = box.querySelector("ul");
  list.replaceChildren(...shown(event.target.value).map(([name, place, about]) => {
    const [item, link, more] = ["li", "a", "span"].map((tag) => document.createElement(tag));
    link.href = top_ + place;
    link.textContent = name;
    more.textContent = about;
    link.append(more);
    item.append(link);
    return item;
  }));
  list.hidden = !list.children.length;
});
box?.addEventListener("keydown", (event) => {
  if (event.key === "Escape") box.querySelector("ul").hidden = true;
  if (event.key === "Enter") box.querySelector("a")?.click();
});

// Comparison of two rows on every leaderboard that has both.
const form = document.querySelector(".compare");
function negated(text) {
  const [, mean, low, high] = text.match(/^(\S+)(?: \[(\S+), (\S+)\])?$/) ?? [];
  const turned = (value) => (value[0] === "+" ? "-" : "+") + value.slice(1);
  return high ? `${turned(mean)} [${turned(high)}, ${turned(low)}]` : turned(mean);
}
function compare() {
  const [first, second] = [form.first.value, form.second.value];
  const rows = BOARDS.flatMap((board) =>
    board.pairs
      .filter(([a, b]) => (a === first && b === second) || (a === second && b === first))
      .map(([a, , difference, seeds]) => [
        board, board.rows[first], board.rows[second],
        `${a === first ? difference : negated(difference)} ${board.unit}`, seeds,
      ]));
  document.querySelector(".compared tbody").replaceChildren(...rows.map(([board, ...texts]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const link = document.createElement("a");
    link.href = top_ + board.place;
    link.textContent = board.title;
    head.className = "text";
    head.scope = "row";
    head.append(link);
    row.append(head, ...texts.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}
if (form) {
  const labels = [...new Set(BOARDS.flatMap((board) => Object.keys(board.rows)))].sort();
  const asked = new URLSearchParams(location.search);
  const wanted = { first: asked.get("first") ?? "cutmix", second: asked.get("second") ?? "none" };
  for (const select of [form.first, form.second]) {
    select.append(...labels.map((label) => new Option(label)));
    const name = wanted[select.name];
    select.value = labels.find((label) => label === name) ??
      labels.find((label) => label.startsWith(`${name}[`)) ?? labels[0];
    select.addEventListener("change", compare);
  }
  form.hidden = false;
  compare();
}
