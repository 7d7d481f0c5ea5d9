"use strict";
// One reply at a time; every label is posted at once.  Texts are set as text, never as HTML.
const token = new URLSearchParams(location.search).get("token");
const part = (id) => document.getElementById(id);
let current = null;

function show(id) {
  for (const name of ["intro", "task", "end"]) part(name).hidden = name !== id;
}

async function request(path, options) {
  part("problem").hidden = true;
  try {
    const answer = await fetch(`${path}token=${encodeURIComponent(token)}`, options);
    if (!answer.ok) throw new Error(await answer.text());
    return await answer.json();
  } catch (error) {
    part("problem").textContent = `Not saved: ${error.message}. Is the command still running in the terminal?`;
    part("problem").hidden = false;
    return null;
  }
}

function present(item) {
  if (item === null) return;
  part("progress").textContent = `${item.labeled} of ${item.total}`;
  if (item.done) { show("end"); return; }
  current = item;
  show("task");
  part("kind").textContent = item.harmful ? "Harmful request" : "Benign request";
  part("prompt").textContent = item.prompt;
  part("reply").textContent = item.reply;
  part("labels").replaceChildren(...item.choices.map((choice, index) => {
    const button = document.createElement("button");
    const key = document.createElement("kbd");
    key.textContent = String(index + 1);
    button.type = "button";
    button.append(choice, key);
    button.setAttribute("aria-pressed", String(choice === item.label));
    button.addEventListener("click", () => choose(choice));
    return button;
  }));
  part("back").disabled = item.position === 0;
  scrollTo(0, 0);
}

async function choose(label) {
  const body = JSON.stringify({position: current.position, label});
  present(await request("label?", {method: "POST", body, headers: {"Content-Type": "application/json"}}));
}

async function go(position) {
  present(await request(position === null ? "reply?" : `reply?position=${position}&`));
}

part("start").addEventListener("click", () => go(null));
part("back").addEventListener("click", () => go(current.position - 1));
document.addEventListener("keydown", (event) => {
  if (part("task").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = current.choices[Number(event.key) - 1];
  if (choice) choose(choice);
  else if (event.key === "Backspace" && current.position > 0) go(current.position - 1);
});
