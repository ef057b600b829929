/** Something of ours under a node's widgets, which holds no value: what it shows is in the widgets above it. */

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
  const widget = node.addDOMWidget(name, `CNC_${name.toUpperCase()}`, element, {
    serialize: false, // in the API format
    hideInPanel: true, // at the page's side, which would take the element out of the node
    getMinHeight: () => height,
    getMaxHeight: () => height,
    getValue: () => "",
    setValue: () => {},
    onDraw,
  });
  widget.serialize = false; // in the workflow
}

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
