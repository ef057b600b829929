/** What the server says that a node, or a part that it expands into, has shown. */

import { api } from "../../scripts/api.js";
import { promptIds } from "./prompt_ids.mjs";

/** @typedef {(part: string, output: any) => void} Listener */

/** @type {Map<any, Listener>} */
const listeners = new Map();
/** How far back a page that is opened anew looks for what its nodes have shown. */
const RUNS = 16;

function tell(/** @type {string} */ shownOn, /** @type {string} */ part, /** @type {any} */ output) {
  for (const [node, listener] of listeners) {
    if (node.graph && promptIds(node).includes(shownOn)) listener(part, output ?? {});
  }
}

api.addEventListener("executed", (/** @type {CustomEvent} */ { detail }) => {
  tell(String(detail.display_node ?? detail.node), String(detail.node), detail.output);
});

/**
 * Tell what was shown before the page was opened, as far as the server still knows it: of a part that is at hand from
 * a run before it says nothing when the workflow runs again. Only runs of this very workflow count.
 *
 * @param {any} root - the graph
 */
export async function recall(root) {
  if (![...listeners.keys()].some((node) => node.graph?.rootGraph === root)) return;
  const reply = await (await api.fetchApi(`/history?max_items=${RUNS}`)).json();
  const told = new Set();
  for (const { prompt, outputs, meta } of Object.values(reply).reverse()) {
    if (prompt?.[3]?.extra_pnginfo?.workflow?.id !== root.id) continue;
    for (const [part, output] of Object.entries(outputs ?? {})) {
      if (!told.has(part)) tell(String(meta?.[part]?.display_node ?? part), part, output);
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
