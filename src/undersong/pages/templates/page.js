"use strict";
// Sorts and filters tables, saves figures and tables, moves a line over a waveform.  All of the page can be read without.
(() => {
  const make = (tag, set = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), set);
    node.append(...children);
    return node;
  };
  const plain = (text) => text.replace(/[\u00a0\u202f]/g, " ").replace(/\u2212/g, "-").replace(/\s+/g, " ").trim();
  const words = (cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll("svg, audio").forEach((one) => one.remove());
    copy.querySelectorAll("small, br, span").forEach((one) => one.before(" "));
    return plain(copy.textContent);
  };
  const slug = (text) => plain(text).toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  const study = slug(document.title.replace(/ – undersong report$/, "")) || "study";

  function save(name, content, type) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    const link = make("a", { href: url, download: `undersong-${study}-${name}` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Tables -------------------------------------------------------------------------------------------------------
  const rowsOf = (table) => [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.matches(".block"));
  const headOf = (table) => (table.tHead && table.tHead.rows.length === 1 ? [...table.tHead.rows[0].cells] : []);
  const simple = (table) => headOf(table).length > 0 && headOf(table).every((cell) => cell.colSpan === 1);

  function key(cell) {
    if (!cell) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = words(cell).replace(/(\d),(?=\d{3})/g, "$1");
    const number = /^[<≥=+]?\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=$|[\s%[(/])/i.exec(text);
    if (number) return Number(number[1]) * (text.startsWith("<") ? 0.999 : 1);
    return text === "–" || text === "" ? null : text.toLowerCase();
  }

  function compare(a, b, sign) {  // what is missing stands last either way, numbers before words
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  }

  function sortable(table, say) {
    if (!simple(table) || rowsOf(table).length < 2) return;
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
    headOf(table).forEach((head, column) => {
      const label = words(head);
      if (!label || head.querySelector(".sr")) return;
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort || "none"];
        headOf(table).forEach((one) => one.removeAttribute("aria-sort"));
        if (next !== "none") head.setAttribute("aria-sort", next);
        for (const [body, original] of bodies) {
          const fixed = original.filter((row) => row.matches(".block"));
          const rows = original.filter((row) => !row.matches(".block"));
          if (next !== "none") {
            const keys = new Map(rows.map((row) => [row, key(row.cells[column])]));
            const sign = next === "ascending" ? 1 : -1;
            rows.sort((a, b) => compare(keys.get(a), keys.get(b), sign));
          }
          body.append(...fixed, ...rows);
        }
        say(next === "none" ? "in the first order" : `sorted by ${label}, ${next}`);
      });
    });
  }

  function filter(rows, name, say) {
    const field = make("input", { type: "search", className: "filter", placeholder: "filter", autocomplete: "off" });
    field.setAttribute("aria-label", `Filter: ${name}`);
    let texts = null;
    field.addEventListener("input", () => {
      texts = texts || rows().map((row) => [row, plain(row.textContent).toLowerCase()]);
      const wanted = plain(field.value).toLowerCase().split(" ").filter(Boolean);
      let shown = 0;
      for (const [row, text] of texts) {
        row.hidden = !wanted.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      say(wanted.length ? `${shown} of ${texts.length}` : "");
    });
    return field;
  }

  // A cell that a spreadsheet would take for a formula is marked as text.
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };

  function csv(table) {
    const rows = rowsOf(table).map((row) => [...row.cells]);
    const blocks = [...table.tBodies].flatMap((body) => {
      const title = body.querySelector(".block");
      return [...body.rows].filter((row) => !row.matches(".block")).map(() => (title ? words(title) : ""));
    });
    const named = blocks.some(Boolean);
    const kept = rows.length ? rows[0].map((_, i) => !rows.every((cells) => cells[i] && cells[i].matches(".picture"))) : [];
    const spread = kept.map((_, i) => rows.some((cells) => cells[i] && cells[i].dataset.low !== undefined));
    const heads = columns(table);
    const line = (cells, of) => cells.flatMap((cell, i) => (!kept[i] ? [] : spread[i] ? of(cell) : of(cell).slice(0, 1)));
    const head = line(heads, (text) => [text, `${text}, low`, `${text}, high`]);
    const body = rows.map((cells) => line(cells, (cell) => {
      const { v, low, high } = cell.dataset;
      return v === undefined ? [words(cell), "", ""] : [v, low || "", high || ""];
    }));
    const lines = [named ? ["", ...head] : head, ...body.map((cells, i) => (named ? [blocks[i], ...cells] : cells))];
    return "\ufeff" + lines.map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
  }

  function columns(table) {  // of a head of two rows: "above, below"
    if (!table.tHead) return [];
    const grid = [];
    [...table.tHead.rows].forEach((row, y) => {
      let x = 0;
      for (const cell of row.cells) {
        while ((grid[x] || [])[y] !== undefined) x += 1;
        for (let i = 0; i < cell.colSpan; i += 1, x += 1)
          for (let j = 0; j < cell.rowSpan; j += 1) (grid[x] = grid[x] || [])[y + j] = j ? "" : words(cell);
      }
    });
    return grid.map((texts) => texts.filter(Boolean).join(", "));
  }

  const status = () => {
    const node = make("span", { className: "said", role: "status" });
    node.setAttribute("role", "status");
    return [node, (text) => { node.textContent = text; }];
  };
  const button = (text, label, act) => {
    const node = make("button", { type: "button", className: "save" }, text);
    node.setAttribute("aria-label", label);
    node.addEventListener("click", act);
    return node;
  };
  const bar = (...items) => make("div", { className: "tools" }, ...items);

  let number = 0;
  for (const table of document.querySelectorAll("main table")) {
    const name = table.caption ? words(table.caption) : "table";
    const file = `table-${(number += 1)}-${slug(name).slice(0, 40)}.csv`;
    const [node, say] = status();
    sortable(table, say);
    const tools = [button("CSV", `Save as CSV: ${name}`, () => save(file, csv(table), "text/csv")), node];
    if (rowsOf(table).length >= 8) tools.unshift(filter(() => rowsOf(table), name, say));
    (table.closest(".scroll") || table).before(bar(...tools));
  }
  for (const list of document.querySelectorAll("main ol.samples, main ul.replies")) {
    if (list.children.length < 8) continue;
    const [node, say] = status();
    const head = list.previousElementSibling;
    const before = head && head.matches(".samples-head") ? head : list;
    before.before(bar(filter(() => [...list.children], list.dataset.name || "list", say), node));
  }

  // Figures ------------------------------------------------------------------------------------------------------
  const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "opacity",
    "fill-opacity", "font-family", "font-size", "font-weight", "text-anchor", "paint-order", "vector-effect", "transform"];
  const NS = "http://www.w3.org/2000/svg";
  const mark = (tag, set, text) => {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(set)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  function styled(source) {  // a copy that needs no style sheet
    const copy = source.cloneNode(true);
    const from = [source, ...source.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
      if (node.localName === "title") return;
      const computed = getComputedStyle(from[i]);
      node.setAttribute("style", STYLES.map((name) => `${name}:${computed.getPropertyValue(name)}`).join(";"));
      node.removeAttribute("class");
    });
    return copy;
  }

  function lines(node) {  // [text, rectangle] of every line that a text node is set in
    const found = [];
    const range = document.createRange();
    for (const piece of node.data.matchAll(/\S+/g)) {
      range.setStart(node, piece.index);
      range.setEnd(node, piece.index + piece[0].length);
      for (const box of [range.getBoundingClientRect()].filter((one) => one.width)) {
        const last = found[found.length - 1];
        if (last && Math.abs(last[1].top - box.top) < 2) last[0] += ` ${piece[0]}`;
        else found.push([piece[0], box]);
      }
    }
    return found;
  }

  function drawing(figure) {
    const page = getComputedStyle(document.body);
    const edge = figure.getBoundingClientRect();
    const hidden = (node) => node.closest(".tools, details:not([open]), .sr, audio, [hidden]");
    const pictures = [...figure.querySelectorAll("svg")].filter((one) => !one.parentElement.closest("svg") && !hidden(one));
    const out = mark("svg", { xmlns: NS, width: Math.ceil(edge.width) + 32, height: Math.ceil(edge.height) + 32 });
    out.append(mark("rect", { width: "100%", height: "100%", fill: page.backgroundColor }));
    const inner = mark("g", { transform: "translate(16 16)" });
    for (const picture of pictures) {
      const box = picture.getBoundingClientRect();
      const copy = styled(picture);
      const place = { x: box.left - edge.left, y: box.top - edge.top, width: box.width, height: box.height };
      for (const [name, value] of Object.entries({ ...place, overflow: "visible" })) copy.setAttribute(name, value);
      inner.append(copy);
    }
    const walker = document.createTreeWalker(figure, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const parent = walker.currentNode.parentElement;
      if (parent.closest("svg") || hidden(parent)) continue;
      const style = getComputedStyle(parent);
      const about = { fill: style.color, "font-family": style.fontFamily, "font-size": style.fontSize, "font-weight": style.fontWeight };
      for (const [text, box] of lines(walker.currentNode)) {
        const y = box.top - edge.top + box.height * 0.76;
        inner.append(mark("text", { ...about, x: box.left - edge.left, y }, text));
      }
    }
    out.append(inner);
    const tools = figure.querySelector(":scope > .tools");
    const shown = tools ? tools.getBoundingClientRect().top - edge.top : edge.height;
    const bottom = Math.max(shown, ...[...inner.querySelectorAll(":scope > text")].map((one) => Number(one.getAttribute("y")) + 4));
    out.setAttribute("height", Math.ceil(bottom) + 32);
    return out;
  }

  const written = (figure) => new XMLSerializer().serializeToString(drawing(figure));

  function png(figure, name) {
    const picture = new Image();
    picture.addEventListener("load", () => {
      const canvas = make("canvas", { width: 2 * picture.width, height: 2 * picture.height });
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(name, blob));
    });
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(written(figure))}`;
  }

  document.querySelectorAll("main figure").forEach((figure, i) => {
    const name = `figure-${i + 1}`;
    const caption = figure.querySelector("figcaption b");
    const label = caption ? words(caption).replace(/\.$/, "") : name;
    const table = (figure.closest(".figured") || figure).querySelector(".numbers table");
    const tools = [
      button("SVG", `Save ${label} as SVG`, () => save(`${name}.svg`, written(figure), "image/svg+xml")),
      button("PNG", `Save ${label} as PNG`, () => png(figure, `${name}.png`)),
    ];
    if (table) tools.push(button("CSV", `Save the data of ${label} as CSV`, () => save(`${name}.csv`, csv(table), "text/csv")));
    figure.append(bar(...tools));
  });

  window.addEventListener("beforeprint", () => {  // paper cannot be unfolded; the rest would be very long on it
    document.querySelectorAll("details.further").forEach((one) => { one.open = true; });
  });

  // Players ------------------------------------------------------------------------------------------------------
  document.addEventListener("play", (event) => {
    document.querySelectorAll("audio").forEach((one) => one !== event.target && one.pause());
  }, true);
  document.querySelectorAll(".heard").forEach((place) => {
    const audio = place.querySelector("audio");
    const wave = place.querySelector(".wave");
    if (!audio || !wave) return;
    const line = wave.querySelector(".at");
    audio.addEventListener("timeupdate", () => {
      line.setAttribute("x1", `${(100 * audio.currentTime) / (audio.duration || 1)}%`);
      line.setAttribute("x2", line.getAttribute("x1"));
    });
    wave.addEventListener("click", (event) => {
      const box = wave.getBoundingClientRect();
      const go = () => { audio.currentTime = (audio.duration * (event.clientX - box.left)) / box.width; };
      if (audio.readyState) go();
      else audio.addEventListener("loadedmetadata", go, { once: true });
      audio.play();
    });
  });
})();
