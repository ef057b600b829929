/** A surface of a node that one drags on and steers by keys. It holds no value: it says what was asked for. */

import { app } from "../../scripts/app.js";

/** What a key gives without Shift, by its place and what it gives with it: of the keyboards that are most common. */
const UNSHIFTED = new Map([
  ["Equal +", "="],
  ["NumpadAdd +", "+"],
  ["BracketRight *", "+"], // German, Italian, Spanish
  ["BracketLeft *", "+"], // Portuguese
  ["Minus _", "-"],
  ["Slash _", "-"], // German and most of Europe
  ["Minus =", "-"], // Japanese
  ["NumpadSubtract -", "-"],
  ["Comma <", ","],
  ["Comma ;", ","],
  ["Period >", "."],
  ["Period :", "."],
]);
/** The same of this keyboard, as it was pressed. */
const pressed = new Map();

/**
 * What a key asks for, and whether in fine steps: with Shift, if it asks for the same without. Where a character needs
 * Shift, it is the character that counts.
 *
 * @param {Map<string, any>} moves
 * @param {KeyboardEvent} event
 * @returns {[any, boolean]}
 */
function asked(moves, { key, code, shiftKey }) {
  if (!shiftKey) {
    pressed.set(code, key);
    return [moves.get(key), false];
  }
  const fine = moves.get(pressed.get(code) ?? UNSHIFTED.get(`${code} ${key}`) ?? (key.length > 1 ? key : ""));
  return fine ? [fine, true] : [moves.get(key), false];
}

/**
 * @typedef {(event: PointerEvent) => void} Follow - a drag going on
 * @param {HTMLElement} surface
 * @param {object} answers
 * @param {(event: PointerEvent) => Follow} answers.begin - a press; what it gives follows the pointer until its release
 * @param {Map<string, any>} answers.moves - what each key asks for
 * @param {(move: any, fine: boolean) => void} answers.step - one of them, once
 * @param {() => void} answers.reset - a double click or Enter
 * @param {() => void} answers.show - be up to date, looked at
 */
export function listen(surface, { begin, moves, step, reset, show }) {
  /** @type {Follow | null} */
  let follow = null;
  let stepped = false;
  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // Or the node would be dragged. The default stays: the host looks for changes at the mouse's release.
    event.stopPropagation();
    surface.focus({ preventScroll: true });
    surface.setPointerCapture(event.pointerId);
    follow = begin(event);
  });
  surface.addEventListener("pointermove", (event) => {
    if (follow && surface.hasPointerCapture(event.pointerId)) follow(event);
    else show();
  });
  for (const end of ["pointerup", "pointercancel"]) surface.addEventListener(end, () => (follow = null));
  surface.addEventListener("dblclick", (event) => {
    event.stopPropagation();
    reset();
  });
  surface.addEventListener("keydown", (event) => {
    const [move, fine] = asked(moves, event);
    if (!move && event.key !== "Enter") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the host's own shortcuts
    event.stopPropagation();
    event.preventDefault();
    if (move) step(move, fine);
    else reset();
    stepped = true;
  });
  surface.addEventListener("keyup", () => {
    if (!stepped) return;
    stepped = false;
    // The host looks for changes at the mouse's release, and at a key's where no element has the keyboard: one step
    // for undo, and in what the tab keeps.
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
  });
  surface.addEventListener("wheel", (event) => app.canvas.processMouseWheel(event), { passive: true });
  surface.addEventListener("focus", show);
}
