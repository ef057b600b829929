/** Queue the workflow once when a lambda has been let go at another value than it was taken at. */

/** Milliseconds without another change after which a change by keys or by typing counts as done. */
const PAUSE = 250;

/** @typedef {import("./lambdas.mjs").Lambda} Lambda */

export class RunOnRelease {
  /**
   * @param {() => boolean} enabled
   * @param {() => Lambda[]} reachable - all lambdas that the user can reach now
   * @param {(node: any) => unknown} run - the workflow, for the sake of the node that was changed
   */
  constructor(enabled, reachable, run) {
    this.enabled = enabled;
    this.reachable = reachable;
    this.run = run;
    this.held = false;
    /** @type {Set<Lambda>} */
    this.changed = new Set();
    // Values when the hand came down. A workflow that is loaded has lambdas that no hand has been on: not in here.
    /** @type {Map<Lambda, number>} */
    this.before = new Map();
    /** @type {number | undefined} */
    this.timer = undefined;
    // Caught on their way down: a widget may keep them to itself, and some change only at the release.
    addEventListener("pointerdown", () => this.begin(true), true);
    addEventListener("keydown", () => this.begin(this.held), true);
    addEventListener("pointerup", () => this.end(), true);
    addEventListener("pointercancel", () => this.end(), true);
  }

  /** A lambda may have another value. */
  note(/** @type {Lambda} */ lambda) {
    this.changed.add(lambda);
    if (!this.held && this.timer === undefined) this.wait(PAUSE);
  }

  /** @private */
  begin(/** @type {boolean} */ held) {
    if (!this.enabled()) return;
    if (!this.changed.size) this.before = new Map(this.reachable().map((one) => [one, one.value]));
    this.held = held;
    if (this.changed.size) this.wait(PAUSE);
  }

  /** @private */
  end() {
    this.held = false;
    this.wait(0); // when the widgets have seen the release too
  }

  /** @private */
  wait(/** @type {number} */ milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = undefined;
      if (this.held) return;
      const moved = [...this.changed].find((one) => this.before.has(one) && this.before.get(one) !== one.value);
      this.changed.clear();
      if (moved && this.enabled()) this.run(moved.node);
    }, milliseconds);
  }
}
