// Sorts and filters the tables. Without it they are all there, in the leaderboard's own order.
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
