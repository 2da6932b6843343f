
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const cell = row.cells[i];
    return cell.dataset.v === undefined || cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const numeric = [...body.rows].some(row => value(row, i) !== null);
      const rows = [...body.rows].map(row => [row, value(row, i), row.cells[i].textContent]);
      rows.sort(([p, a, s], [q, b, t]) => {
        const aside = p.classList.contains("aside") - q.classList.contains("aside");
        if (aside) return aside;
        if (!numeric) return sign * s.localeCompare(t);
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (a - b);
      });
      body.append(...rows.map(([row]) => row));
    });
  });
  if (heads.length < 5 || table.classList.contains("text")) continue;
  const tools = document.createElement("details"), list = document.createElement("div"), title = document.createElement("summary");
  tools.className = "tools";
  title.textContent = "columns";
  heads.slice(1).forEach((head, i) => {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      for (const row of table.rows) row.cells[i + 1].classList.toggle("off", !box.checked);
    });
    label.append(box, " " + head.textContent);
    list.append(label);
  });
  tools.append(title, list);
  table.parentElement.before(tools);
}
for (const figure of document.querySelectorAll("figure")) {
  for (const entry of figure.querySelectorAll(".entry")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "hide or show this line";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    button.addEventListener("click", () => {
      const off = entry.classList.toggle("dim");
      button.setAttribute("aria-pressed", String(!off));
      for (const part of figure.querySelectorAll(".plot [data-s='" + entry.dataset.s + "']")) part.classList.toggle("off", off);
    });
  }
}
