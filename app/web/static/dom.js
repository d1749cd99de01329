// Elements from data. Text is always a text node: nothing that comes from outside is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "css") {
      for (const [property, css] of Object.entries(value)) node.style.setProperty(property, css);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element. props: attributes; `on`: listeners; `css`: style properties. Children: nodes and texts. */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same of an SVG element. */
export function s(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

/** Set an element's text, if it is another. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or remove an attribute. */
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const rowsOf = new WeakMap();

/**
 * Make the container's children those of the items, in their order. What is there stays: so does the focus.
 * make(item) gives {node, show(item)}; show is called for every item.
 */
export function list(container, items, key, make) {
  const before = rowsOf.get(container) ?? new Map();
  const after = new Map();
  let place = container.firstChild;
  for (const item of items) {
    const name = key(item);
    const row = before.get(name) ?? make(item);
    after.set(name, row);
    row.show?.(item);
    if (row.node === place) place = place.nextSibling;
    else container.insertBefore(row.node, place);
  }
  for (const [name, row] of before) if (!after.has(name)) row.node.remove();
  rowsOf.set(container, after);
}
