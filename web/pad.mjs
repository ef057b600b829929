/** A pad that moves both lambdas at once: foreground to the right, background upwards. */

import { addPanel, followChanges } from "./panel.mjs";
import { listen } from "./surface.mjs";

const STEP = 0.05;
const FINE = 0.01;
const HEIGHT = 132;

/** How far each key moves the two, in steps; `end` takes a value to the end of its range. */
const MOVES = new Map([
  ["ArrowRight", [1, 0]],
  ["ArrowLeft", [-1, 0]],
  ["ArrowUp", [0, 1]],
  ["ArrowDown", [0, -1]],
  ["End", [Infinity, 0]],
  ["Home", [-Infinity, 0]],
  ["PageUp", [0, Infinity]],
  ["PageDown", [0, -Infinity]],
]);

const HELP =
  "Drag: foreground to the right, background upwards. Shift: fine steps. Double click or Enter: back to 1. " +
  "Keys: arrows; Home and End for the foreground, Page Up and Page Down for the background.";

/** @typedef {import("./lambdas.mjs").Lambda} Lambda */

/**
 * Put a pad under the node's widgets. It holds no value of its own: it shows the widgets' and sets them.
 *
 * @param {any} node
 * @param {[Lambda, Lambda]} pair
 */
export function addPad(node, pair) {
  const [x, y] = pair;
  const pad = Object.assign(document.createElement("div"), { className: "cnc-pad", title: HELP, tabIndex: 0 });
  pad.setAttribute("role", "slider");
  pad.setAttribute("aria-roledescription", "two-dimensional slider");
  pad.setAttribute("aria-label", `\u03bb ${x.title} and \u03bb ${y.title}`);
  pad.setAttribute("aria-valuemin", String(x.min));
  pad.setAttribute("aria-valuemax", String(x.max));
  const plot = Object.assign(document.createElement("div"), { className: "cnc-pad-plot" });
  const [home, dot] = ["cnc-pad-home", "cnc-pad-dot"].map((className) =>
    plot.appendChild(Object.assign(document.createElement("i"), { className })),
  );
  const caption = Object.assign(document.createElement("div"), { className: "cnc-pad-caption" });
  pad.append(plot, caption);

  const share = (/** @type {Lambda} */ one, /** @type {number} */ value) => (value - one.min) / (one.max - one.min);
  const place = (/** @type {HTMLElement} */ mark, /** @type {number} */ fg, /** @type {number} */ bg) => {
    mark.style.left = `${100 * share(x, fg)}%`;
    mark.style.bottom = `${100 * share(y, bg)}%`;
  };
  place(home, x.default, y.default);

  const show = () => {
    const words = pair.map((one) => `${one.title} ${one.value.toFixed(2)}${one.linked ? " (linked)" : ""}`);
    if (caption.textContent === words.join(", ")) return;
    place(dot, x.value, y.value);
    caption.textContent = words.join(", ");
    pad.setAttribute("aria-valuenow", x.value.toFixed(2));
    pad.setAttribute("aria-valuetext", caption.textContent);
    pad.setAttribute("aria-disabled", String(x.linked && y.linked));
  };

  const reset = () => pair.forEach((one) => one.set(one.default));

  const follow = (/** @type {PointerEvent} */ event) => {
    const box = plot.getBoundingClientRect();
    const step = event.shiftKey ? FINE : STEP;
    const at = [(event.clientX - box.left) / box.width, (box.bottom - event.clientY) / box.height];
    pair.forEach((one, axis) => one.set(Math.round((one.min + at[axis] * (one.max - one.min)) / step) * step));
  };

  listen(pad, {
    begin(event) {
      follow(event);
      return follow;
    },
    moves: MOVES,
    step(move, fine) {
      const by = fine ? FINE : STEP;
      pair.forEach((one, axis) => move[axis] && one.set(one.value + move[axis] * by));
    },
    reset,
    show,
  });
  for (const one of pair) one.onChange(show);

  followChanges(node, show);
  addPanel(node, "lambda_pad", pad, HEIGHT, show);
  show();
}
