/** What the server says that a node, or a part that it expands into, has shown. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { openTab, tabOf } from "./jobs.mjs";
import { promptIds } from "./prompt_ids.mjs";

/** @typedef {(part: string, output: any) => void} Listener */
/** @typedef {{ shownOn: string, output: any }} Said */

/** @type {Map<any, Listener>} */
const listeners = new Map();
/** What each tab's jobs have shown last, by part: nodes of another tab may have the same ids. */
/** @type {WeakMap<any, Map<string, Said>>} */
const said = new WeakMap();
/** How far back a page that is opened anew looks for what its nodes have shown. */
const RUNS = 16;

function tell(/** @type {string} */ part, /** @type {Said} */ { shownOn, output }) {
  for (const [node, listener] of listeners) {
    if (node.graph && promptIds(node).includes(shownOn)) listener(part, output ?? {});
  }
}

api.addEventListener("executed", async (/** @type {CustomEvent} */ { detail }) => {
  const tab = (await tabOf(detail.prompt_id)) ?? (await guess(detail.prompt_id));
  if (!tab) return;
  if (!said.has(tab)) said.set(tab, new Map());
  const now = { shownOn: String(detail.display_node ?? detail.node), output: detail.output };
  said.get(tab)?.set(String(detail.node), now);
  if (tab === openTab()) tell(String(detail.node), now);
});

const isOpen = (/** @type {any} */ prompt) => prompt?.[3]?.extra_pnginfo?.workflow?.id === app.graph.id;

/** The open tab, if a job that was queued before the page was opened is of a workflow of the same id. */
async function guess(/** @type {string} */ id) {
  const tab = openTab();
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  const queued = running.find((/** @type {any[]} */ one) => one[1] === id);
  const prompt = queued ?? (await (await api.fetchApi(`/history/${id}`)).json())[id]?.prompt;
  return isOpen(prompt) && tab === openTab() ? tab : undefined;
}

/**
 * Tell the nodes of the open tab, just made, what they have shown. What was shown before the page was opened is told as
 * far as the server still knows it: of a part that is at hand from a run before it says nothing when the workflow runs
 * again.
 *
 * @param {any} root - the graph
 */
export async function recall(root) {
  if (![...listeners.keys()].some((node) => node.graph?.rootGraph === root)) return;
  const tab = openTab();
  const told = new Set();
  for (const [part, one] of said.get(tab) ?? []) {
    tell(part, one);
    told.add(part);
  }
  const reply = await (await api.fetchApi(`/history?max_items=${RUNS}`)).json();
  for (const [id, { prompt, outputs, meta }] of Object.entries(reply).reverse()) {
    if ((await tabOf(id)) || !isOpen(prompt) || tab !== openTab()) continue;
    for (const [part, output] of Object.entries(outputs ?? {})) {
      if (!told.has(part)) tell(part, { shownOn: String(meta?.[part]?.display_node ?? part), output });
      told.add(part);
    }
  }
}

/**
 * Call `listener` with each part's id and output until the node is removed.
 *
 * @param {any} node
 * @param {Listener} listener
 */
export function onExecuted(node, listener) {
  listeners.set(node, listener);
  const { onRemoved } = node;
  node.onRemoved = function (/** @type {any[]} */ ...given) {
    listeners.delete(node);
    return onRemoved?.apply(this, given);
  };
}
