"use strict";
// Draws the map, fills the table as it is scrolled, plays clips, and keeps the marks.
(() => {
  const byId = (id) => document.getElementById(id);
  const content = JSON.parse(byId("content").textContent);
  const { data, harm } = content;
  const n = data.id.length;
  if (!n) return;
  const make = (tag, set = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), set);
    node.append(...children);
    return node;
  };
  const format = (value) => (value === null ? "–" : value.toFixed(3));
  const plain = (text) => text.toLowerCase();

  // Marks, kept by the browser for this page where it allows that -------------------------------------------------
  const marks = new Set();
  const digest = data.id.reduce((sum, id) => { for (let i = 0; i < id.length; i += 1) sum = (sum * 31 + id.charCodeAt(i)) | 0; return sum; }, n);
  const place = `undersong-marks:${content.name}:${digest}`;
  try {
    for (const i of JSON.parse(localStorage.getItem(place) || "[]")) if (i < n) marks.add(i);
  } catch (error) { /* a browser that keeps nothing for files */ }
  function keep() {
    try { localStorage.setItem(place, JSON.stringify([...marks])); } catch (error) { /* as above */ }
    byId("export").textContent = marks.size ? `Save ${marks.size.toLocaleString("en")} mark${marks.size > 1 ? "s" : ""}` : "Save marks";
  }
  function mark(i, set = !marks.has(i)) {
    if (set) marks.add(i); else marks.delete(i);
    keep();
    fill();
    show();
    draw();
  }
  // One id a line; an id that a line cannot hold as it is stands as JSON.
  const line = (id) => (/^["#\s]|\s$|[\u0000-\u001f\u007f\u0085\u2028\u2029]/.test(id) || id === "" ? JSON.stringify(id) : id);
  function save() {
    const ids = [...marks].sort((a, b) => a - b).map((i) => line(data.id[i]));
    const text = `# ${marks.size} of ${n} samples marked on the page of ${JSON.stringify(content.name)}\n${ids.join("\n")}${ids.length ? "\n" : ""}`;
    const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    const link = make("a", { href: url, download: "undersong-marks.txt" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Clips ---------------------------------------------------------------------------------------------------------
  const player = new Audio();
  // Clips are most of the file and stand last, so that the rest is there before they are.
  const address = (at) => (byId(`clip-${at}`) || { textContent: "" }).textContent;
  function play(at) {  // a browser may refuse until the page was clicked
    if (at < 0 || !address(at)) return;
    document.querySelectorAll("audio").forEach((one) => one.pause());
    player.src = address(at);
    player.play().catch(() => {});
  }
  document.addEventListener("play", (event) => {
    player.pause();
    document.querySelectorAll("audio").forEach((one) => one !== event.target && one.pause());
  }, true);
  function toggle() {
    const own = byId("card").querySelector("audio");
    if (!player.paused) player.pause();
    else if (own && !own.paused) own.pause();
    else if (data.clip[selected] >= 0) play(data.clip[selected]);
  }

  // Selection and its card ----------------------------------------------------------------------------------------
  let selected = -1;
  let harmful = -1;  // a harmful request that is shown instead of a sample
  const sound = (at, name) => {
    const node = make("audio", { controls: true, preload: "none" });
    if (address(at)) node.src = address(at);
    else window.addEventListener("load", () => { node.src = address(at); }, { once: true });
    node.setAttribute("aria-label", name);
    return node;
  };
  const about = (table, i) => [table.id[i], table.source && table.source[i], table.speaker && table.speaker[i] && `voice ${table.speaker[i]}`].filter(Boolean).join(" · ");
  function harmCard(j) {
    const parts = [make("p", {}, harm.text[j] || "(no text)"), make("small", {}, about(harm, j))];
    if (harm.clip[j] >= 0) parts.push(sound(harm.clip[j], `Harmful request ${harm.id[j]}`));
    return parts;
  }
  let drawn = "";
  function show() {
    const state = `${selected} ${harmful} ${marks.has(selected)}`;
    if (state === drawn) return;
    drawn = state;
    const card = byId("card");
    if (harmful >= 0) {
      card.replaceChildren(make("h3", { className: "harmful first" }, "harmful request"), ...harmCard(harmful));
      return;
    }
    const i = selected;
    if (i < 0) { card.replaceChildren(make("p", { className: "aside" }, "Point at the map or pick a row.")); return; }
    const head = `rank ${data.rank[i].toLocaleString("en")} · distance ${format(data.distance[i])}${data.nearer[i] ? " · nearer than 99 % of ordinary data" : ""}`;
    const parts = [make("h3", {}, head), make("p", {}, data.text[i] || "(no text)"), make("small", {}, about(data, i))];
    if (data.clip[i] >= 0) parts.push(sound(data.clip[i], `Sample ${data.id[i]}`));
    const button = make("button", { type: "button", className: "save", id: "mark" }, marks.has(i) ? "Unmark (x)" : "Mark (x)");
    button.addEventListener("click", () => mark(i));
    parts.push(button);
    const j = data.nearest[i];
    if (j >= 0) parts.push(make("h3", { className: "harmful" }, "nearest harmful request"), ...harmCard(j));
    card.replaceChildren(...parts);
  }
  function select(i, scroll) {
    selected = i;
    harmful = -1;
    if (scroll) reveal();
    fill();
    show();
    draw();
  }

  // Table: only the rows that are in sight exist ------------------------------------------------------------------
  const ROW = 35;
  const box = byId("table");
  const text = (i) => data.text[i];
  const nearestText = (i) => (data.nearest[i] < 0 ? "" : harm.text[data.nearest[i]]);
  const COLUMNS = [
    { name: "✕", of: (i) => (marks.has(i) ? 0 : 1), style: "mark", width: "3.2rem", label: "marked" },
    { name: "rank", of: (i) => data.rank[i], style: "num optional", width: "4.6rem" },
    { name: "distance", of: (i) => data.distance[i], style: "num distance", width: "5.6rem" },
    { name: "sample", of: (i) => text(i) || data.id[i], style: "said" },
    { name: "nearest harmful request", of: nearestText, style: "harmful optional" },
    ...["source", "speaker"].filter((name) => data[name]).map((name) => ({ name, of: (i) => data[name][i] || "", style: "optional", width: "7rem" })),
    ...(data.clip.some((at) => at >= 0) ? [{ name: "▶", of: (i) => (data.clip[i] >= 0 ? 0 : 1), style: "play", width: "2.8rem", label: "has a clip" }] : []),
  ];
  const all = [...Array(n).keys()];
  let listed = all;
  let sorted = { column: 1, sign: 1 };
  const searched = { texts: null };

  COLUMNS.forEach((column, at) => {
    const button = make("button", { type: "button", className: "sort" }, column.name);
    if (column.label) button.setAttribute("aria-label", column.label);
    const head = make("th", { scope: "col", className: column.style }, button);
    if (column.width) head.style.width = column.width;
    button.addEventListener("click", () => {
      sorted = { column: at, sign: sorted.column === at ? -sorted.sign : 1 };
      list();
    });
    byId("heads").append(head);
  });

  function list() {
    const words = plain(byId("filter").value).split(/\s+/).filter(Boolean);
    if (words.length && !searched.texts)
      searched.texts = all.map((i) => plain([data.id[i], text(i), nearestText(i), data.source ? data.source[i] : "", data.speaker ? data.speaker[i] : ""].join(" ")));
    const on = (id) => byId(id) && byId(id).checked;
    const tests = [];
    if (words.length) tests.push((i) => words.every((word) => searched.texts[i].includes(word)));
    if (on("only-nearer")) tests.push((i) => data.nearer[i]);
    if (on("only-marked")) tests.push((i) => marks.has(i));
    if (on("only-clips")) tests.push((i) => data.clip[i] >= 0);
    listed = all.filter((i) => tests.every((test) => test(i)));
    const { column, sign } = sorted;
    const of = COLUMNS[column].of;
    const keys = new Map(listed.map((i) => [i, of(i)]));
    const order = new Intl.Collator("en", { numeric: true }).compare;
    listed.sort((a, b) => {  // what is missing stands last either way
      const [p, q] = [keys.get(a), keys.get(b)];
      if (p === null || q === null) return (p === null) - (q === null);
      return sign * (typeof p === "number" ? p - q : order(p, q)) || a - b;
    });
    [...byId("heads").cells].forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    byId("count").textContent = listed.length === n ? `${n.toLocaleString("en")} samples` : `${listed.length.toLocaleString("en")} of ${n.toLocaleString("en")}`;
    box.scrollTop = 0;
    fill();
    draw();
  }

  const spacer = (rows) => {
    const cell = make("td");
    cell.style.height = `${rows * ROW}px`;
    return make("tr", { className: "space" }, cell);
  };
  function row(i) {
    const node = make("tr", { className: [i === selected && harmful < 0 ? "selected" : "", marks.has(i) ? "marked" : "", data.nearer[i] ? "nearer" : ""].join(" ") });
    node.dataset.i = i;
    for (const column of COLUMNS) {
      const cell = make("td", { className: column.style });
      if (column.style === "mark") {
        const button = make("input", { type: "checkbox", checked: marks.has(i), tabIndex: -1 });
        button.setAttribute("aria-label", `Mark ${data.id[i]}`);
        cell.append(button);
      } else if (column.style === "play") {
        if (data.clip[i] >= 0) {
          const button = make("button", { type: "button", tabIndex: -1 }, "▶");
          button.setAttribute("aria-label", `Play ${data.id[i]}`);
          cell.append(button);
        }
      } else {
        const value = column.of(i);
        cell.textContent = column.name === "distance" ? format(value) : typeof value === "number" ? value.toLocaleString("en") : value;
      }
      node.append(cell);
    }
    return node;
  }
  function fill() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 6);
    const last = Math.min(listed.length, first + Math.ceil((box.clientHeight || 600) / ROW) + 12);
    byId("body").replaceChildren(spacer(first), ...listed.slice(first, last).map(row), spacer(listed.length - last));
  }
  function reveal() {
    const at = listed.indexOf(selected);
    if (at < 0) return;
    const head = byId("heads").offsetHeight;
    const top = at * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW + head > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW + head - box.clientHeight;
  }
  box.addEventListener("scroll", fill, { passive: true });
  byId("body").addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-i]");
    if (!line) return;
    const i = Number(line.dataset.i);
    const cell = event.target.closest("td");
    if (cell.matches(".mark")) { selected = i; harmful = -1; mark(i); return; }
    if (cell.matches(".play") && data.clip[i] >= 0) play(data.clip[i]);
    select(i);
  });

  // Map -----------------------------------------------------------------------------------------------------------
  const canvas = byId("map");
  const pen = canvas.getContext("2d");
  let size = [0, 0];
  let view = { x: 500, y: 500, zoom: 1 };
  const scale = () => [(size[0] - 24) / 1000 * view.zoom, (size[1] - 24) / 1000 * view.zoom];
  const at = (x, y) => {
    const [sx, sy] = scale();
    return [size[0] / 2 + (x - view.x) * sx, size[1] / 2 - (y - view.y) * sy];
  };
  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }
  function paint() {
    const ratio = window.devicePixelRatio || 1;
    size = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(size[0] * ratio) || canvas.height !== Math.round(size[1] * ratio)) {
      canvas.width = Math.round(size[0] * ratio);
      canvas.height = Math.round(size[1] * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, ...size);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const [blue, orange, ink, faint] = ["--distant", "--closest", "--ink", "--faint"].map(color);
    const radius = n > 3000 ? 2 : n > 600 ? 2.6 : 3.4;
    const dot = (i, r) => { const [x, y] = at(data.x[i], data.y[i]); pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); };
    pen.fillStyle = blue;
    pen.globalAlpha = 0.4;
    pen.beginPath();
    for (const i of listed) if (!data.nearer[i]) dot(i, radius);
    pen.fill();
    pen.globalAlpha = 1;
    pen.beginPath();
    for (const i of listed) if (data.nearer[i]) dot(i, radius + 1);
    pen.fill();
    pen.strokeStyle = orange;  // hollow and on top, so that neither hides the other
    pen.lineWidth = 1.3;
    pen.globalAlpha = 0.85;
    pen.beginPath();
    for (let j = 0; j < harm.id.length; j += 1) {
      const [x, y] = at(harm.x[j], harm.y[j]);
      pen.moveTo(x, y - 4); pen.lineTo(x + 3.6, y + 3); pen.lineTo(x - 3.6, y + 3); pen.closePath();
    }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const i of marks) { const [x, y] = at(data.x[i], data.y[i]); pen.moveTo(x - 4, y - 4); pen.lineTo(x + 4, y + 4); pen.moveTo(x + 4, y - 4); pen.lineTo(x - 4, y + 4); }
    pen.stroke();
    if (selected >= 0 || harmful >= 0) {
      const [x, y] = harmful >= 0 ? at(harm.x[harmful], harm.y[harmful]) : at(data.x[selected], data.y[selected]);
      const j = harmful >= 0 ? -1 : data.nearest[selected];
      pen.beginPath();
      if (j >= 0) { pen.moveTo(x, y); pen.lineTo(...at(harm.x[j], harm.y[j])); pen.stroke(); pen.beginPath(); }
      pen.arc(x, y, 7, 0, 7);
      pen.stroke();
    }
  }
  function nearestPoint(px, py) {  // [kind, index] within reach of the pointer
    let best = [null, -1, 144];
    const test = (kind, table, i) => {
      const [x, y] = at(table.x[i], table.y[i]);
      const d = (x - px) ** 2 + (y - py) ** 2;
      if (d < best[2]) best = [kind, i, d];
    };
    for (let j = 0; j < harm.id.length; j += 1) test("harm", harm, j);
    for (const i of listed) test("data", data, i);
    return best;
  }
  const short = (words) => (words.length > 160 ? `${words.slice(0, 159)}…` : words);
  let pointed = "";
  let later = 0;
  function point(event) {
    const [px, py] = [event.offsetX, event.offsetY];
    const [kind, i] = nearestPoint(px, py);
    const tip = byId("tip");
    tip.hidden = kind === null;
    if (kind === null) { pointed = ""; clearTimeout(later); return; }
    if (pointed !== `${kind} ${i}`) {
      pointed = `${kind} ${i}`;
      clearTimeout(later);
      if (kind === "harm") tip.replaceChildren(make("span", {}, short(harm.text[i] || harm.id[i])));
      else tip.replaceChildren(short(text(i) || data.id[i]), ...(nearestText(i) ? [make("span", {}, `near: ${short(nearestText(i))}`)] : []));
      const clip = kind === "harm" ? harm.clip[i] : data.clip[i];
      if (byId("hover-play") && byId("hover-play").checked && clip >= 0) later = setTimeout(() => play(clip), 200);
    }
    tip.style.left = `${Math.max(4, Math.min(px + 14, size[0] - tip.offsetWidth - 6))}px`;
    tip.style.top = `${py + 16 + tip.offsetHeight > size[1] ? Math.max(4, py - tip.offsetHeight - 10) : py + 16}px`;
  }
  let grabbed = null;
  canvas.addEventListener("pointerdown", (event) => { grabbed = { x: event.offsetX, y: event.offsetY, from: { ...view }, moved: false }; });
  window.addEventListener("pointerup", () => { grabbed = null; canvas.classList.remove("dragged"); });
  let moved = false;
  canvas.addEventListener("pointermove", (event) => {
    if (grabbed) {
      const [dx, dy] = [event.offsetX - grabbed.x, event.offsetY - grabbed.y];
      if (grabbed.moved || dx * dx + dy * dy > 25) {
        grabbed.moved = true;
        moved = true;
        canvas.classList.add("dragged");
        const [sx, sy] = scale();
        view = { ...view, x: grabbed.from.x - dx / sx, y: grabbed.from.y + dy / sy };
        draw();
      }
      return;
    }
    point(event);
  });
  canvas.addEventListener("pointerleave", () => { byId("tip").hidden = true; clearTimeout(later); pointed = ""; });
  canvas.addEventListener("click", (event) => {
    if (moved) { moved = false; return; }
    const [kind, i] = nearestPoint(event.offsetX, event.offsetY);
    if (kind === "data") { select(i, true); clearTimeout(later); play(data.clip[i]); }
    if (kind === "harm") { harmful = i; fill(); show(); draw(); clearTimeout(later); play(harm.clip[i]); }
  });
  function zoom(factor) {
    view = { ...view, zoom: Math.max(1, Math.min(40, view.zoom * factor)) };
    if (view.zoom === 1) view = { x: 500, y: 500, zoom: 1 };
    draw();
  }
  byId("zoom-in").addEventListener("click", () => zoom(1.6));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.6));

  // Controls ------------------------------------------------------------------------------------------------------
  byId("filter").addEventListener("input", list);
  for (const id of ["only-nearer", "only-marked", "only-clips"]) if (byId(id)) byId(id).addEventListener("change", list);
  byId("export").addEventListener("click", save);
  byId("clear").addEventListener("click", () => { marks.clear(); keep(); list(); show(); });
  byId("mark-listed").addEventListener("click", () => { listed.forEach((i) => marks.add(i)); keep(); fill(); show(); draw(); });
  document.addEventListener("keydown", (event) => {
    const typed = event.target.closest("input[type=search]");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typed) { if (event.key === "Escape") typed.blur(); return; }
    const step = { j: 1, k: -1 }[event.key];
    if (step) {
      const now = listed.indexOf(selected);
      const next = listed[now < 0 ? 0 : Math.max(0, Math.min(listed.length - 1, now + step))];
      if (next !== undefined) select(next, true);
    } else if (event.key === "x" && selected >= 0 && harmful < 0) mark(selected);
    else if (event.key === "/") byId("filter").focus();
    else if (event.key === " " && !event.target.closest("button, audio, input, a")) toggle();
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => { draw(); fill(); }).observe(canvas);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  keep();
  list();
  select(0);
  document.body.dataset.ready = "true";
})();
