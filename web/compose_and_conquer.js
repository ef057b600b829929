/**
 * The one file that the host loads by itself. It adds to what the nodes can do without it: values live in their
 * ordinary widgets, so a workflow is the same with scripts and without.
 */

import { app } from "../../scripts/app.js";

/** The pack's nodes that have two layers to exchange, that have lambdas, and that something is put on. */
const LAYERED = new Set(["CnC_Compose", "CnC_ApplyLocalFuser"]);
const WITH_LAMBDAS = new Set(["CnC_Compose", "CnC_SoftGuidance"]);
const DRESSED = new Set([...WITH_LAMBDAS, "CnC_PlaceLayer"]);

/** @type {typeof import("./panels.mjs") | undefined} */
let panels;

/** Load what goes on the nodes: once the page stands, or with the first workflow that has one of ours. */
async function load() {
  panels ??= await import("./panels.mjs");
  return panels;
}

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

const hasLambdas = (/** @type {any} */ node) => WITH_LAMBDAS.has(node.comfyClass);
const hasLayers = (/** @type {any} */ node) => LAYERED.has(node.comfyClass);

app.registerExtension({
  name: "ComposeAndConquer",

  settings: [
    {
      id: "ComposeAndConquer.RunOnRelease",
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

  setup() {
    load(); // nobody waits for it: a node comes by hand, and that is later
    const { loadGraphData } = app;
    app.loadGraphData = async function (/** @type {any[]} */ ...given) {
      const answer = await loadGraphData.apply(this, given);
      panels?.recall(app.graph); // the front end's hooks come before it has changed to the workflow's tab
      return answer;
    };
  },

  async beforeConfigureGraph(/** @type {any} */ workflow) {
    const text = JSON.stringify(workflow);
    if (text.includes('"CnC_')) await load(); // so that its nodes are whole when their sizes are set
    if (!text.includes('"cnc_')) return; // the names of our pictures begin so
    const { provide } = await import("./example_pictures.mjs");
    provided = await provide(workflow);
  },

  afterConfigureGraph() {
    if (provided) app.refreshComboInNodes(); // or the loaders' lists would lack them until the page is opened anew
    provided = false;
  },

  nodeCreated(/** @type {any} */ node) {
    if (!DRESSED.has(node.comfyClass)) return;
    if (panels) panels.dress(node);
    else load().then(({ dress }) => dress(node));
  },
});
