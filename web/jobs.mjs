/** Which of the page's tabs has queued a job, and what a release has queued that still waits. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** As 0, the end of the queue, but told apart from what the user queues. */
const RELEASED = -0;

/** @type {Map<string, any>} */
const tabs = new Map();
/** The last job that a release has queued for a node, by the node's place. @type {WeakMap<any, Map<string, string>>} */
const released = new WeakMap();
let releasing = "";
/** @type {Promise<unknown>} */
let underway = Promise.resolve();

/** The tab that is open: the front end has one graph, and fills it anew for each. */
export const openTab = () => app.extensionManager.workflow.activeWorkflow;

const { queuePrompt } = api;
api.queuePrompt = function (/** @type {number} */ number, /** @type {any[]} */ ...given) {
  const [tab, place] = [openTab(), Object.is(number, RELEASED) ? releasing : ""];
  const answer = queuePrompt.call(this, number, ...given);
  const note = (/** @type {{ prompt_id?: string }} */ { prompt_id: id }) => {
    if (!id || !tab) return;
    tabs.set(id, tab);
    if (!place) return;
    if (!released.has(tab)) released.set(tab, new Map());
    released.get(tab)?.set(place, id);
  };
  underway = Promise.allSettled([underway, answer.then(note)]);
  return answer;
};

/**
 * The tab that queued a job; undefined for a job from before the page was opened, or another page's.
 *
 * @param {string} id
 */
export async function tabOf(id) {
  if (!tabs.has(id)) await underway; // the server may tell of a job before it answers that it was queued
  return tabs.get(id);
}

/**
 * Queue the workflow for a node's sake, in place of the job that was queued so before and still waits. One that runs
 * is left to run.
 *
 * @param {any} node
 */
export async function queueFor(node) {
  const place = `${node.graph?.id}/${node.id}`;
  await underway;
  const waiting = released.get(openTab())?.get(place);
  if (waiting) await api.deleteItem("queue", waiting);
  releasing = place;
  await app.queuePrompt(RELEASED, 1);
}
