/** A number that an ordinary widget holds, for what shows and sets it in another way. */

export class Value {
  /**
   * @param {any} node
   * @param {any} widget
   * @param {string} title - what the artist knows it as
   * @param {{ standard: number, digits: number }} given - the value to come back to, and how many decimals it keeps
   */
  constructor(node, widget, title, { standard, digits }) {
    this.node = node;
    this.widget = widget;
    this.title = title;
    this.min = widget.options?.min ?? -Infinity;
    this.max = widget.options?.max ?? Infinity;
    this.default = standard;
    this.digits = digits;
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

  /** Set it as if by hand: kept within its range, rounded, and everyone is told. */
  set(/** @type {number} */ value) {
    const kept = Number(Math.min(this.max, Math.max(this.min, value)).toFixed(this.digits));
    if (this.linked || kept === this.value) return;
    this.widget.value = kept;
    this.widget.callback(kept, undefined, this.node);
    this.node.graph?.setDirtyCanvas(true, true);
  }

  onChange(/** @type {() => void} */ listener) {
    this.listeners.push(listener);
  }
}
