/** The two lambdas of a node, seen through the ordinary widgets that hold them. */

const NODES = new Set(["CnC_Compose", "CnC_SoftGuidance"]);
const DEFAULT = 1;

export class Lambda {
  /**
   * @param {any} node
   * @param {any} widget
   * @param {string} title - what the artist knows the layer as
   */
  constructor(node, widget, title) {
    this.node = node;
    this.widget = widget;
    this.title = title;
    this.min = widget.options?.min ?? 0;
    this.max = widget.options?.max ?? 2;
    this.default = DEFAULT;
    /** @type {(() => void)[]} */
    this.listeners = [];
    // The host calls a widget's callback for each change by hand; what was there before us stays.
    const before = widget.callback;
    const { listeners } = this;
    widget.callback = function (/** @type {any[]} */ ...given) {
      const answer = before?.apply(this, given);
      for (const listener of listeners) listener();
      return answer;
    };
  }

  get value() {
    return Number(this.widget.value);
  }

  /** Whether the value comes over a link (or from a subgraph's own slider), so that ours does not count. */
  get linked() {
    const slot = this.node.inputs?.findIndex((/** @type {any} */ input) => input.name === this.widget.name) ?? -1;
    return slot >= 0 && this.node.isInputConnected(slot);
  }

  /** Set it as if by hand: kept within its range, to hundredths, and everyone is told. */
  set(/** @type {number} */ value) {
    const kept = Math.round(Math.min(this.max, Math.max(this.min, value)) * 100) / 100;
    if (this.linked || kept === this.value) return;
    this.widget.value = kept;
    this.widget.callback(kept, undefined, this.node);
    this.node.graph?.setDirtyCanvas(true, true);
  }

  onChange(/** @type {() => void} */ listener) {
    this.listeners.push(listener);
  }
}

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
    pair = [new Lambda(node, fg, "foreground"), new Lambda(node, bg, "background")];
    known.set(node, pair);
  }
  return pair;
}
