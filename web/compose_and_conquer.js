/**
 * The one file that the host loads by itself. It adds to what the nodes can do without it: values live in their
 * ordinary widgets, so a workflow is the same with scripts and without.
 */

import { app } from "../../scripts/app.js";
import { recall } from "./executed.mjs";
import { lambdas } from "./lambdas.mjs";
import { addPad } from "./pad.mjs";
import { addHandles } from "./place.mjs";
import { RunOnRelease } from "./run_on_release.mjs";
import { addStrip } from "./strip.mjs";

/** The pack's nodes that have two layers to exchange. */
const LAYERED = new Set(["CnC_Compose", "CnC_ApplyLocalFuser"]);
const RUN_ON_RELEASE = "ComposeAndConquer.RunOnRelease";

const release = new RunOnRelease(
  () => app.extensionManager.setting.get(RUN_ON_RELEASE),
  () => app.canvas.graph.nodes.flatMap((/** @type {any} */ node) => lambdas(node) ?? []),
  () => app.queuePrompt(0, 1),
);

/** Whether pictures of ours were uploaded for the workflow that is being loaded. */
let provided = false;

/** Tell the user something that is no error of the page's. */
function warn(/** @type {string} */ detail) {
  app.extensionManager.toast.add({ severity: "warn", summary: "Compose and Conquer", detail, life: 8000 });
}

async function swap(/** @type {any} */ node) {
  const { swapLayers } = await import("./swap.mjs");
  const said = swapLayers(node);
  if (said) warn(said);
}

async function grid(/** @type {any} */ node) {
  const { openLambdaGrid } = await import("./lambda_grid.mjs");
  openLambdaGrid(node);
}

/**
 * Run `act` on the selected node that fits, or on the only one that does.
 *
 * @param {(node: any) => boolean} fits
 * @param {(node: any) => void} act
 * @param {string} wanted - the nodes that fit, for the message when there is none
 */
function onChosen(fits, act, wanted) {
  const selected = [...app.canvas.selectedItems].filter(fits);
  const found = selected.length ? selected : app.canvas.graph.nodes.filter(fits);
  if (found.length === 1) act(found[0]);
  else warn(found.length ? `Select the one node that is meant: ${wanted}.` : `There is no node for this: ${wanted}.`);
}

const hasLambdas = (/** @type {any} */ node) => lambdas(node) !== null;
const hasLayers = (/** @type {any} */ node) => LAYERED.has(node.comfyClass);

app.registerExtension({
  name: "ComposeAndConquer",

  settings: [
    {
      id: RUN_ON_RELEASE,
      category: ["Compose and Conquer", "Lambda", "RunOnRelease"],
      name: "Run when a \u03bb slider or the pad is let go",
      tooltip: "Queues the workflow once when a \u03bb has changed. Only the guidance and the sampler run again.",
      type: "boolean",
      defaultValue: false,
    },
  ],

  commands: [
    {
      id: "ComposeAndConquer.SwapLayers",
      label: "Compose and Conquer: swap layers",
      icon: "pi pi-arrow-right-arrow-left",
      function: () => onChosen(hasLayers, swap, "Compose and Conquer or Apply Local Fuser"),
    },
    {
      id: "ComposeAndConquer.LambdaGrid",
      label: "Compose and Conquer: \u03bb grid",
      icon: "pi pi-table",
      function: () => onChosen(hasLambdas, grid, "Compose and Conquer or Soft Guidance"),
    },
  ],

  menuCommands: [
    { path: ["Extensions"], commands: ["ComposeAndConquer.SwapLayers", "ComposeAndConquer.LambdaGrid"] },
  ],

  getNodeMenuItems(/** @type {any} */ node) {
    const items = [];
    if (hasLayers(node)) items.push({ content: "Swap layers", callback: () => swap(node) });
    if (hasLambdas(node)) items.push({ content: "\u03bb grid", callback: () => grid(node) });
    return items;
  },

  async beforeConfigureGraph(/** @type {any} */ workflow) {
    if (!JSON.stringify(workflow).includes('"cnc_')) return; // the names of our pictures begin so
    const { provide } = await import("./example_pictures.mjs");
    provided = await provide(workflow);
  },

  afterConfigureGraph() {
    if (provided) app.refreshComboInNodes(); // or the loaders' lists would lack them until the page is opened anew
    provided = false;
    recall(app.graph);
  },

  nodeCreated(/** @type {any} */ node) {
    const zoom = (/** @type {WheelEvent} */ event) => app.canvas.processMouseWheel(event);
    if (node.comfyClass === "CnC_PlaceLayer") addHandles(node, zoom);
    const pair = lambdas(node);
    if (!pair) return;
    addPad(node, pair, zoom);
    addStrip(node);
    for (const lambda of pair) lambda.onChange(() => release.note(lambda));
  },
});
