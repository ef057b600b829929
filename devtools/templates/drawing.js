/**
 * Draw a described workflow in the open front end and return it as the front end saves it, as text.
 *
 * Given to Playwright's `evaluate`: one function, of what `Sheet.described` gives.
 */
async (sheet) => {
  const { graph: root } = app;
  const GAP = { x: 40, y: 30, group: 40, title: 40 };
  const LETTER = 12.5; // of a group's title
  const types = new Map();

  function make(graph, one) {
    const node = LiteGraph.createNode(types.get(one.type)?.id ?? one.type);
    if (!node) throw new Error(`no node ${one.type}`);
    node.title = one.title ?? types.get(one.type)?.name ?? node.title;
    graph.add(node);
    for (const [name, value] of Object.entries(one.values)) {
      const widget = one.type === "MarkdownNote" ? node.widgets[0] : node.widgets.find((w) => w.name === name);
      if (!widget) throw new Error(`${one.type} has no ${name}: ${node.widgets?.map((w) => w.name)}`);
      widget.value = value;
      widget.callback?.(value, app.canvas, node);
    }
    const control = node.widgets?.find((w) => w.name === "control_after_generate");
    if (control) control.value = "fixed";
    if (one.models.length) node.properties.models = one.models;
    if (one.type === "MarkdownNote") [node.color, node.bgcolor] = ["#432", "#653"];
    return node;
  }

  function connect(nodes, one) {
    for (const [name, [key, output]] of Object.entries(one.links)) {
      const [from, to] = [nodes.get(key), nodes.get(one.key)];
      const [outgoing, incoming] = [from.outputs, to.inputs].map((slots, end) =>
        slots.findIndex((slot) => [slot.name, slot.label].includes(end ? name : output)),
      );
      if (outgoing < 0 || incoming < 0 || !from.connect(outgoing, to, incoming)) {
        throw new Error(`${from.title} ${output} -> ${to.title} ${name}: ${to.inputs.map((slot) => slot.name)}`);
      }
    }
  }

  /** Columns from left to right, each as wide as its widest node; returns the frame around all of them. */
  function lay(nodes, columns, left, top) {
    let [x, bottom] = [left, top];
    for (const column of columns) {
      const sizes = column.map((one) => [nodes.get(one.key).computeSize(), one.size]);
      const width = Math.max(...sizes.map(([[least], [wanted]]) => wanted ?? Math.max(least, 230)));
      let y = top;
      for (const [index, one] of column.entries()) {
        const node = nodes.get(one.key);
        const [[, least], [, wanted]] = sizes[index];
        node.setSize([width, Math.max(least, wanted ?? 0)]);
        node.pos = [x, y + LiteGraph.NODE_TITLE_HEIGHT];
        y += LiteGraph.NODE_TITLE_HEIGHT + node.size[1] + GAP.y;
      }
      x += width + GAP.x;
      bottom = Math.max(bottom, y - GAP.y);
    }
    return [left, top, x - GAP.x - left, bottom - top];
  }

  function draw(graph, groups) {
    const ones = groups.flatMap((group) => group.columns.flat());
    const nodes = new Map(ones.map((one) => [one.key, make(graph, one)]));
    for (const one of ones) connect(nodes, one);
    return nodes;
  }

  const first = [];
  for (const { name, description, category, groups, inputs, outputs } of sheet.subgraphs ?? []) {
    const nodes = draw(root, groups);
    const { subgraph, node } = root.convertToSubgraph(new Set(nodes.values()));
    first.push(node);
    [subgraph.name, node.title] = [name, name];
    if (description) subgraph.description = description;
    if (category) subgraph.category = category;
    types.set(name, subgraph);
    // The same nodes under the ids that they have in there, in the same order.
    const ones = groups.flatMap((group) => group.columns.flat());
    const inside = new Map(ones.map((one, index) => [one.key, subgraph.nodes[index]]));
    for (const one of ones) if (inside.get(one.key).type !== one.type) throw new Error("the nodes changed their order");
    lay(inside, groups.flatMap((group) => group.columns), 0, 0);
    for (const [title, targets] of inputs) {
      const slots = targets.map(([key, input]) => {
        const to = inside.get(key);
        const slot = to.inputs.find((one) => one.name === input);
        if (!slot) throw new Error(`${to.title} has no ${input}`);
        return [slot, to];
      });
      const added = subgraph.addInput(title, String(slots[0][0].type));
      const [[{ widget: named }, holder]] = slots;
      const { label } = holder.widgets?.find((one) => one.name === named?.name) ?? {};
      if (label && label !== title) added.label = label;
      for (const [slot, to] of slots) subgraph.inputNode.slots.find((one) => one.id === added.id).connect(slot, to);
    }
    for (const [title, [key, output]] of outputs) {
      const from = inside.get(key);
      const slot = from.outputs.find((one) => [one.name, one.label].includes(output));
      const added = subgraph.addOutput(title, String(slot.type));
      subgraph.outputNode.slots.find((one) => one.id === added.id).connect(slot, from);
    }
    const frame = lay(inside, groups.flatMap((group) => group.columns), 0, 0);
    const ends = [
      [subgraph.inputNode, -220],
      [subgraph.outputNode, frame[2] + 100],
    ];
    for (const [end, x] of ends) [end.pos[0], end.pos[1]] = [x, frame[3] / 2 - 100];
  }

  const nodes = draw(root, sheet.groups);
  for (const node of first) root.remove(node);
  let [left, top, row, below] = [0, 0, 0, 0];
  for (const group of sheet.groups) {
    if (group.row !== row) [left, top, row] = [0, below + GAP.group, group.row];
    const frame = lay(nodes, group.columns, left + GAP.title / 2, top + GAP.title);
    const width = Math.max(frame[2] + GAP.title, group.title.length * LETTER);
    const bounds = [left, top, width, frame[3] + 1.5 * GAP.title];
    if (group.title) {
      const drawn = new LiteGraph.LGraphGroup(group.title);
      [drawn.pos, drawn.size] = [bounds.slice(0, 2), bounds.slice(2)];
      root.add(drawn);
    }
    left += bounds[2] + GAP.group;
    below = Math.max(below, top + bounds[3]);
  }
  Object.assign(app.canvas.ds, { scale: 0.6, offset: [80, 90] });
  await new Promise((done) => setTimeout(done, 500)); // the loaders fetch their pictures
  return JSON.stringify(root.serialize());
}
