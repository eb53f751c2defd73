// A grid of images from one JPEG atlas. Streamlit calls the default export after every run of the page.
// Payload: 4 bytes header length, header (JSON), JPEG; see core/ui/grid/component.py. Text is set through textContent only.

const GAP_MS = 60; // at most one report to Python in this time; the first one is sent immediately
const LOG_LENGTH = 1000;
const MARKS = { removed: "removed", alert: "looks wrong" };
const DIRECTION = { "1": "helpful", "-1": "harmful", 0: "" };
const mounted = new WeakMap(); // root -> Grid
const memories = new Map(); // session and key -> what is selected; outlives a remount by Streamlit

function element(tag, className, parent, text = "") {
  const el = document.createElement(tag);
  el.className = className;
  el.textContent = text;
  parent.append(el);
  return el;
}

class Grid {
  constructor(root) {
    const box = element("div", "tl", root);
    this.list = element("div", "tiles", box);
    this.list.setAttribute("role", "listbox");
    const foot = element("div", "foot", box);
    this.status = element("span", "status", foot);
    this.status.setAttribute("aria-live", "polite");
    this.hint = element("span", "hint", foot);
    this.list.addEventListener("click", (e) => this.click(e));
    this.list.addEventListener("dblclick", (e) => this.open(this.indexOf(e)));
    this.list.addEventListener("keydown", (e) => this.key(e));
    this.list.addEventListener("focusin", (e) => this.rove(this.indexOf(e)));
    this.list.addEventListener("focusout", () => this.flush()); // before a click elsewhere reaches Python
    this.focus = 0; // index of the tile in the tab order
    this.last = null; // where a range with shift starts
    this.anchor = null; // the range being drawn: {at, base}
    this.nodes = [];
  }

  update(data, setStateValue) {
    this.report = (value) => setStateValue("grid", value);
    const length = new DataView(data.buffer, data.byteOffset).getUint32(0);
    const text = new TextDecoder().decode(data.subarray(4, 4 + length));
    if (text === this.text) return;
    this.text = text;
    const head = JSON.parse(text);
    const was = this.head;
    this.head = head;
    this.ids = head.tiles.map((tile) => tile[0]);
    if (was?.atlas !== head.atlas) this.picture(data.slice(4 + length));
    this.draw(was);
    const replayed = this.remember(head);
    this.paint();
    if (replayed) this.send();
  }

  // Show the atlas once it is loaded. Its address is not revoked before that: the browser would report it as missing,
  // even after another atlas has taken its place or the grid is gone.
  picture(jpeg) {
    this.list.style.setProperty("--atlas", "none");
    this.release();
    if (!jpeg.length) return;
    const picture = new Image();
    picture.src = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    this.atlas = picture; // keeps it decoded
    const loaded = () => this.atlas === picture && this.list.style.setProperty("--atlas", `url("${picture.src}")`);
    picture.decode().then(loaded, () => {}); // a damaged image stays blank
  }

  release() {
    const old = this.atlas;
    this.atlas = null;
    const revoke = () => URL.revokeObjectURL(old.src);
    old?.decode().then(revoke, revoke);
  }

  // Bring the memory of this grid to the epoch that Python requests. True: Python must be informed.
  remember(head) {
    const name = JSON.stringify([head.session, head.key]);
    const memory = memories.get(name) ?? { seq: 0, log: [], selected: new Set(), opened: null };
    memories.set(name, (this.memory = memory));
    if (memory.epoch === head.epoch) return false;
    memory.log = head.ack === null ? [] : memory.log.filter((op) => op.seq > head.ack);
    memory.epoch = head.epoch;
    memory.selected = new Set(head.base);
    for (const op of memory.log) {
      op.on.forEach((id) => memory.selected.add(id));
      op.off.forEach((id) => memory.selected.delete(id));
    }
    this.anchor = null;
    return memory.log.length > 0;
  }

  draw(was) {
    const { head, list } = this;
    const focused = this.nodes.indexOf(list.getRootNode().activeElement);
    const place = this.ids.indexOf(was?.tiles[this.focus]?.[0]);
    this.focus = Math.max(0, place);
    this.last = this.anchor = null;
    list.setAttribute("aria-label", head.label);
    list.setAttribute("aria-multiselectable", String(head.selectable));
    list.style.setProperty("--tile", `${head.tile}px`);
    list.style.setProperty("--sheet", `${head.columns * head.pitch}px ${head.rows * head.pitch}px`);
    list.hidden = !head.tiles.length;
    list.replaceChildren();
    this.nodes = head.tiles.map(([id, caption, sign, score, length, mark, tooltip], i) => {
      const node = element("div", `tile ${mark}`, list);
      const parts = [caption, score && `influence ${score} ${DIRECTION[sign]}`.trim(), MARKS[mark]];
      node.setAttribute("role", "option");
      node.setAttribute("aria-label", parts.filter(Boolean).join(", ") || id);
      node.tabIndex = i === this.focus ? 0 : -1;
      node.dataset.id = id;
      if (tooltip || score) node.title = [tooltip, score && `influence ${score}`].filter(Boolean).join("; ");
      const pic = element("div", "pic", node);
      const [x, y] = [(i % head.columns) * head.pitch, Math.floor(i / head.columns) * head.pitch];
      pic.style.backgroundPosition = `-${x}px -${y}px`;
      element("div", "caption", node, caption);
      if (score) {
        const bar = element("div", "score", node);
        const part = element("div", ["harmful", "neutral", "helpful"][sign + 1], bar);
        part.style.width = `${50 * length}%`;
      }
      return node;
    });
    if (focused >= 0 && place >= 0) this.nodes[place].focus({ preventScroll: true });
    this.hint.textContent = "Enter or double-click: enlarge";
    if (head.selectable) this.hint.textContent = `Space: select · Shift: range · ${this.hint.textContent}`;
    this.hint.hidden = !head.tiles.length;
  }

  paint() {
    const { selected } = this.memory;
    let count = 0;
    this.nodes.forEach((node, i) => {
      const on = selected.has(this.ids[i]);
      count += on;
      node.setAttribute("aria-selected", String(on));
    });
    const n = this.nodes.length;
    const text = this.head.selectable ? `${count} of ${n} selected` : `${n} images`;
    this.status.textContent = n ? text : "Nothing to show.";
  }

  // Make `wanted` (a Set of ids) the selection: immediately here, and as a log entry for Python.
  select(wanted) {
    const { memory } = this;
    const on = [...wanted].filter((id) => !memory.selected.has(id));
    const off = [...memory.selected].filter((id) => !wanted.has(id));
    if (!on.length && !off.length) return;
    memory.selected = wanted;
    memory.seq += 1;
    memory.log = [...memory.log, { seq: memory.seq, on, off }].slice(-LOG_LENGTH);
    this.paint();
    this.send();
  }

  toggle(i) {
    if (!this.head.selectable) return;
    const wanted = new Set(this.memory.selected);
    if (!wanted.delete(this.ids[i])) wanted.add(this.ids[i]);
    this.select(wanted);
  }

  // Select from the anchor to i, on top of what was selected when the range began.
  range(from, i) {
    if (!this.head.selectable) return;
    this.anchor ??= { at: from, base: new Set(this.memory.selected) };
    const [low, high] = [Math.min(this.anchor.at, i), Math.max(this.anchor.at, i)];
    this.select(new Set([...this.anchor.base, ...this.ids.slice(low, high + 1)]));
  }

  open(i) {
    if (i < 0) return;
    this.memory.opened = { token: crypto.getRandomValues(new Uint32Array(2)).join("-"), id: this.ids[i] };
    this.send();
    this.flush();
  }

  send() {
    this.pending = true;
    if (this.timer) return;
    this.flush();
    this.timer = setTimeout(() => {
      this.timer = null;
      this.flush();
    }, GAP_MS);
  }

  flush() {
    if (!this.pending) return;
    this.pending = false;
    const { seq, epoch, selected, opened } = this.memory;
    const names = this.ids.filter((id) => selected.has(id));
    this.report({ session: this.head.session, epoch, seq, selected: names, opened });
  }

  indexOf(event) {
    return this.nodes.indexOf(event.target.closest(".tile"));
  }

  rove(i) {
    if (i < 0 || i === this.focus) return;
    if (this.nodes[this.focus]) this.nodes[this.focus].tabIndex = -1;
    this.nodes[i].tabIndex = 0;
    this.focus = i;
  }

  click(event) {
    const i = this.indexOf(event);
    if (i < 0) return;
    if (event.shiftKey) this.range(this.last ?? this.focus, i);
    else {
      this.toggle(i);
      this.anchor = null;
    }
    this.last = event.shiftKey ? this.last : i;
    this.nodes[i].focus({ preventScroll: true });
  }

  key(event) {
    const { nodes, focus: i, memory } = this;
    if (!nodes.length || event.altKey) return;
    const command = event.ctrlKey || event.metaKey;
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const last = nodes.length - 1;
    const below = i + columns <= last ? i + columns : Math.floor(i / columns) < Math.floor(last / columns) ? last : i;
    const moves = {
      ArrowLeft: Math.max(0, i - 1),
      ArrowRight: Math.min(last, i + 1),
      ArrowUp: i >= columns ? i - columns : i,
      ArrowDown: below,
      Home: 0,
      End: last,
    };
    if (event.key in moves && !command) {
      const to = moves[event.key];
      if (event.shiftKey) this.range(i, to);
      else this.anchor = null;
      nodes[to].focus();
      this.last = event.shiftKey ? this.last : to;
    } else if (event.key === " " && !command) {
      if (event.shiftKey) this.range(this.last ?? i, i);
      else {
        this.toggle(i);
        this.anchor = null;
      }
      this.last = i;
    } else if (event.key === "Enter" && !command) {
      if (!event.repeat) this.open(i);
    } else if (command && event.key.toLowerCase() === "a" && this.head.selectable) {
      this.anchor = null;
      this.select(new Set(this.ids));
    } else if (event.key === "Escape" && memory.selected.size) {
      this.anchor = null;
      this.select(new Set());
    } else return;
    event.preventDefault();
    event.stopPropagation(); // prevents Streamlit's shortcuts and the Escape of a dialog
  }

  leave() {
    clearTimeout(this.timer);
    this.release();
  }
}

export default function ({ data, parentElement, setStateValue }) {
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Grid(parentElement));
  mounted.get(parentElement).update(data, setStateValue);
  return () => {
    mounted.get(parentElement)?.leave();
    mounted.delete(parentElement);
  };
}
