/** A strip of the small pictures that a node, or the parts that it expands into, showed when they last ran. */

import { api } from "../../scripts/api.js";
import { onExecuted } from "./executed.mjs";
import { addPanel } from "./panel.mjs";

const HEIGHT = 64;

/** Put a strip under the node's widgets. It is empty until the node has run, and keeps nothing. */
export function addStrip(/** @type {any} */ node) {
  const strip = Object.assign(document.createElement("div"), { className: "cnc-strip" });
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "Layers, mask and depth last used");
  /** @type {Map<string, HTMLImageElement>} */
  const images = new Map();

  onExecuted(node, (part, { images: files, cnc_layer, cnc_title: title }) => {
    const file = (cnc_layer ?? files)?.[0];
    if (!file || !title) return; // not a preview of this pack's
    const image = images.get(part) ?? new Image();
    image.src = api.apiURL(`/view?${new URLSearchParams(file)}`);
    image.alt = image.title = title[0];
    images.set(part, image);
    // In the order of the expansion: "8.0.0.10" after "8.0.0.9".
    const sorted = [...images].sort(([one], [other]) => one.localeCompare(other, undefined, { numeric: true }));
    strip.replaceChildren(...sorted.map(([, one]) => one));
  });
  addPanel(node, "layer_strip", strip, HEIGHT);
}
