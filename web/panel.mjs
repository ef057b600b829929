/** Something of ours under a node's widgets, which holds no value: what it shows is in the widgets above it. */

import { app } from "../../scripts/app.js";

const PANEL = "cnc-panel";
/** Modes of a node that does not run: muted, bypassed. */
const OFF = [2, 4];

function style() {
  const href = new URL("./style.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

/**
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {number} height - in pixels of the canvas at its own size
 * @param {() => void} [onDraw] - called when the canvas is drawn
 */
export function addPanel(node, name, element, height, onDraw) {
  style();
  followNodes();
  element.classList.add(PANEL);
  const widget = node.addDOMWidget(name, `CNC_${name.toUpperCase()}`, element, {
    serialize: false, // in the API format
    hideInPanel: true, // at the page's side, which would take the element out of the node
    getMinHeight: () => height,
    getMaxHeight: () => height,
    getValue: () => "",
    setValue: () => {},
    onDraw() {
      element.classList.toggle("cnc-off", OFF.includes(node.mode));
      onDraw?.();
    },
  });
  widget.serialize = false; // in the workflow
}

let following = false;

/** Look after the panels whenever the canvas is drawn, which it is after every change of a graph and of nodes. */
function followNodes() {
  if (following) return;
  following = true;
  const { canvas } = app;
  const before = canvas.onDrawForeground;
  canvas.onDrawForeground = function (/** @type {any[]} */ ...given) {
    before?.apply(this, given);
    const shown = [...document.getElementsByClassName(PANEL)].map((one) => one.closest("[data-node-id]"));
    for (const one of new Set(shown)) if (one) remount(one);
  };
}

/**
 * Put the panels of the node that is there in place of those of a node that was. Nodes 2.0 mounts an element once, and
 * keeps it for the next node of the same id: after an undo, in another tab, in a subgraph.
 *
 * @param {Element} shown - a node of Nodes 2.0 on the page
 */
function remount(shown) {
  const node = app.canvas.graph?.getNodeById(/** @type {HTMLElement} */ (shown).dataset.nodeId);
  const own = (node?.widgets ?? []).map((/** @type {any} */ one) => one.element).filter(isPanel);
  const stale = [...shown.querySelectorAll(`.${PANEL}`)].filter((one) => !own.includes(one));
  const missing = own.filter((/** @type {Element} */ one) => !shown.contains(one));
  if (stale.length !== missing.length) return; // the host is about to mount some itself
  stale.forEach((one, index) => {
    const focused = one === document.activeElement;
    one.replaceWith(missing[index]);
    if (focused) missing[index].focus({ preventScroll: true });
  });
}

const isPanel = (/** @type {any} */ element) => element instanceof HTMLElement && element.classList.contains(PANEL);

/**
 * Call `show` on what changes a widget's value without a hand: a workflow that is loaded, an undo, a link.
 *
 * @param {any} node
 * @param {() => void} show
 */
export function followChanges(node, show) {
  for (const happening of ["onConfigure", "onConnectionsChange"]) {
    const before = node[happening];
    node[happening] = function (/** @type {any[]} */ ...given) {
      const answer = before?.apply(this, given);
      show();
      return answer;
    };
  }
}
