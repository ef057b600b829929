/**
 * A strip of the small pictures that a node, or the parts that it expands into, showed when they last ran. The host
 * says nothing of a part that is still at hand: on a page opened anew the strip fills as the parts run again.
 */

import { api } from "../../scripts/api.js";
import { promptIds } from "./prompt_ids.mjs";

const HEIGHT = 64;

/** @type {Set<{ node: any, show: (part: string, output: any) => void }>} */
const strips = new Set();

api.addEventListener("executed", (/** @type {CustomEvent} */ { detail }) => {
  const id = String(detail.display_node ?? detail.node);
  for (const { node, show } of strips) {
    if (node.graph && promptIds(node).includes(id)) show(String(detail.node), detail.output ?? {});
  }
});

/** Put a strip under the node's widgets. It is empty until the node has run, and keeps nothing. */
export function addStrip(/** @type {any} */ node) {
  const strip = Object.assign(document.createElement("div"), { className: "cnc-strip" });
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "Layers, mask and depth last used");
  /** @type {Map<string, HTMLImageElement>} */
  const images = new Map();

  const show = (/** @type {string} */ part, /** @type {any} */ { images: files, cnc_layer, cnc_title: title }) => {
    const file = (cnc_layer ?? files)?.[0];
    if (!file || !title) return; // not a preview of this pack's
    const image = images.get(part) ?? new Image();
    image.src = api.apiURL(`/view?${new URLSearchParams(file)}`);
    image.alt = image.title = title[0];
    images.set(part, image);
    // In the order of the expansion: "8.0.0.10" after "8.0.0.9".
    const sorted = [...images].sort(([one], [other]) => one.localeCompare(other, undefined, { numeric: true }));
    strip.replaceChildren(...sorted.map(([, one]) => one));
  };

  const entry = { node, show };
  strips.add(entry);
  const { onRemoved } = node;
  node.onRemoved = function (/** @type {any[]} */ ...given) {
    strips.delete(entry);
    return onRemoved?.apply(this, given);
  };
  const widget = node.addDOMWidget("layer_strip", "CNC_STRIP", strip, {
    serialize: false, // in the API format
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // in the workflow
}
