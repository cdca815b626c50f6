/** Elements, made from values: text always stays text. */

/**
 * An element with properties and children. `class`, `on` ({event: handler}) and names with a dash (attributes) are
 * special; `undefined` and `null` children are left out.
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") node.className = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return node;
}

/** A box with a heading; parts that are null are left out. */
export function card(title, ...parts) {
  return make("section", { class: "card" }, make("h2", {}, title), parts.flat().filter(Boolean));
}

/** Paragraphs of a text, one for every run of lines between empty ones. */
export function paragraphs(text) {
  return String(text ?? "")
    .split(/\n\s*\n/)
    .filter((part) => part.trim())
    .map((part) => make("p", {}, part.trim()));
}

/** 128 random bits as text. (`crypto.randomUUID` is there on https only.) */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
