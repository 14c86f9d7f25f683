// Without JavaScript the tables and figures stand as they are.
"use strict";

// Sorting: a click on a heading sorts by it, a second one the other way round, a third one restores the paper's order.
for (const table of document.querySelectorAll("table.sortable")) {
  const bodies = [...table.tBodies], rows = bodies.flatMap(body => [...body.rows]);
  const home = new Map(rows.map(row => [row, row.parentNode]));
  const heads = columnHeads(table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column));
  });

  function sort(head, column) {
    const before = head.getAttribute("aria-sort");
    for (const other of heads) other.removeAttribute("aria-sort");
    if (before === "descending") {
      table.classList.remove("sorted");
      for (const row of rows) home.get(row).append(row);
      return;
    }
    const down = before === "ascending" ? -1 : 1;
    head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
    table.classList.add("sorted");
    bodies[0].append(...[...rows].sort((a, b) => compare(key(a, column), key(b, column), down)));
  }
}

// The heading of each column; with two lines of them, the lower one, or the one that spans both.
function columnHeads(table) {
  const [first, second] = table.tHead.rows, under = second ? [...second.cells] : [];
  return [...first.cells].flatMap(head => head.colSpan > 1 || (second && head.rowSpan < 2) ?
    under.splice(0, head.colSpan) : [head]);
}

// What a cell sorts by: the number behind it, or its text.
function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort ?? cell.textContent.trim();
}

// Numbers by size, texts by the alphabet (A-9 before A-10), the empty ones last in either direction.
function compare(a, b, down) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = !isNaN(a) && !isNaN(b);
  return down * (numbers ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

// A click on a figure, or its button, shows it in the whole window; Escape, a click or the button closes it.
// The picture itself moves there and back, for a copy would have its ids twice.
const dialog = document.createElement("dialog"), close = document.createElement("button");
close.type = "button";
close.textContent = "Close";
document.body.append(dialog);
for (const figure of document.querySelectorAll("figure")) {
  const picture = figure.querySelector("svg"), caption = figure.querySelector("figcaption");
  const title = caption.querySelector("b").textContent, button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.textContent = "⤢";
  button.title = "Enlarge";
  button.setAttribute("aria-label", `Enlarge: ${title}`);
  button.addEventListener("click", enlarge);
  picture.addEventListener("click", () => dialog.open ? dialog.close() : enlarge());
  figure.append(button);

  function enlarge() {
    figure.style.minHeight = `${figure.offsetHeight}px`; // the page stands still
    dialog.setAttribute("aria-label", title);
    dialog.replaceChildren(close, picture, caption.cloneNode(true));
    dialog.addEventListener("close", () => {
      figure.prepend(picture);
      figure.style.minHeight = "";
      button.focus();
    }, { once: true });
    dialog.showModal();
  }
}
close.addEventListener("click", () => dialog.close());
dialog.addEventListener("click", event => event.target === dialog && dialog.close());
