# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the page does: tables of which one page of rows is in the document, sorted and filtered in memory.

Ten thousand rows in a document take a browser seconds to lay out; fifty take none. Before printing all rows that
the filters leave are put in. Text goes in as text only (textContent), so nothing of a host's answer becomes markup.
"""

from __future__ import annotations

JS = """\
"use strict";
(() => {
  const PAGE = 50;
  const VERDICTS = {
    protected: ["good", "\\u2713", "protected"], unprotected: ["bad", "\\u2717", "not protected"],
    pending: ["warn", "\\u2026", "change pending"], old: ["warn", "\\u25f7", "old reading"],
    unknown: ["plain", "?", "unknown"], ready: ["good", "\\u2713", "ready"], lacking: ["bad", "\\u2717", "not ready"],
    whole: ["good", "\\u2713", "whole"], broken: ["bad", "\\u2717", "broken"], empty: ["plain", "\\u2013", "empty"],
  };
  const data = JSON.parse(document.getElementById("data").textContent);
  const make = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const text = (value) => (Array.isArray(value) ? value.join("; ") : String(value ?? ""));
  // Numbers in names sort as numbers: node-2 before node-10.
  const sortable = (value) => text(value).toLowerCase().replace(/\\d+/g, (digits) => digits.padStart(12, "0"));

  const fill = (cell, column, value) => {
    if (column.type === "verdict") {
      const [kind, sign, words] = VERDICTS[value] ?? VERDICTS.unknown;
      const mark = make("span", { textContent: sign });
      mark.setAttribute("aria-hidden", "true");
      cell.append(make("span", { className: "verdict " + kind }, mark, " " + words));
    } else if (column.type === "when") {
      const [moment, ...rest] = value;
      const shown = moment.replace("T", " ").replace("Z", "");
      if (moment) cell.append(make("time", { dateTime: moment, textContent: shown }));
      rest.filter(Boolean).forEach((one) => cell.append(make("div", { className: "faint", textContent: one })));
    } else if (Array.isArray(value) && value.length > 1) {
      cell.append(make("ul", { className: "plain" }, ...value.map((one) => make("li", { textContent: one }))));
    } else {
      cell.textContent = text(value);
    }
    if (column.type !== "text" && column.type !== "verdict") cell.className = column.type;
  };

  const build = (section) => {
    const table = data.tables[section.dataset.table];
    const { columns, rows } = table;
    const hay = rows.map((row) => row.map(text).join("\\n").toLowerCase());
    const keys = columns.map(() => null);
    const keysOf = (at) => (keys[at] ??= rows.map((row) => sortable(row[at])));
    let order = rows.map((_row, at) => at);
    let shown = order;
    let page = 0;
    let sorted = { at: -1, down: false };

    const body = make("tbody");
    const said = make("p", { className: "faint" });
    said.setAttribute("role", "status");
    const heads = columns.map((column, at) => {
      const arrow = make("span", { className: "arrow" });
      arrow.setAttribute("aria-hidden", "true");
      const button = make("button", { type: "button", className: "sort" }, column.title, arrow);
      const head = make("th", { scope: "col" }, button);
      button.addEventListener("click", () => {
        sorted = { at, down: sorted.at === at && !sorted.down };
        heads.forEach((one, place) => {
          if (place === at) one.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
          else one.removeAttribute("aria-sort");
          one.querySelector(".arrow").textContent = place !== at ? "" : sorted.down ? "\\u25bc" : "\\u25b2";
        });
        sort();
        page = 0;
        update();
      });
      return head;
    });
    const caption = make("caption", { textContent: table.caption });
    const whole = make("table", {}, caption, make("thead", {}, make("tr", {}, ...heads)), body);
    const region = make("div", { className: "scroll", tabIndex: 0 }, whole);
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", table.title + ", table");

    const search = make("input", { type: "search", autocomplete: "off" });
    const label = make("label", {}, "Filter " + table.title.toLowerCase(), search);
    const controls = make("div", { className: "controls" }, label);
    const choices = [];
    columns.forEach((column, at) => {
      if (!column.choose) return;
      const values = [...new Set(rows.map((row) => text(row[at])))].sort();
      if (values.length < 2) return;
      const words = (value) => (column.type === "verdict" ? (VERDICTS[value] ?? VERDICTS.unknown)[2] : value || "none");
      const select = make("select", {}, make("option", { value: "*", textContent: "all" }),
        ...values.map((value) => make("option", { value: "=" + value, textContent: words(value) })));
      choices.push({ at, select });
      select.addEventListener("change", filter);
      controls.append(make("label", {}, column.title, select));
    });
    search.addEventListener("input", filter);

    const back = make("button", { type: "button", textContent: "Previous page" });
    const forth = make("button", { type: "button", textContent: "Next page" });
    const place = make("span", {});
    back.addEventListener("click", () => { page -= 1; update(); });
    forth.addEventListener("click", () => { page += 1; update(); });
    const pages = make("nav", { className: "pages" }, back, place, forth);
    pages.setAttribute("aria-label", "Pages of " + table.title.toLowerCase());

    function sort() {
      if (sorted.at >= 0) {
        const by = keysOf(sorted.at), sign = sorted.down ? -1 : 1;
        order = rows.map((_row, at) => at).sort((a, b) => (by[a] < by[b] ? -sign : by[a] > by[b] ? sign : a - b));
      }
      sift();
    }
    function sift() {
      const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
      const chosen = choices.filter((one) => one.select.value !== "*");
      shown = order.filter((at) => words.every((word) => hay[at].includes(word))
        && chosen.every((one) => "=" + text(rows[at][one.at]) === one.select.value));
    }
    function filter() { sift(); page = 0; update(); }
    function line(at) {
      const cells = columns.map((column, number) => {
        const cell = document.createElement(number === table.header ? "th" : "td");
        if (number === table.header) cell.scope = "row";
        fill(cell, column, rows[at][number]);
        return cell;
      });
      return make("tr", {}, ...cells);
    }
    function update(all = false) {
      const count = Math.max(1, Math.ceil(shown.length / PAGE));
      page = Math.min(Math.max(page, 0), count - 1);
      const part = all ? shown : shown.slice(page * PAGE, (page + 1) * PAGE);
      body.replaceChildren(...part.map(line));
      const of = shown.length === rows.length ? "" : " of " + rows.length;
      said.textContent = shown.length + of + (shown.length === 1 ? " row" : " rows") + " shown";
      place.textContent = "Page " + (page + 1) + " of " + count;
      back.disabled = page === 0;
      forth.disabled = page === count - 1;
      pages.hidden = count === 1 || all;
    }
    if (rows.length === 0) {
      section.append(make("p", { className: "faint", textContent: table.none }));
      return;
    }
    if (rows.length > 5) section.append(controls, said);
    section.append(region, pages);
    update();
    window.addEventListener("beforeprint", () => update(true));
    window.addEventListener("afterprint", () => update());
  };
  document.querySelectorAll("section[data-table]").forEach(build);
})();
"""
