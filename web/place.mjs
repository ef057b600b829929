/** The picture of Place Layer with handles: drag the cut-out to move it, a corner to scale it, the knob to turn it. */

import { api } from "../../scripts/api.js";
import { onExecuted } from "./executed.mjs";
import { addPanel, followChanges } from "./panel.mjs";
import { listen } from "./surface.mjs";
import { Value } from "./value.mjs";

const HEIGHT = 260;
/** What is known of the pictures before the node has run: nothing, so a square on a square. */
const UNKNOWN = { width: 0.4, height: 0.4 };

const HELP =
  "Drag: move. A corner: scale. The knob: turn. Double click or Enter: back to the middle, at its own size. Keys: " +
  "arrows move, plus and minus scale, comma and period turn; with Shift in fine steps. The pictures come when the " +
  "node has run.";

/** Inputs, with what to come back to and how many decimals their widgets keep. */
const INPUTS = /** @type {const} */ ({
  x: { standard: 0.5, digits: 3 },
  y: { standard: 0.5, digits: 3 },
  scale: { standard: 1, digits: 2 },
  rotation: { standard: 0, digits: 1 },
});

/** What each key adds, in steps; scale is multiplied. */
const MOVES = new Map([
  ["ArrowLeft", ["x", -1]],
  ["ArrowRight", ["x", 1]],
  ["ArrowUp", ["y", -1]],
  ["ArrowDown", ["y", 1]],
  ["-", ["scale", -1]],
  ["_", ["scale", -1]],
  ["+", ["scale", 1]],
  ["=", ["scale", 1]],
  [",", ["rotation", -1]],
  ["<", ["rotation", -1]],
  [".", ["rotation", 1]],
  [">", ["rotation", 1]],
]);
const STEPS = /** @type {Record<string, [number, number]>} */ ({
  // Coarse and fine: fractions of the background, a factor, degrees.
  x: [0.01, 0.001],
  y: [0.01, 0.001],
  scale: [1.1, 1.02],
  rotation: [5, 0.5],
});

/** @type {<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, parent?: Element) => HTMLElementTagNameMap[K]} */
function element(tag, className, parent) {
  const made = Object.assign(document.createElement(tag), { className });
  parent?.append(made);
  return made;
}

/**
 * Put the picture under the node's widgets. It holds no value of its own: it shows the widgets' and sets them.
 *
 * @param {any} node
 */
export function addHandles(node) {
  const widget = (/** @type {string} */ name) => node.widgets?.find((/** @type {any} */ one) => one.name === name);
  if (![...Object.keys(INPUTS), "flip"].every(widget)) return; // a node whose pack is of another version
  const entries = Object.entries(INPUTS).map(([name, given]) => [name, new Value(node, widget(name), name, given)]);
  /** @type {Record<keyof typeof INPUTS, Value>} */
  const values = Object.fromEntries(entries);

  const place = Object.assign(element("div", "cnc-place"), { title: HELP, tabIndex: 0 });
  place.setAttribute("role", "application");
  place.setAttribute("aria-label", "Place of the object");
  const stage = element("div", "cnc-place-stage", place);
  const background = Object.assign(element("img", "cnc-place-background", stage), { alt: "", draggable: false });
  const box = element("div", "cnc-place-box", stage);
  const cut = Object.assign(element("img", "cnc-place-cut", box), { alt: "", draggable: false });
  for (const corner of ["nw", "ne", "se", "sw"]) element("i", `cnc-place-corner cnc-${corner}`, box);
  element("i", "cnc-place-knob", box);
  const caption = element("div", "cnc-place-caption", place);
  place.setAttribute("aria-describedby", (caption.id = `cnc-place-${crypto.getRandomValues(new Uint32Array(1))[0]}`));
  let size = UNKNOWN;

  const show = () => {
    const { x, y, scale, rotation } = values;
    const flip = widget("flip").value;
    Object.assign(box.style, {
      left: `${100 * x.value}%`,
      top: `${100 * y.value}%`,
      width: `${100 * size.width * scale.value}%`,
      height: `${100 * size.height * scale.value}%`,
      transform: `translate(-50%, -50%) rotate(${rotation.value}deg)`,
    });
    cut.style.transform = flip === "none" ? "" : `scale${flip === "horizontal" ? "X" : "Y"}(-1)`;
    const linked = Object.values(values).filter((one) => one.linked);
    caption.textContent =
      `x ${x.value.toFixed(2)}, y ${y.value.toFixed(2)}, scale ${scale.value.toFixed(2)}, ` +
      `${rotation.value.toFixed(0)}\u00b0${linked.length ? ` (linked: ${linked.map((one) => one.title).join(", ")})` : ""}`;
  };

  const reset = () => Object.values(values).forEach((one) => one.set(one.default));

  const begin = (/** @type {PointerEvent} */ event) => {
    const view = stage.getBoundingClientRect();
    const [x, y, scale, rotation] = Object.values(values).map((one) => one.value);
    const centre = [view.left + x * view.width, view.top + y * view.height];
    const from = [event.clientX - centre[0], event.clientY - centre[1]];
    const part = /** @type {Element} */ (event.target).className;
    if (part.includes("corner")) {
      const reach = Math.max(1, Math.hypot(from[0], from[1]));
      return (/** @type {PointerEvent} */ now) =>
        values.scale.set((scale * Math.hypot(now.clientX - centre[0], now.clientY - centre[1])) / reach);
    }
    if (part.includes("knob")) {
      const angle = (/** @type {number} */ across, /** @type {number} */ down) => (Math.atan2(down, across) * 180) / Math.PI;
      const began = angle(from[0], from[1]);
      return (/** @type {PointerEvent} */ now) => {
        const turned = rotation + angle(now.clientX - centre[0], now.clientY - centre[1]) - began;
        values.rotation.set(((((turned + 180) % 360) + 360) % 360) - 180);
      };
    }
    // By the object, or by any place beside it, which need not be hit.
    return (/** @type {PointerEvent} */ now) => {
      values.x.set(x + (now.clientX - event.clientX) / view.width);
      values.y.set(y + (now.clientY - event.clientY) / view.height);
    };
  };

  const step = (/** @type {[keyof typeof INPUTS, number]} */ [name, sign], /** @type {boolean} */ fine) => {
    const by = STEPS[name][Number(fine)];
    values[name].set(name === "scale" ? values.scale.value * by ** sign : values[name].value + sign * by);
  };
  listen(place, { begin, moves: MOVES, step, reset, show });
  for (const one of Object.values(values)) one.onChange(show);
  followChanges(node, show);

  onExecuted(node, (_, { cnc_place: parts }) => {
    if (!parts?.[0]) return;
    const { background: behind, cut: object, ...known } = parts[0];
    size = known;
    const src = (/** @type {Record<string, string>} */ file) => api.apiURL(`/view?${new URLSearchParams(file)}`);
    [background.src, cut.src] = [src(behind), src(object)];
    background.onload = () => place.style.setProperty("--ratio", String(background.naturalWidth / background.naturalHeight));
    place.classList.add("cnc-known");
    show();
  });
  addPanel(node, "place_handles", place, HEIGHT, show);
  show();
}
