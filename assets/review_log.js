// Operations pending acknowledgement by Python. Each one is stored in localStorage under its own key until Python
// confirms that it is on disk, so a reload, a crash or a dead server loses none, and any tab of this browser sends
// what another tab left behind. Tokens make repeated sending idempotent.

const LOG_SPACE = "tasklens.review.ops/";
const uuid = () => [...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36)).join("");

// Workspace, reviewer and token of a key. It ends with these as JSON; earlier versions joined them by slashes, which
// only the name of a reviewer may contain. Null: the key is of something else.
function ownerOf(key) {
  if (!key?.startsWith(LOG_SPACE)) return null;
  const rest = key.slice(LOG_SPACE.length);
  try {
    const parts = JSON.parse(rest);
    if (Array.isArray(parts) && parts.length === 3 && parts.every((part) => typeof part === "string")) return parts;
  } catch {
    // joined by slashes
  }
  const [first, last] = [rest.indexOf("/"), rest.lastIndexOf("/")];
  return first < last ? [rest.slice(0, first), rest.slice(first + 1, last), rest.slice(last + 1)] : null;
}

class OperationLog {
  // workspace, reviewer: whose operations these are.
  constructor(workspace, reviewer) {
    this.workspace = workspace;
    this.reviewer = reviewer;
    this.session = uuid();
    this.seq = 0;
    this.pending = []; // not acknowledged by Python, oldest first
    this.settled = new Set();
    this.damaged = []; // stored operations that cannot be read: they are removed, and reported
    this.volatile = false; // true: localStorage is full or disabled
    this.adopt();
  }

  key(token) {
    return LOG_SPACE + JSON.stringify([this.workspace, this.reviewer, token]);
  }

  // Of versions that joined the parts by slashes.
  earlierKey(token) {
    return `${LOG_SPACE}${this.workspace}/${this.reviewer}/${token}`;
  }

  // Take over unacknowledged operations of an earlier page or a closed tab.
  adopt() {
    const known = new Set(this.pending.map((op) => op.token));
    let keys = [];
    try {
      keys = Object.keys(localStorage);
    } catch {
      return; // disabled
    }
    for (const name of keys) {
      const [workspace, reviewer, token] = ownerOf(name) ?? [];
      if (workspace !== this.workspace || reviewer !== this.reviewer || known.has(token)) continue;
      const text = localStorage.getItem(name);
      if (text === null) continue; // settled by another tab
      if (this.settled.has(token)) {
        localStorage.removeItem(name);
        continue;
      }
      let op = null;
      try {
        op = JSON.parse(text);
      } catch {
        // truncated
      }
      if (op === null || typeof op !== "object" || Array.isArray(op)) {
        this.damaged.push(text.slice(0, 60));
        localStorage.removeItem(name);
        continue;
      }
      // The key says which operation it is, and what sorts is a number.
      Object.assign(op, { token, at: Number(op.at) || 0, seq: Number(op.seq) || 0 });
      this.pending.push(op);
      known.add(token);
      if (name !== this.key(token) && this.store(op)) localStorage.removeItem(name);
    }
    this.pending.sort((a, b) => a.at - b.at || a.seq - b.seq);
  }

  // Number of operations of this workspace per other reviewer that nobody has saved for `ms` milliseconds: after a
  // restart of the server, the page may have another reviewer than before.
  leftByOthers(ms) {
    const counts = new Map();
    try {
      for (const name of Object.keys(localStorage)) {
        const [workspace, reviewer] = ownerOf(name) ?? [];
        if (workspace !== this.workspace || reviewer === this.reviewer) continue;
        const at = Number(JSON.parse(localStorage.getItem(name))?.at) || 0;
        if (Date.now() - at > ms) counts.set(reviewer, (counts.get(reviewer) ?? 0) + 1);
      }
    } catch {
      // disabled or damaged: the reviewer of the operation is told
    }
    return counts;
  }

  add(op) {
    this.seq += 1;
    Object.assign(op, { token: `${this.session}-${this.seq}`, seq: this.seq, at: Date.now() });
    this.pending.push(op);
    if (!this.store(op)) this.volatile = true;
    return op;
  }

  store(op) {
    try {
      localStorage.setItem(this.key(op.token), JSON.stringify({ ...op, effect: undefined }));
      return true;
    } catch {
      return false;
    }
  }

  settle(tokens) {
    const gone = new Set(tokens);
    for (const token of gone) {
      this.settled.add(token);
      try {
        localStorage.removeItem(this.key(token));
        localStorage.removeItem(this.earlierKey(token));
      } catch {
        // disabled
      }
    }
    this.pending = this.pending.filter((op) => !gone.has(op.token));
    if (!this.pending.length) this.volatile = false;
  }

  // The operations as they are sent, without the fields that only this page needs.
  wire() {
    return this.pending.map(({ effect, ...op }) => op);
  }

  // Milliseconds that the oldest operation has been waiting; 0 if there is none.
  waits() {
    return this.pending.length ? Date.now() - this.pending[0].at : 0;
  }
}
