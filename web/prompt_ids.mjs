/** Where a node is found in what the server is given and what it says. */

/**
 * The ids of a node in the API format: one for each place that its subgraph is used in.
 *
 * @param {any} node
 * @returns {string[]}
 */
export function promptIds(node) {
  const root = node.graph.rootGraph;
  if (node.graph === root) return [String(node.id)];
  /** @type {string[]} */
  const ids = [];
  const walk = (/** @type {any} */ graph, /** @type {string} */ path) => {
    for (const other of graph.nodes) {
      if (!other.isSubgraphNode?.()) continue;
      if (other.subgraph === node.graph) ids.push(`${path}${other.id}:${node.id}`);
      walk(other.subgraph, `${path}${other.id}:`);
    }
  };
  walk(root, "");
  return ids;
}
