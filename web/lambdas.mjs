/** The two lambdas of a node, seen through the ordinary widgets that hold them. */

import { Value } from "./value.mjs";

const NODES = new Set(["CnC_Compose", "CnC_SoftGuidance"]);
const RANGE = { standard: 1, digits: 2 };

/** @typedef {Value} Lambda */

/** @type {WeakMap<any, [Lambda, Lambda]>} */
const known = new WeakMap();

/**
 * Foreground's and background's lambda, or null for a node that has none. One pair a node.
 *
 * @param {any} node
 * @returns {[Lambda, Lambda] | null}
 */
export function lambdas(node) {
  if (!NODES.has(node.comfyClass)) return null;
  let pair = known.get(node);
  if (!pair) {
    const widget = (/** @type {string} */ name) => node.widgets?.find((/** @type {any} */ one) => one.name === name);
    const [fg, bg] = [widget("lambda_fg"), widget("lambda_bg")];
    if (!fg || !bg) return null; // a node whose pack is of another version
    pair = [new Value(node, fg, "foreground", RANGE), new Value(node, bg, "background", RANGE)];
    known.set(node, pair);
  }
  return pair;
}
