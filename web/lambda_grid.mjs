/** The paper's Figure 15: the same picture over a grid of both lambdas, as a table in a dialog. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { lambdas } from "./lambdas.mjs";
import { promptIds } from "./prompt_ids.mjs";

const VALUES = "0, 0.5, 1, 1.5, 2";
/** So that a slip of the keyboard does not fill the queue for a day. */
const MOST = 11;

/** @typedef {import("./lambdas.mjs").Lambda} Lambda */
/** @typedef {Record<string, { class_type: string, inputs: Record<string, any> }>} Prompt */

/**
 * The values of a comma-separated list, in their order, each once.
 *
 * @param {string} text
 * @param {Lambda} lambda - which gives the range
 * @returns {number[]}
 * @throws {Error} in words for the user
 */
export function parse(text, lambda) {
  const values = [...new Set(text.split(/[\s,;]+/).filter(Boolean).map(Number))];
  const range = `${lambda.title}: numbers from ${lambda.min} to ${lambda.max}, separated by commas`;
  if (!values.length || values.length > MOST) throw new Error(`${range}; 1 to ${MOST} of them, not ${values.length}.`);
  const wrong = values.find((value) => !(value >= lambda.min && value <= lambda.max));
  if (wrong !== undefined) throw new Error(`${range}; "${text}" has something else.`);
  return values;
}

/**
 * All nodes that get something, however indirectly, from these nodes' first output, the model.
 *
 * @param {Prompt} prompt
 * @param {string[]} ids
 * @returns {Set<string>}
 */
function downstream(prompt, ids) {
  /** @type {Set<string>} */
  const reached = new Set();
  const isReached = (/** @type {any} */ link) =>
    Array.isArray(link) && (reached.has(String(link[0])) || (ids.includes(String(link[0])) && link[1] === 0));
  for (let before = -1; before !== reached.size; ) {
    before = reached.size;
    for (const [id, { inputs }] of Object.entries(prompt)) {
      if (Object.values(inputs).some(isReached)) reached.add(id);
    }
  }
  return reached;
}

/**
 * The workflow once for each pair of values, rows first. The sliders move and come back.
 *
 * @param {[Lambda, Lambda]} pair
 * @param {number[][]} values - foreground's and background's
 */
async function prompts([fg, bg], [columns, rows]) {
  const before = [fg.widget.value, bg.widget.value];
  const made = [];
  try {
    for (const row of rows) {
      for (const column of columns) {
        [fg.widget.value, bg.widget.value] = [column, row];
        made.push(await app.graphToPrompt());
      }
    }
  } finally {
    [fg.widget.value, bg.widget.value] = before;
    fg.node.graph?.setDirtyCanvas(true, true);
  }
  return made;
}

/** @type {<K extends keyof HTMLElementTagNameMap>(tag: K, given?: object, ...inside: (Node | string)[]) => HTMLElementTagNameMap[K]} */
function element(tag, given = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...inside);
  return made;
}

const ENDS = ["execution_success", "execution_error", "execution_interrupted"];

/**
 * Queue the prompts one after the other; hand over each one's pictures as they come.
 *
 * @param {any[]} made
 * @param {string[]} ids - the node's, in the API format
 * @param {(index: number, file: Record<string, string> | undefined) => void} show
 * @param {AbortSignal} signal - interrupts the one that runs, and queues no other
 * @throws {Error} with the server's words, for a prompt that fails
 */
async function sweep(made, ids, show, signal) {
  const shown = downstream(made[0].output, ids);
  // The server may say that a prompt has ended before it answers that it was queued: keep what it says.
  /** @type {Map<string, any>} */
  const ended = new Map();
  // Its history would be written a moment after the end is told; the pictures are told before it.
  /** @type {Map<string, Record<string, string>>} */
  const files = new Map();
  const keep = (/** @type {CustomEvent} */ { detail }) => {
    const file = detail.output?.images?.[0];
    if (file && shown.has(String(detail.display_node ?? detail.node))) files.set(detail.prompt_id, file);
  };
  let wake = () => {};
  const listener = (/** @type {any} */ { type, detail }) => {
    ended.set(detail.prompt_id, { type, ...detail });
    wake();
  };
  api.addEventListener("executed", keep);
  for (const kind of ENDS) api.addEventListener(kind, listener);
  try {
    for (const [index, prompt] of made.entries()) {
      if (signal.aborted) return;
      const { prompt_id: id } = await api.queuePrompt(0, prompt);
      const stop = () => {
        api.deleteItem("queue", id);
        api.interrupt(id);
        wake();
      };
      signal.addEventListener("abort", stop);
      if (signal.aborted) stop();
      while (!ended.has(id) && !signal.aborted) await new Promise((done) => (wake = () => done(undefined)));
      signal.removeEventListener("abort", stop);
      if (signal.aborted) return;
      const { type, node_type: node, exception_message: words } = ended.get(id);
      if (type === "execution_error") throw new Error(`${node}: ${words}`);
      if (type === "execution_interrupted") return;
      show(index, files.get(id));
    }
  } finally {
    api.removeEventListener("executed", keep);
    for (const kind of ENDS) api.removeEventListener(kind, listener);
  }
}

/**
 * Ask for the values, then run the grid and show it. Closing the dialog cancels what is not done.
 *
 * @param {any} node
 */
export function openLambdaGrid(node) {
  const pair = /** @type {[Lambda, Lambda]} */ (lambdas(node));
  const fields = pair.map((one) => element("input", { value: VALUES, size: 24, spellcheck: false }));
  const run = element("button", { textContent: "Run" });
  const cancel = element("button", { textContent: "Cancel", type: "button", disabled: true });
  const close = element("button", { textContent: "Close", type: "button" });
  const said = element("p", { role: "status" });
  const table = element("table");
  const form = element(
    "form",
    {},
    ...pair.map((one, index) =>
      element("label", {}, `\u03bb ${one.title} (${index ? "rows" : "columns"}) `, fields[index]),
    ),
    run,
    cancel,
    close,
  );
  const title = element("h2", { textContent: "\u03bb grid", id: "cnc-grid-title" });
  const dialog = element("dialog", { className: "cnc-grid" }, title, form, said, table);
  dialog.setAttribute("aria-labelledby", title.id);
  let stop = new AbortController();

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    stop = new AbortController();
    const { signal } = stop;
    table.replaceChildren();
    try {
      const linked = pair.find((one) => one.linked);
      if (linked) throw new Error(`\u03bb ${linked.title} comes over a link: disconnect it, so that the grid can set it.`);
      const values = pair.map((one, index) => parse(fields[index].value, one));
      const cells = fill(table, values);
      [run.disabled, cancel.disabled] = [true, false];
      let done = 0;
      const progress = () => (said.textContent = `${done} of ${cells.length} pictures`);
      progress();
      const made = await prompts(pair, values);
      const show = (/** @type {number} */ index, /** @type {Record<string, string> | undefined} */ file) => {
        if (!file) throw new Error("No picture: connect the node's model to a sampler, and that to Save Image.");
        const src = api.apiURL(`/view?${new URLSearchParams(file)}`);
        const image = element("img", { src, alt: cells[index].dataset.values });
        cells[index].replaceChildren(element("a", { href: src, target: "_blank" }, image));
        done += 1;
        progress();
      };
      await sweep(made, promptIds(node), show, signal);
      if (done < cells.length) said.textContent = `Cancelled after ${done} of ${cells.length} pictures.`;
    } catch (error) {
      said.textContent = error instanceof Error ? error.message : String(error);
    } finally {
      [run.disabled, cancel.disabled] = [false, true];
      run.focus(); // it was on a button that is disabled now
    }
  });
  cancel.addEventListener("click", () => stop.abort());
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    stop.abort();
    removeEventListener("keydown", escape, true);
    dialog.remove();
  });
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // no shortcuts of the canvas in here
  // The host takes the key's default away, and a button that was disabled under the focus hears no key at all.
  const escape = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && dialog.close();
  addEventListener("keydown", escape, true);
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * Draw the empty table: foreground's values over the columns, background's beside the rows.
 *
 * @param {HTMLTableElement} table
 * @param {number[][]} values
 * @returns {HTMLTableCellElement[]} the cells, rows first
 */
function fill(table, [columns, rows]) {
  const head = (/** @type {string} */ scope, /** @type {string} */ text) => element("th", { scope, textContent: text });
  const cells = rows.map((bg) => columns.map((fg) => element("td", {}, "\u2026")));
  rows.forEach((bg, row) => {
    columns.forEach((fg, column) => (cells[row][column].dataset.values = `\u03bb foreground ${fg}, background ${bg}`));
  });
  table.replaceChildren(
    element("caption", { textContent: "Columns: \u03bb foreground. Rows: \u03bb background." }),
    element("tr", {}, element("td"), ...columns.map((value) => head("col", String(value)))),
    ...rows.map((value, row) => element("tr", {}, head("row", String(value)), ...cells[row])),
  );
  return cells.flat();
}
