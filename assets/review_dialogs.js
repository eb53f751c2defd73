// Dialogs of the review grid: native <dialog> elements, which trap the focus, close with Escape and restore it.

function element(tag, className, parent, text = "") {
  const el = document.createElement(tag);
  el.className = className;
  el.textContent = text;
  parent?.append(el);
  return el;
}

// Set a text; the same one again would lay out the page anew.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function button(parent, text, label, act) {
  const el = element("button", "", parent, text);
  el.type = "button";
  if (label) el.setAttribute("aria-label", label);
  el.addEventListener("click", act);
  return el;
}

// Whether a text has nothing to see: only separators, control and format characters. core/decisions/texts.py has the
// same rule; trim() leaves some of these.
const isBlank = (text) => /^[\p{Z}\p{Cc}\p{Cf}]*$/u.test(text);

class Dialog {
  constructor(parent, className, title) {
    this.node = element("dialog", className, parent);
    this.node.setAttribute("aria-label", title);
    this.node.addEventListener("click", (event) => event.target === this.node && this.close());
  }

  get open() {
    return this.node.open;
  }

  show() {
    if (!this.node.open) this.node.showModal();
  }

  close() {
    this.node.close();
  }
}

// A single text field; Enter submits it.
class Ask extends Dialog {
  constructor(parent, title, hint) {
    super(parent, "ask", title);
    const id = `ask-${uuid()}`;
    const label = element("label", "title", this.node, title);
    label.htmlFor = id;
    this.input = element("input", "", this.node);
    this.input.id = id;
    this.input.autocomplete = "off";
    element("p", "hint", this.node, hint);
    const row = element("div", "row", this.node);
    button(row, "OK", "", () => this.finish());
    button(row, "Cancel", "", () => this.close());
    this.input.addEventListener("keydown", (event) => event.key === "Enter" && this.finish());
  }

  ask(then) {
    this.then = then;
    this.input.value = "";
    this.show();
    this.input.focus();
  }

  finish() {
    const text = this.input.value.trim();
    this.close();
    if (!isBlank(text)) this.then(text);
  }
}

// A list of choices, such as all classes, with a search that works by keyboard alone.
class Palette extends Dialog {
  // one, many: what a choice is, such as "class" and "classes".
  constructor(parent, title, one, many) {
    super(parent, "palette", title);
    this.one = one;
    element("div", "title", this.node, title);
    this.input = element("input", "", this.node);
    this.input.autocomplete = "off";
    this.input.placeholder = `Search ${many}`;
    this.list = element("div", "classes", this.node);
    this.list.id = `palette-${uuid()}`;
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", many);
    for (const [name, value] of [
      ["role", "combobox"],
      ["aria-label", `${title}: ${one}`],
      ["aria-expanded", "true"],
      ["aria-autocomplete", "list"],
      ["aria-controls", this.list.id],
    ])
      this.input.setAttribute(name, value);
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("click", (event) => {
      const node = event.target.closest("[role=option]");
      if (node) this.choose(Number(node.dataset.label));
    });
  }

  // choices: [[number, name, note]], the most likely first; ``then`` gets the number of the chosen one.
  ask(choices, then) {
    this.choices = choices;
    this.then = then;
    this.input.value = "";
    this.show();
    this.search();
    this.input.focus();
  }

  search() {
    const wanted = this.input.value.trim().toLowerCase();
    const starts = (name) => (name.toLowerCase().startsWith(wanted) ? 0 : 1);
    const found = this.choices.filter(([, name]) => name.toLowerCase().includes(wanted));
    if (wanted) found.sort((a, b) => starts(a[1]) - starts(b[1]));
    this.list.replaceChildren();
    this.options = found.slice(0, 200).map(([label, name, note], i) => {
      const node = element("div", "class", this.list);
      node.id = `${this.list.id}-${i}`;
      node.setAttribute("role", "option");
      node.dataset.label = label;
      element("span", "name", node, name);
      if (note) element("span", "note", node, note);
      return node;
    });
    if (!found.length) element("div", "none", this.list, `No matching ${this.one}.`);
    this.at = 0;
    this.mark();
  }

  mark() {
    this.options.forEach((node, i) => node.setAttribute("aria-selected", String(i === this.at)));
    const node = this.options[this.at];
    if (node) this.input.setAttribute("aria-activedescendant", node.id);
    else this.input.removeAttribute("aria-activedescendant");
    node?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const last = this.options.length - 1;
    const moves = { ArrowDown: Math.min(last, this.at + 1), ArrowUp: Math.max(0, this.at - 1) };
    if (event.key in moves) {
      this.at = moves[event.key];
      this.mark();
    } else if (event.key === "Enter" && this.options[this.at]) {
      this.choose(Number(this.options[this.at].dataset.label));
    } else return;
    event.preventDefault();
  }

  choose(label) {
    this.close();
    this.then(label);
  }
}

// The list of keys, where they can be changed.
class KeySheet extends Dialog {
  constructor(parent, map, changed) {
    super(parent, "sheet", "Keys");
    this.map = map;
    this.changed = changed;
    element("div", "title", this.node, "Keys");
    element("p", "hint", this.node, "Select an action, then press its new key. Saved in this browser.");
    this.body = element("div", "keys", this.node);
    this.feedback = element("p", "feedback", this.node);
    this.feedback.setAttribute("role", "status");
    const row = element("div", "row", this.node);
    button(row, "Reset to defaults", "", () => {
      this.map.reset();
      this.draw();
      this.feedback.textContent = "All keys are reset to their defaults.";
      this.changed();
    });
    button(row, "Close", "", () => this.close());
    this.node.addEventListener("keydown", (event) => this.key(event), true);
    this.node.addEventListener("close", () => (this.wanted = null));
  }

  ask() {
    this.feedback.textContent = "";
    this.draw();
    this.show();
  }

  draw() {
    this.wanted = null;
    this.body.replaceChildren();
    for (const [action, , what] of ACTIONS) {
      const row = element("div", "key", this.body);
      const el = button(row, this.map.keys[action], `${what}: key ${this.map.keys[action]}, change`, () => {
        this.draw();
        this.wanted = action;
        this.nodes[action].textContent = "press …";
        this.nodes[action].focus();
        this.feedback.textContent = "Press a key, or Escape to cancel.";
      });
      this.nodes = { ...this.nodes, [action]: el };
      element("span", "", row, what);
    }
    for (const [keys, what] of FIXED) {
      const row = element("div", "key", this.body);
      element("kbd", "", row, keys);
      element("span", "", row, what);
    }
  }

  key(event) {
    if (!this.wanted || ["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const action = this.wanted;
    const why = event.key === "Escape" ? "Unchanged." : this.map.assign(action, keyName(event));
    this.draw();
    this.nodes[action].focus();
    this.feedback.textContent = why || `Changed to “${this.map.keys[action]}”.`;
    this.changed();
  }
}
