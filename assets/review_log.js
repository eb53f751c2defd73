// Operations pending acknowledgement by Python. Each one is stored in localStorage under its own key until Python
// confirms that it is on disk, so a reload, a crash or a dead server loses none, and any tab of this browser sends
// what another tab left behind. Tokens make repeated sending idempotent.

const LOG_SPACE = "tasklens.review.ops";
const uuid = () => [...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36)).join("");

class OperationLog {
  constructor(scope) {
    this.prefix = `${LOG_SPACE}/${scope}/`;
    this.session = uuid();
    this.seq = 0;
    this.pending = []; // not acknowledged by Python, oldest first
    this.settled = new Set();
    this.volatile = false; // true: localStorage is full or disabled
    this.adopt();
  }

  // Take over unacknowledged operations of an earlier page or a closed tab.
  adopt() {
    const known = new Set(this.pending.map((op) => op.token));
    for (let i = 0; i < localStorage.length; i++) {
      const name = localStorage.key(i);
      if (!name.startsWith(this.prefix)) continue;
      try {
        const op = JSON.parse(localStorage.getItem(name));
        if (!known.has(op.token) && !this.settled.has(op.token)) this.pending.push(op);
      } catch {
        localStorage.removeItem(name); // truncated
      }
    }
    this.pending.sort((a, b) => a.at - b.at || a.seq - b.seq);
  }

  add(op) {
    this.seq += 1;
    Object.assign(op, { token: `${this.session}-${this.seq}`, seq: this.seq, at: Date.now() });
    this.pending.push(op);
    try {
      localStorage.setItem(this.prefix + op.token, JSON.stringify({ ...op, effect: undefined }));
    } catch {
      this.volatile = true;
    }
    return op;
  }

  settle(tokens) {
    const gone = new Set(tokens);
    for (const token of gone) {
      this.settled.add(token);
      localStorage.removeItem(this.prefix + token);
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
