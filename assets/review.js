// The review grid: one page of pictures, one key each. Streamlit calls the default export whenever the data changed.
// Python (core/ui/review/grid.py) joins this file to review_log.js, review_keys.js, review_sheets.js and
// review_dialogs.js. Text is set through textContent only.
//
// Every decision is drawn immediately, stored in the browser's log, and sent; the state that Python sends later is drawn
// below the decisions that are still pending. Only one report of decisions is pending at a time, so quick keys share
// one. A report holds all that Python should know, so one that Streamlit merges with a later one loses nothing.

const TICK_MS = 400;
const LATE_MS = 1500; // a decision that waits longer is reported in the banner
const AGAIN_MS = 2500; // a report without an answer is sent again
const COMPUTED_MS = 700; // after which a forecast or details that Python still computes are asked for
const DIM_MS = 150; // a page that takes longer is dimmed; the transition of a style would draw each page three times
const REST_MS = 160; // the focus rests this long before its details are requested
const QUEUE_LENGTH = 500; // keys pressed while a page is loading
const SHOWN_REFUSALS = 5; // reasons in the banner at once
const AWAY_MS = 4000; // the grid waits this long for its new element, and queues the keys pressed meanwhile
const memories = new Map(); // scope -> {log, done, undone}; outlives the grid
let review = null; // the only grid; Streamlit may redraw its element elsewhere and keep both for a while

const VERDICTS = {
  keep: ["✓", "keep"],
  remove: ["✕", "remove"],
  relabel: ["→", "relabel"],
  unsure: ["?", "unsure"],
};
const percent = (share) => `${Math.round(100 * share)} %`;
const inEnglish = new Intl.NumberFormat("en"); // toLocaleString would make one at every call
const formatNumber = (number) => inEnglish.format(number);
const formatCount = (number, one) => `${formatNumber(number)} ${one}${number === 1 ? "" : "s"}`;
const keyOf = (kind, task, role, image) => JSON.stringify([kind, task, role, image]);

class Review {
  constructor(root) {
    this.map = new KeyMap();
    this.tab = uuid();
    this.reports = this.turns = 0;
    this.reported = ""; // name of the last report of decisions
    this.view = {}; // the last request for a page
    this.selected = new Map(); // position -> tile, over all pages
    this.all = false; // every matching item is selected
    this.queue = [];
    this.nodes = [];
    this.tiles = [];
    this.focus = 0;
    this.root = root;
    this.build(root);
    this.onSheet = () => this.settle();
    listeners.add(this.onSheet);
    this.onDocument = (event) => this.documentKey(event);
    document.addEventListener("keydown", this.onDocument, true);
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  build(root) {
    const box = (this.box = element("div", "rv", root));
    for (const kind of ["keydown", "keypress", "keyup"])
      box.addEventListener(kind, (event) => {
        if (kind === "keydown") this.key(event);
        if (event.key !== "Tab") event.stopPropagation(); // Streamlit has shortcuts of its own
      });
    box.addEventListener("focusin", (event) => (this.active = event.composedPath()[0]));
    box.addEventListener("focusout", (event) => event.relatedTarget && (this.active = null)); // it went elsewhere
    this.banner = element("div", "banner", box);
    this.banner.setAttribute("role", "alert");
    this.banner.hidden = true;
    this.bannerText = element("span", "", this.banner);
    this.refusals = []; // why operations were rejected, until the reviewer dismisses the message
    this.dismiss = button(this.banner, "Dismiss", "", () => {
      this.refusals = [];
      this.tick();
      this.nodes[this.focus]?.focus({ preventScroll: true });
    });

    const top = element("div", "top", box);
    this.progress = element("progress", "", top);
    this.progress.setAttribute("aria-label", "Decided");
    this.summary = element("span", "summary", top);

    const bar = element("div", "bar", box);
    bar.setAttribute("role", "toolbar");
    bar.setAttribute("aria-label", "Pages and selection");
    this.place = element("span", "place", bar);
    this.back = button(bar, "‹", "Previous page", () => this.turn(-1, "first"));
    this.next = button(bar, "›", "Next page", () => this.turn(1, "first"));
    this.pick = button(bar, "Select page", "", () => this.selectPage());
    this.pickAll = button(bar, "", "", () => this.selectAll());
    this.drop = button(bar, "Clear selection", "", () => this.deselect());
    element("span", "space", bar);
    this.hint = {};
    for (const [action, text] of [
      ["undo", "Undo"],
      ["redo", "Redo"],
      ["goto", "Go to"],
      ["details", "Details"],
      ["help", "Keys"],
    ])
      this.actionButton(bar, action, text);

    const acts = element("div", "bar acts", box);
    acts.setAttribute("role", "toolbar");
    acts.setAttribute("aria-label", "Decide");
    for (const [action, text] of [
      ["keep", "Keep"],
      ["remove", "Remove"],
      ["cause", "Remove as"],
      ["accept", "Accept suggestion"],
      ["unsure", "Unsure"],
      ["clear", "Clear"],
    ])
      this.actionButton(acts, action, text);
    this.chips = element("span", "chips", acts);
    this.actionButton(acts, "palette", "Other class");

    const main = element("div", "main", box);
    this.list = element("div", "tiles", main);
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-multiselectable", "true");
    this.list.addEventListener("click", (event) => this.click(event));
    this.list.addEventListener("dblclick", () => this.openLarge());
    this.list.addEventListener("focusin", (event) => this.rove(this.indexOf(event)));
    this.aside = element("aside", "details", main);
    this.aside.setAttribute("aria-label", "Details");
    this.aside.tabIndex = 0;
    this.detailsOpen = box.parentElement?.getBoundingClientRect().width > 980 || innerWidth > 1300;

    const foot = element("div", "foot", box);
    this.status = element("span", "status", foot);
    this.status.setAttribute("role", "status");
    this.others = element("span", "others", foot);
    element("span", "hint", foot, "Below each image: its given class, then → the suggested class and its probability.");

    this.palette = new Palette(box, "Relabel to", "class", "classes");
    this.causes = new Palette(box, "Remove as", "cause", "causes");
    this.goto = new Ask(box, "Go to", "A position in this list, or an image id.");
    this.comment = new Ask(box, "Comment", "Visible to everybody who opens this item.");
    this.sheet = new KeySheet(box, this.map, () => this.hints());
    this.large = new Dialog(box, "large", "Large view");
    this.large.node.addEventListener("close", () => this.nodes[this.focus]?.focus({ preventScroll: true }));
    this.large.node.tabIndex = -1; // holds the focus itself, so that the space key closes it
    const row = element("div", "row", this.large.node);
    button(row, "‹ Previous", "", () => this.step("arrowleft"));
    this.largePlace = element("span", "place", row);
    button(row, "Next ›", "", () => this.step("arrowright"));
    button(row, "Close", "", () => this.large.close());
    this.largeBody = element("div", "body", this.large.node);
    this.hints();
  }

  actionButton(parent, action, text) {
    const el = button(parent, "", "", () => {
      this.act(action);
      this.nodes[this.focus]?.focus({ preventScroll: true });
    });
    element("span", "", el, text);
    this.hint[action] = element("kbd", "", el);
  }

  hints() {
    for (const [action, node] of Object.entries(this.hint)) node.textContent = this.map.keys[action];
  }

  // ---- messages from Python

  update(data, setStateValue) {
    this.set = setStateValue;
    this.path = location.pathname;
    const { scope, workspace, reviewer } = data;
    if (this.scope !== scope) {
      this.scope = scope;
      const fresh = () => ({ log: new OperationLog(workspace, reviewer), done: [], undone: [] });
      memories.set(scope, (this.memory = memories.get(scope) ?? fresh()));
      this.log = this.memory.log;
      this.box.dataset.reviewer = reviewer;
    }
    this.comment.input.maxLength = data.comment_length;
    const news = data.acked.filter(([token]) => !this.log.settled.has(token)); // Python repeats them until the next report
    this.log.settle(news.map(([token]) => token));
    this.fault = data.error;
    if (this.flying && data.heard === this.flying.name) {
      this.heardAt = Date.now();
      this.flying = null;
      this.askLater();
    }
    if (data.detail?.computing) this.askLater();
    const messages = news.map(([, text]) => text).filter(Boolean);
    const refusals = news.filter(([, , lost]) => lost);
    if (messages.length) this.announce(messages.at(-1));
    this.refusals.push(...refusals.map(([, text]) => text));
    this.coming = data;
    this.settle();
    if (this.log.pending.length && !this.flying && !this.fault) this.report();
    this.tick();
  }

  // Apply the newest message once its images are loaded.
  settle() {
    const page = pages.get(this.coming?.stamp);
    if (!page || (page.tiles.length && !sheets.get(page.sheet)?.ready)) {
      if (this.data) this.detail();
      return;
    }
    const before = this.data;
    this.data = { ...page, ...this.coming };
    const { data } = this;
    if (before?.stamp !== data.stamp) this.draw(before);
    else this.paint();
    if (before?.classes !== data.classes) this.classes();
    if (this.turning && data.turned === this.turning.name) {
      const { at } = this.turning;
      this.turning = null;
      this.land(data.at ?? at ?? this.tiles[this.focus]?.p);
      if (data.reply) this.announce(data.reply);
      this.replay();
    }
    this.detail();
  }

  draw(before) {
    const { data, list } = this;
    const hadFocus = this.holdsFocus();
    const was = this.tiles[this.focus]?.p;
    this.tiles = data.tiles.map(([p, kind, task, role, image, given, suggested, probability, note, isLikelier]) => {
      return { p, kind, task, role, image, given, suggested, probability, note, isLikelier, key: keyOf(kind, task, role, image) };
    });
    if (before?.set !== data.set) this.deselect(false);
    this.anchor = this.last = null;
    const sheet = sheets.get(data.sheet);
    const side = data.side;
    list.style.setProperty("--tile", `${side}px`);
    list.setAttribute("aria-label", data.label);
    list.replaceChildren();
    this.nodes = this.tiles.map((tile, i) => {
      const node = element("div", "tile", list);
      node.setAttribute("role", "option");
      node.dataset.p = tile.p;
      showCell(element("div", "pic", node), sheet, i, side);
      element("div", "given", node, data.names[tile.given] ?? "");
      element("div", "guess", node, this.guess(tile));
      element("div", "verdict", node);
      element("div", "marks", node);
      node.title = `${tile.image}${tile.note ? `\n${tile.note}` : ""}`;
      return node;
    });
    const place = this.tiles.findIndex((tile) => tile.p === was);
    this.focus = Math.max(0, place);
    this.paint();
    if (!this.turning) this.land(place >= 0 ? was : "undecided", hadFocus || !before);
  }

  guess(tile) {
    if (tile.suggested < 0) return "";
    if (tile.suggested === tile.given) return "as given";
    const probability = tile.probability === null ? "" : ` · ${percent(tile.probability)}`;
    return `→ ${this.data.names[tile.suggested]}${probability}`;
  }

  // ---- what is shown: the state from Python, and on top of it the pending operations

  shown(tile) {
    const { pending } = this.log;
    for (let i = pending.length - 1; i >= 0; i--) {
      const effect = this.effect(pending[i]);
      if (effect.has(tile.key)) return effect.get(tile.key);
    }
    return this.saved(tile);
  }

  saved(tile) {
    const state = this.data.state[tile.p];
    return state?.[0] ? [state[0], state[1], state[5]] : null;
  }

  effect(op) {
    if (!(op.effect instanceof Map)) {
      try {
        const items = op.act === "decide" ? (op.items ?? []) : [];
        op.effect = new Map(
          items.map(([kind, task, role, image, verdict, label]) => [
            keyOf(kind, task, role, image),
            verdict === "clear" ? null : [verdict, label, op.cause],
          ]),
        );
      } catch {
        op.effect = new Map(); // malformed: Python rejects it, with its reason
      }
    }
    return op.effect;
  }

  paint() {
    this.nodes.forEach((_, i) => this.paintTile(i));
    const { data } = this;
    const first = data.page * data.size;
    const places = `${formatNumber(first + 1)} to ${formatNumber(first + this.tiles.length)} of ${formatNumber(data.total)}`;
    write(this.place, this.tiles.length ? places : "No items match the filters");
    this.back.disabled = data.page === 0;
    this.next.disabled = data.page >= data.pages - 1;
    write(this.pickAll, `Select all ${formatNumber(data.total)}`);
    this.pickAll.hidden = data.total <= this.tiles.length;
    this.drop.hidden = !this.all && !this.selected.size;
    write(this.drop, `Clear selection (${formatNumber(this.all ? data.total : this.selected.size)})`);
    write(this.others, data.notice);
    const [decided, all, left] = data.progress;
    this.progress.max = Math.max(1, all);
    this.progress.value = decided;
    const blind = data.blind ? "blind mode: others' decisions are hidden" : "";
    const summary = [`${formatNumber(decided)} of ${formatNumber(all)} decided`, blind, left].filter(Boolean).join("; ");
    write(this.summary, summary);
    if (!this.turning) this.box.classList.remove("turning");
  }

  paintTile(i) {
    const [node, tile] = [this.nodes[i], this.tiles[i]];
    const { names, state, total, page, size } = this.data;
    const [, , by, conflict, comments] = state[tile.p] ?? [];
    const now = this.shown(tile);
    const chosen = this.all || this.selected.has(tile.p);
    const look = JSON.stringify([state[tile.p], now, chosen, i === this.focus]);
    if (node.look === look) return; // all that differs within a page
    node.look = look;
    const [sign, word] = VERDICTS[now?.[0]] ?? ["", ""];
    const what = now?.[0] === "relabel" ? (names[now[1]] ?? "?") : this.isOther(now) ? now[2] : word;
    node.className = `tile ${word}${conflict ? " conflict" : ""}`;
    node.children[3].textContent = now ? `${sign} ${what}` : "";
    node.children[4].textContent = `${conflict ? "⚡" : ""}${comments ? "✎" : ""}`;
    node.setAttribute("aria-selected", String(chosen));
    node.tabIndex = i === this.focus ? 0 : -1;
    node.classList.toggle("current", i === this.focus);
    const label = [
      `${formatNumber(page * size + i + 1)} of ${formatNumber(total)}`,
      `given ${names[tile.given] ?? "unknown"}`,
      tile.suggested >= 0 && tile.suggested !== tile.given
        ? `suggested ${names[tile.suggested]}${tile.probability === null ? "" : ` ${percent(tile.probability)}`}`
        : "no other class suggested",
      now ? `decided: ${this.describe(now)}${by ? ` by ${by}` : ""}` : "undecided",
      conflict && `conflict: ${conflict.map(([who, opinion]) => `${who} ${opinion}`).join(", ")}`,
      comments && formatCount(comments, "comment"),
    ];
    node.setAttribute("aria-label", label.filter(Boolean).join(", "));
  }

  // Whether a decision removes an item for another cause than a label error.
  isOther(decision) {
    return decision?.[0] === "remove" && Boolean(decision[2]) && decision[2] !== "label-error";
  }

  // A decision in words, such as "relabel to 7" or "remove (duplicate)".
  describe([verdict, label, cause]) {
    const { names, causes } = this.data;
    if (verdict === "relabel") return `relabel to ${names[label] ?? "?"}`;
    const words = causes.find(([one]) => one === (cause ?? "label-error"))?.[1];
    return verdict === "remove" ? `remove (${words})` : verdict;
  }

  announce(text) {
    this.status.textContent = "";
    this.status.textContent = text;
  }

  // ---- the focus

  holdsFocus() {
    const active = document.activeElement;
    return active === document.body || !active || Boolean(this.box.getRootNode().activeElement);
  }

  indexOf(event) {
    return this.nodes.indexOf(event.target.closest(".tile"));
  }

  rove(i) {
    if (i < 0 || i >= this.nodes.length) return;
    const old = this.focus;
    this.focus = i;
    if (this.nodes[old] && old !== i) this.paintTile(old);
    this.paintTile(i);
    this.want();
  }

  go(i) {
    if (i < 0 || i >= this.nodes.length) return;
    if (this.large.open || this.asking()) this.rove(i);
    else this.nodes[i].focus();
    if (this.large.open) this.detail();
  }

  asking() {
    return [this.palette, this.causes, this.goto, this.comment, this.sheet].some((dialog) => dialog.open);
  }

  // Focus a tile of a page that has just loaded.
  land(at, grab = true) {
    if (!this.nodes.length) return;
    let i = 0;
    if (typeof at === "number") i = Math.max(0, this.tiles.findIndex((tile) => tile.p === at));
    else if (at === "last") i = this.nodes.length - 1;
    else if (at === "undecided") i = Math.max(0, this.tiles.findIndex((tile) => !this.shown(tile)));
    if (grab && !this.landed && this.holdsFocus()) this.nodes[i].focus({ preventScroll: true }); // keeps the top of the page in view
    else if (grab && this.holdsFocus()) this.go(i);
    else this.rove(i);
    this.landed = true;
    if (this.data.detail?.p === this.tiles[i].p) this.sentFocus = this.tiles[i].p; // sent along with the page
    this.detail();
  }

  // Ask Python for the details of the focused item, once the focus rests on it.
  want() {
    clearTimeout(this.resting);
    if (!this.detailsOpen && !this.large.open) return;
    const ask = () => this.focused() !== this.sentFocus && this.push();
    this.resting = setTimeout(ask, this.large.open ? 0 : REST_MS);
  }

  // The position of the item whose details are shown.
  focused() {
    return this.detailsOpen || this.large.open ? (this.tiles[this.focus]?.p ?? null) : null;
  }

  // Report to Python once the present key is dealt with: each report costs a run of the page, and so a decision and the
  // move to the next item are one. `again`: a number that differs, where only an answer is wanted.
  push(again = 0) {
    if (this.pushing) return;
    this.pushing = true;
    queueMicrotask(() => {
      this.pushing = false;
      this.sentFocus = this.focused();
      const view = { ...this.view, focus: this.sentFocus };
      this.set("report", { name: this.reported, scope: this.scope, log: this.log.wire(), view, again });
    });
  }

  askLater() {
    this.awaiting ??= setTimeout(() => {
      this.awaiting = null;
      this.push(Date.now());
    }, COMPUTED_MS);
  }

  turn(by, at) {
    const { data } = this;
    const page = data.page + by;
    if (page < 0 || page >= data.pages) return this.announce(by > 0 ? "This is the end of the list." : "This is the start of the list.");
    this.request({ page, at }, at);
  }

  request(what, at = null) {
    this.turns += 1;
    const name = `${this.tab}-${this.turns}`;
    this.turning = { name, at, since: Date.now() };
    clearTimeout(this.resting);
    clearTimeout(this.dimming);
    this.dimming = setTimeout(() => this.turning && this.box.classList.add("turning"), DIM_MS);
    this.view = { page: null, at: null, find: null, ...what, name };
    this.push();
  }

  replay() {
    const keys = this.queue;
    this.queue = [];
    keys.forEach((name) => this.press(name));
  }

  // ---- selecting

  choose(i, on) {
    const tile = this.tiles[i];
    if (this.all) this.deselect();
    if (on ?? !this.selected.has(tile.p)) this.selected.set(tile.p, tile);
    else this.selected.delete(tile.p);
    this.paint();
  }

  range(from, to) {
    this.all = false;
    this.anchor ??= { at: from, base: new Map(this.selected) };
    this.selected = new Map(this.anchor.base);
    const [low, high] = [Math.min(this.anchor.at, to), Math.max(this.anchor.at, to)];
    for (const tile of this.tiles.slice(low, high + 1)) this.selected.set(tile.p, tile);
    this.paint();
    this.announce(`${formatNumber(this.selected.size)} selected`);
  }

  selectPage() {
    this.all = false;
    for (const tile of this.tiles) this.selected.set(tile.p, tile);
    this.paint();
    this.announce(`${formatNumber(this.selected.size)} selected`);
    this.nodes[this.focus]?.focus({ preventScroll: true });
  }

  selectAll() {
    this.selected.clear();
    this.all = true;
    this.paint();
    this.announce(`All ${formatNumber(this.data.total)} matching items are selected`);
    this.nodes[this.focus]?.focus({ preventScroll: true });
  }

  deselect(draw = true) {
    this.selected.clear();
    this.all = false;
    this.anchor = null;
    if (draw) {
      this.paint();
      this.nodes[this.focus]?.focus({ preventScroll: true });
    }
  }

  // ---- deciding

  // Accepting for many items means the more likely class of each; for one, the suggestion on its tile.
  outcome(tile, verdict, label, many, cause) {
    if (verdict === "accept") {
      const takes = many ? tile.isLikelier : tile.suggested >= 0 && tile.suggested !== tile.given;
      return takes ? ["relabel", tile.suggested] : ["keep", null];
    }
    if (verdict === "relabel" && label === tile.given) return ["keep", null]; // the class it has already
    return verdict === "clear" ? null : [verdict, label, cause];
  }

  decide(verdict, label = null, cause = "label-error") {
    const { data } = this;
    const many = this.all || this.selected.size > 0;
    const tiles = this.all ? this.tiles : many ? [...this.selected.values()] : this.tiles.slice(this.focus).slice(0, 1);
    if (!tiles.length) return;
    const current = this.focus;
    const redone = !many && this.shown(tiles[0]) !== null;
    const effect = new Map(tiles.map((tile) => [tile.key, this.outcome(tile, verdict, label, many, cause)]));
    const op = { act: "decide", verdict, label, cause, run: data.run, saw: data.version, effect };
    if (this.all) op.set = data.set;
    else
      op.items = tiles.map((tile) => {
        const [what, to] = effect.get(tile.key) ?? ["clear", null];
        return [tile.kind, tile.task, tile.role, tile.image, what, to];
      });
    this.memory.done.push({ before: new Map(tiles.map((tile) => [tile.key, this.shown(tile)])), after: effect });
    this.memory.undone = [];
    this.send(op);
    const size = this.all ? data.total : tiles.length;
    const word = this.describe([verdict, label, cause]);
    this.announce(`${size > 1 ? `${formatNumber(size)} items` : `Position ${formatNumber(data.page * data.size + current + 1)}`}: ${word}`);
    if (many) {
      const last = this.all ? current : Math.max(current, ...tiles.map((tile) => this.tiles.indexOf(tile)));
      const wholePage = this.all;
      this.deselect(false);
      this.paint();
      if (!wholePage) this.moveOn(last, false);
    } else {
      this.paintTile(current);
      if (verdict !== "clear") this.moveOn(current, redone);
    }
  }

  moveOn(from, redone) {
    if (redone) return from + 1 < this.nodes.length ? this.go(from + 1) : this.turn(1, "first");
    const next = this.tiles.findIndex((tile, i) => i > from && !this.shown(tile));
    if (next >= 0) return this.go(next);
    this.turn(1, "undecided");
  }

  reverse(act) {
    const [from, to] = act === "undo" ? [this.memory.done, this.memory.undone] : [this.memory.undone, this.memory.done];
    const step = from.pop();
    if (step) to.push(step);
    this.send({ act, effect: (act === "undo" ? step?.before : step?.after) ?? new Map() });
    this.paint();
    const at = step ? this.tiles.findIndex((tile) => step.before.has(tile.key)) : -1;
    if (at >= 0) this.go(at);
  }

  send(op) {
    this.log.add(op);
    if (!this.flying) this.report();
  }

  report() {
    this.reports += 1;
    this.reported = `${this.tab}-${this.reports}`;
    this.flying = { name: this.reported, since: Date.now() };
    this.push();
  }

  tick() {
    if (!this.data) return;
    const late = this.log.waits() > LATE_MS;
    const rested = Date.now() - (this.heardAt ?? 0) > AGAIN_MS;
    if (this.flying && Date.now() - this.flying.since > AGAIN_MS) this.flying = null;
    if (late && rested) this.log.adopt();
    if (this.log.pending.length && !this.flying && (rested || !this.fault)) this.report();
    if (this.turning && Date.now() - this.turning.since > AGAIN_MS) {
      this.turning.since = Date.now();
      this.push(Date.now());
    }
    const many = formatCount(this.log.pending.length, "decision");
    for (const stored of this.log.damaged.splice(0))
      this.refusals.push(`An operation that this browser had stored is damaged: ${stored}`);
    let text = "";
    let isFinal = false;
    if (this.log.pending.length && (late || this.fault)) {
      const why = this.fault ? `${this.fault[0]} ${this.fault[1]}` : "The server does not respond.";
      const where = this.log.volatile
        ? `${many} only on this page (the browser's storage is full): do not close it`
        : `${many} kept in this browser`;
      text = `Not saved yet: ${where}. ${why} They are resent automatically.`;
    } else if (this.refusals.length) {
      const more = this.refusals.length - SHOWN_REFUSALS;
      const shown = this.refusals.slice(0, SHOWN_REFUSALS).join("\n");
      text = `Not saved: ${formatCount(this.refusals.length, "rejected operation")}.\n${shown}${more > 0 ? `\nand ${more} more` : ""}`;
      isFinal = true;
    } else {
      const left = [...this.log.leftByOthers(AGAIN_MS)].map(([name, n]) => `${formatCount(n, "decision")} of ${name}`);
      if (left.length)
        text = `Not saved yet: ${left.join(", ")}, kept in this browser. To save them, enter that name as the reviewer.`;
    }
    this.banner.hidden = !text;
    this.dismiss.hidden = !isFinal;
    write(this.bannerText, text);
  }

  // ---- keys and mouse

  click(event) {
    const i = this.indexOf(event);
    if (i < 0) return;
    if (event.shiftKey) this.range(this.last ?? this.focus, i);
    else {
      this.anchor = null;
      if (event.ctrlKey || event.metaKey) this.choose(i);
      this.last = i;
    }
    this.nodes[i].focus({ preventScroll: true });
  }

  // Keys without a focused element, for example after a click on the background, go to the grid.
  documentKey(event) {
    const active = document.activeElement;
    if ((active && active !== document.body) || !this.nodes.length || this.path !== location.pathname) return;
    if (document.querySelector("[role=dialog], dialog[open]")) return;
    this.key(event);
    if (event.defaultPrevented || /^[a-z]$/i.test(event.key)) event.stopImmediatePropagation();
  }

  key(event) {
    if (event.altKey || event.isComposing || this.asking() || !this.data) return;
    const from = event.composedPath()[0];
    if (from.tagName === "BUTTON" && [" ", "Enter"].includes(event.key)) return;
    const dialog = from.closest?.("dialog");
    if (dialog && dialog !== this.large.node) return; // one that this very key has closed
    if (["Shift", "Control", "Alt", "Meta", "Tab", "Escape"].includes(event.key) && !this.selected.size && !this.all) return;
    if (from === this.aside && /^(Arrow|Page|Home|End)/.test(event.key)) return; // it scrolls
    const name = keyName(event);
    if (!this.knows(name)) return;
    event.preventDefault();
    if (this.turning || !this.box.isConnected) {
      if (this.queue.length < QUEUE_LENGTH) this.queue.push(name);
    } else this.press(name);
  }

  knows(name) {
    return (
      this.map.action(name) ||
      /^([0-9]|(shift\+)?arrow(left|right|up|down)|(shift\+)?(home|end)|pageup|pagedown|enter|ctrl\+a)$/.test(name) ||
      (name === "escape" && !this.large.open)
    );
  }

  press(name) {
    if (this.turning) return this.queue.push(name);
    const action = this.map.action(name);
    if (action) return this.act(action);
    if (/^[0-9]$/.test(name)) {
      const entry = this.data.classes.find(([key]) => key === name);
      if (entry) this.decide("relabel", entry[1]);
      else this.announce(`No class is assigned to the key ${name}; ${this.map.keys.palette} lists all classes.`);
    } else if (name === "pageup" || name === "pagedown") this.turn(name === "pageup" ? -1 : 1, "first");
    else if (name === "ctrl+a") this.selectPage();
    else if (name === "escape") this.deselect();
    else if (name === "enter") this.openLarge();
    else this.move(name);
  }

  move(name) {
    const shift = name.startsWith("shift+");
    const way = name.replace("shift+", "");
    const { focus: i } = this;
    const last = this.nodes.length - 1;
    const across = this.large.open ? 1 : getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const to = { arrowleft: i - 1, arrowright: i + 1, arrowup: i - across, arrowdown: i + across, home: 0, end: last }[way];
    const onLastRow = Math.floor(i / across) === Math.floor(last / across);
    if (way === "arrowup" && to < 0 && !this.large.open) return;
    if (to < 0) return shift ? undefined : this.turn(-1, "last");
    if (to > last && way === "arrowdown" && !onLastRow) return this.moveTo(last, shift);
    if (to > last) return shift ? undefined : this.turn(1, "first");
    this.moveTo(to, shift);
  }

  moveTo(to, shift) {
    if (shift) this.range(this.focus, to);
    else this.anchor = null;
    this.go(to);
    if (!shift) this.last = to;
  }

  act(action) {
    const tile = this.tiles[this.focus];
    switch (action) {
      case "undo":
      case "redo":
        return this.reverse(action);
      case "large":
        return this.large.open ? this.large.close() : this.openLarge();
      case "details":
        this.detailsOpen = !this.detailsOpen;
        this.detail();
        return this.want();
      case "help":
        return this.sheet.ask();
      case "goto":
        return this.goto.ask((text) => this.request({ find: text }));
      case "palette":
        return tile && this.palette.ask(this.choices(tile), (label) => this.decide("relabel", label));
      case "cause":
        return (
          tile &&
          this.causes.ask(
            this.data.causes.map(([, words], i) => [i, words, ""]),
            (i) => this.decide("remove", null, this.data.causes[i][0]),
          )
        );
      case "comment":
        return (
          tile &&
          this.comment.ask((text) => {
            this.send({ act: "comment", text, items: [[tile.kind, tile.task, tile.role, tile.image]] });
            this.announce("Comment saved.");
          })
        );
      case "select":
        this.anchor = null;
        this.last = this.focus;
        return tile && this.choose(this.focus);
      case "undecided":
        return this.moveOn(this.focus, false);
      default:
        return this.decide(action);
    }
  }

  choices(tile) {
    const { names } = this.data;
    const note = (label) =>
      label === tile.given ? "given" : label === tile.suggested ? `suggested ${tile.probability === null ? "" : percent(tile.probability)}` : "";
    const likely = (label) => (label === tile.suggested ? 0 : label === tile.given ? 2 : 1);
    const choices = names.map((name, label) => [label, name, note(label)]);
    return choices.sort((a, b) => likely(a[0]) - likely(b[0]) || a[0] - b[0]);
  }

  classes() {
    this.chips.replaceChildren();
    for (const [key, label] of this.data.classes) {
      const name = this.data.names[label];
      const el = button(this.chips, "", `Relabel to ${name}`, () => {
        this.decide("relabel", label);
        this.nodes[this.focus]?.focus({ preventScroll: true });
      });
      element("kbd", "", el, key);
      if (name !== key) element("span", "name", el, name);
      el.title = name;
    }
  }

  // ---- one item: the large view, and the details beside the grid

  openLarge() {
    if (!this.tiles.length) return;
    this.box.getRootNode().activeElement?.blur(); // closing must not restore the focus of an earlier tile
    this.large.show();
    this.large.node.focus();
    this.detail();
    this.want();
  }

  step(name) {
    this.press(name);
    this.large.node.focus();
  }

  // Draw in the next frame, so that quick keys do not wait for details that nobody can read in between.
  detail() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.drawDetail();
    });
  }

  drawDetail() {
    this.aside.hidden = !this.detailsOpen || !this.tiles.length;
    if (!this.data || !this.tiles.length) return;
    if (this.large.open) {
      const { page, size, total } = this.data;
      this.largePlace.textContent = `${formatNumber(page * size + this.focus + 1)} of ${formatNumber(total)}`;
      this.item(this.largeBody, true);
    }
    if (!this.aside.hidden) this.item(this.aside, false);
  }

  item(parent, large) {
    const tile = this.tiles[this.focus];
    const { data } = this;
    const more = data.detail?.p === tile.p ? data.detail : null;
    const now = this.shown(tile);
    const stamp = JSON.stringify([tile.p, data.stamp, data.state[tile.p], now, more, large, Boolean(sheets.get(more?.sheet)?.ready)]);
    if (parent.dataset.stamp === stamp) return;
    parent.dataset.stamp = stamp;
    const top = parent.scrollTop;
    parent.replaceChildren();
    const split = element("div", "split", parent);
    const picture = element("div", "picture", split);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `Image ${tile.image}`);
    const side = large ? Math.round(Math.min(440, innerHeight * 0.55, innerWidth * 0.8)) : 208;
    const sheet = sheets.get(more?.sheet);
    if (sheet?.ready) showCell(picture, sheet, 0, side);
    else showCell(picture, sheets.get(data.sheet), this.focus, side);
    const words = element("div", "words", split);
    const facts = [
      ["Given", data.names[tile.given] ?? "unknown"],
      ["Suggested", tile.suggested < 0 ? "–" : `${data.names[tile.suggested]}${tile.probability === null ? "" : `, ${percent(tile.probability)}`}`],
      ["Decision", now ? this.describe(now) : "none yet"],
      ...(more?.facts ?? []),
    ];
    const table = element("dl", "facts", words);
    for (const [term, text] of facts) {
      element("dt", "", table, term);
      element("dd", "", table, text);
    }
    const conflict = data.state[tile.p]?.[3];
    if (conflict) {
      const box = element("div", "opposed", words, "Reviewers disagree: ");
      box.append(conflict.map(([who, opinion]) => `${who}: ${opinion}`).join("; "), ". A new decision resolves the conflict.");
    }
    for (const [title, cells, captions] of more?.strips ?? []) {
      element("div", "title", words, title);
      const strip = element("div", "strip", words);
      cells.forEach((cell, i) => {
        const node = element("div", "cell", strip);
        const pic = element("div", "pic", node);
        pic.setAttribute("role", "img");
        pic.setAttribute("aria-label", captions[i]);
        showCell(pic, sheets.get(more.strip), cell, 52);
        node.title = captions[i];
        element("div", "name", node, captions[i]);
      });
    }
    for (const [title, lines] of more?.sections ?? []) {
      element("div", "title", words, title);
      const list = element("ul", "", words);
      for (const line of lines) element("li", "", list, line);
    }
    if (!more) element("p", "hint", words, "…");
    button(words, `Comment (${this.map.keys.comment})`, "", () => this.act("comment"));
    parent.scrollTop = top;
  }

  // ---- the element it lives in

  // Move to another element, with open dialogs, focus and selection.
  resettle(root) {
    const { box, active } = this;
    const dialogs = [this.palette, this.causes, this.goto, this.comment, this.sheet, this.large].map((one) => one.node);
    const open = dialogs.filter((node) => node.open);
    const lost = !box.isConnected;
    const hadFocus = lost ? !document.activeElement || document.activeElement === document.body : this.holdsFocus();
    this.root = root;
    root.append(box);
    if (hadFocus) this.nodes[this.focus]?.focus({ preventScroll: true }); // where a dialog gives the focus back to
    for (const node of open) {
      node.removeAttribute("open"); // it is no longer in the top layer, and close() would notify listeners
      node.showModal();
    }
    if (hadFocus && active?.isConnected) active.focus({ preventScroll: true });
    if (!this.turning) this.replay();
  }

  // Streamlit removed the element: to draw it elsewhere, or for good.
  depart() {
    this.stay();
    this.leaving = setTimeout(() => {
      this.leave();
      review = null;
    }, AWAY_MS);
  }

  stay() {
    clearTimeout(this.leaving);
  }

  leave() {
    this.box.remove();
    clearInterval(this.timer);
    clearTimeout(this.resting);
    clearTimeout(this.awaiting);
    clearTimeout(this.dimming);
    listeners.delete(this.onSheet);
    document.removeEventListener("keydown", this.onDocument, true);
  }
}

export default function ({ data, parentElement, setStateValue }) {
  if (data instanceof Uint8Array) return takeSheets(data);
  review ??= new Review(parentElement);
  review.stay();
  if (review.root !== parentElement) review.resettle(parentElement);
  review.update(data, setStateValue);
  return () => parentElement === review?.root && review.depart();
}
