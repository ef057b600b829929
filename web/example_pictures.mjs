/** The pictures that the pack's templates begin with: put into the server's input folder where it lacks them. */

import { api } from "../../scripts/api.js";

/** So that they stand together in a list of the user's own pictures, and apart from them. */
const PREFIX = "cnc_";
const PICTURES = ["cone", "cube", "fg_style", "bg_style", "drawn_front", "drawn_back"];
/** What a node that reads a folder is given, and what is in it. */
const FOLDER = ["cone", "cube", "fg_style"];

/** What each choice of a loader stands for, by the loader's type: [subfolder, picture]s. */
const LOADERS = new Map([
  ["LoadImage", new Map(PICTURES.map((name) => [`${PREFIX}${name}.png`, [["", name]]]))],
  ["LoadImageDataSetFromFolder", new Map([[`${PREFIX}pictures`, FOLDER.map((name) => [`${PREFIX}pictures`, name])]])],
]);

/**
 * Upload those that a workflow names and the server does not have. Nothing is overwritten.
 *
 * @param {any} workflow - as saved
 * @returns {Promise<boolean>} whether there was something to upload
 */
export async function provide(workflow) {
  const nodes = [workflow, ...(workflow.definitions?.subgraphs ?? [])].flatMap((graph) => graph.nodes ?? []);
  const uploads = [];
  for (const [type, known] of LOADERS) {
    const named = nodes.filter((node) => node.type === type).map((node) => node.widgets_values?.[0]);
    const ours = new Set(named.filter((value) => known.has(value)));
    if (!ours.size) continue;
    const there = await choices(type);
    for (const value of ours) if (!there.includes(value)) uploads.push(...(known.get(value) ?? []));
  }
  await Promise.all(uploads.map(([subfolder, name]) => upload(subfolder, name)));
  return uploads.length > 0;
}

/** What a loader can load now; the page's own list is as old as the page. */
async function choices(/** @type {string} */ type) {
  const info = (await (await api.fetchApi(`/object_info/${type}`)).json())[type];
  const [kind, options] = Object.values(info.input.required)[0];
  return Array.isArray(kind) ? kind : (options.options ?? []);
}

async function upload(/** @type {string} */ subfolder, /** @type {string} */ name) {
  const picture = await (await fetch(new URL(`./pictures/${name}.png`, import.meta.url))).blob();
  const body = new FormData();
  body.append("image", picture, subfolder ? `${name}.png` : `${PREFIX}${name}.png`);
  body.append("subfolder", subfolder);
  await api.fetchApi("/upload/image", { method: "POST", body });
}
