// What the pointer is on is told in a box that repeats the row of the table; arrow keys go from row to row. Entries of the
// legend bring their part of the picture to the fore. Without this script the page lacks no figure.
"use strict";
(() => {
  const made = (parent, tag, words) => {
    const element = parent.appendChild(document.createElement(tag));
    if (words !== undefined) element.textContent = words;
    return element;
  };
  const isShown = (element) => element.getClientRects().length > 0;

  const readable = (figure) => {
    const plot = figure.querySelector(".plot"), table = figure.querySelector("table");
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows];
    const tip = made(plot, "dl");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true");
    let at = -1;

    const title = (row) => {
      const words = row.cells[0].textContent;
      return /^[\d.,]+$/.test(words) ? `${heads[0]} ${words}` : words;
    };
    const spoken = (row) => [title(row), ...heads.slice(1).map((head, k) => `${head} ${row.cells[k + 1].textContent}`)].join("; ");
    const hits = () => [...plot.querySelectorAll("[data-row]")].filter(isShown);
    const unmark = () => plot.querySelectorAll(".on").forEach((each) => each.classList.remove("on"));

    const hide = () => { tip.hidden = true; unmark(); };
    const fill = (row) => {
      tip.replaceChildren();
      made(tip, "strong", title(row));
      heads.slice(1).forEach((head, k) => {
        const cell = row.cells[k + 1];
        if (cell.textContent === "–") return;
        made(tip, "dt", head);
        made(tip, "dd").append(...[...cell.childNodes].map((node) => node.cloneNode(true)));
      });
    };
    const place = (mark) => {
      const box = plot.getBoundingClientRect(), spot = mark.getBoundingClientRect();
      const middle = (spot.left + spot.right) / 2 - box.left, free = box.width - tip.offsetWidth;
      if (free < box.width / 2 || spot.width > box.width / 2) {  // no room beside: below
        tip.style.left = Math.max(0, Math.min(middle - tip.offsetWidth / 2, free)) + "px";
        tip.style.top = (box.height < 420 ? box.height : spot.bottom - box.top) + 6 + "px";
      } else {
        const right = middle + 16 <= free;
        tip.style.left = (right ? middle + 16 : Math.max(0, middle - 16 - tip.offsetWidth)) + "px";
        tip.style.top = Math.max(0, Math.min(spot.top - box.top + 10, box.height - 20)) + "px";
      }
    };
    const show = (index) => {
      const mark = hits().find((hit) => Number(hit.dataset.row) === index);
      if (!mark) return;
      at = index;
      unmark();
      mark.classList.add("on");
      fill(rows[index]);
      tip.hidden = false;
      place(mark);
      plot.setAttribute("aria-valuenow", index + 1);
      plot.setAttribute("aria-valuetext", spoken(rows[index]));
    };

    // As a slider over the rows, it is reached by the keyboard and read out where it stands.
    plot.tabIndex = 0;
    const about = { role: "slider", "aria-valuemin": 1, "aria-valuemax": rows.length, "aria-valuenow": 1, "aria-valuetext": spoken(rows[0]) };
    for (const [name, value] of Object.entries(about)) plot.setAttribute(name, value);
    plot.addEventListener("keydown", (event) => {
      const last = rows.length - 1;
      const to = {
        ArrowRight: Math.min(at + 1, last), ArrowDown: Math.min(at + 1, last),
        ArrowLeft: Math.max(at - 1, 0), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") hide();
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
    const meant = (event) => {
      const hit = event.target.closest("[data-row]");
      if (hit) show(Number(hit.dataset.row));
      else if (document.activeElement !== plot) hide();
    };
    plot.addEventListener("pointermove", meant);
    plot.addEventListener("pointerdown", meant);
    plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    plot.addEventListener("blur", hide);
  };

  const selectable = (figure) => {
    const plot = figure.querySelector(".plot"), buttons = [...figure.querySelectorAll(".legend button")];
    const light = () => {
      const chosen = new Set(buttons.filter((b) => b.ariaPressed === "true" || b.matches(":hover")).map((b) => b.dataset.key));
      plot.classList.toggle("chosen", chosen.size > 0);
      plot.querySelectorAll(".lit").forEach((each) => each.classList.remove("lit"));
      for (const key of chosen) plot.querySelectorAll(".s" + key).forEach((each) => each.classList.add("lit"));
    };
    for (const button of buttons) {
      button.addEventListener("click", () => { button.ariaPressed = String(button.ariaPressed !== "true"); light(); });
      button.addEventListener("pointerenter", light);
      button.addEventListener("pointerleave", light);
    }
  };

  for (const figure of document.querySelectorAll("figure")) { readable(figure); selectable(figure); }

  // Paper has no buttons: browsers that do not open `details` by the style sheet have it done here.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
})();
