/** What the pack puts on its nodes: pad, strip and handles, and what watches them. */

import { app } from "../../scripts/app.js";
import { queueFor } from "./jobs.mjs";
import { lambdas } from "./lambdas.mjs";
import { addPad } from "./pad.mjs";
import { addHandles } from "./place.mjs";
import { RunOnRelease } from "./run_on_release.mjs";
import { addStrip } from "./strip.mjs";
// What those import in turn: named here, they are all asked for at once and not one after the other.
import "./panel.mjs";
import "./prompt_ids.mjs";
import "./value.mjs";

export { recall } from "./executed.mjs";

const release = new RunOnRelease(
  () => app.extensionManager.setting.get("ComposeAndConquer.RunOnRelease"),
  () => app.canvas.graph.nodes.flatMap((/** @type {any} */ node) => lambdas(node) ?? []),
  queueFor,
);

/** Put on a node of the pack what belongs on it. */
export function dress(/** @type {any} */ node) {
  if (node.comfyClass === "CnC_PlaceLayer") addHandles(node);
  const pair = lambdas(node);
  if (!pair) return;
  addPad(node, pair);
  addStrip(node);
  for (const lambda of pair) lambda.onChange(() => release.note(lambda));
}
