/** Exchange the two layers of a node: their pictures' links, and the values that belong to a layer. */

import { app } from "../../scripts/app.js";

/** Inputs that change places, by node. */
const PAIRS = {
  CnC_Compose: [["foreground", "background"], ["fg_style", "bg_style"], ["lambda_fg", "lambda_bg"]],
  CnC_ApplyLocalFuser: [["fg_depth", "bg_depth"], ["fg_depth_scale", "bg_depth_scale"]],
};

/**
 * @param {any} node
 * @returns {string | null} what the user should know: why nothing was done, or what was left as it was
 */
export function swapLayers(node) {
  const pairs = PAIRS[/** @type {keyof typeof PAIRS} */ (node.comfyClass)];
  const slot = (/** @type {string} */ name) => node.inputs.findIndex((/** @type {any} */ one) => one.name === name);
  if (node.comfyClass === "CnC_Compose" && !(source(node, slot("foreground")) && source(node, slot("background")))) {
    return "Connect a foreground and a background picture first: with one of them there is nothing to exchange.";
  }
  app.canvas.emitBeforeChange(); // one step for undo
  for (const [one, other] of pairs) {
    exchangeLinks(node, slot(one), slot(other));
    exchangeValues(node, one, other);
  }
  app.canvas.emitAfterChange();
  node.graph.setDirtyCanvas(true, true);
  const mask = slot("mask");
  return node.comfyClass === "CnC_Compose" && source(node, mask)
    ? "The mask was left connected: it still shows the object of the picture that was in front before."
    : null;
}

/**
 * A function that connects what is connected to this input to another one, or null where nothing is.
 *
 * @param {any} node
 * @param {number} slot
 * @returns {((to: number) => void) | null}
 */
function source(node, slot) {
  const link = slot < 0 ? null : node.getInputLink(slot);
  if (!link) return null;
  const { graph } = node;
  const from = graph.getNodeById(link.origin_id);
  if (from) return (to) => from.connect(link.origin_slot, node, to);
  // Inside a subgraph a link may come from the subgraph's own input.
  const outer = graph.inputNode.slots[link.origin_slot];
  return (to) => outer.connect(node.inputs[to], node);
}

function exchangeLinks(/** @type {any} */ node, /** @type {number} */ one, /** @type {number} */ other) {
  const [first, second] = [source(node, one), source(node, other)];
  for (const slot of [one, other]) if (slot >= 0 && node.isInputConnected(slot)) node.disconnectInput(slot, true);
  first?.(other);
  second?.(one);
}

function exchangeValues(/** @type {any} */ node, /** @type {string} */ one, /** @type {string} */ other) {
  const [first, second] = [one, other].map((name) => node.widgets?.find((/** @type {any} */ w) => w.name === name));
  if (!first || !second) return;
  const values = [second.value, first.value];
  [first, second].forEach((widget, index) => {
    widget.value = values[index];
    widget.callback?.(values[index], undefined, node);
  });
}
