// Key bindings. A reviewer may change the key of an action; this is saved in the browser.

const KEY_SPACE = "tasklens.review.keys";
const ACTIONS = [
  ["keep", "k", "Keep: the label is right"],
  ["remove", "x", "Remove from training, as a label error"],
  ["cause", "c", "Remove for another cause: harmful, duplicate, other"],
  ["accept", "a", "Accept the suggested class"],
  ["unsure", "u", "Unsure: needs another look"],
  ["clear", "backspace", "Clear the decision"],
  ["palette", "l", "Relabel to any class: list with search"],
  ["undo", "z", "Undo"],
  ["redo", "shift+z", "Redo"],
  ["large", "space", "Large view"],
  ["details", "d", "Details beside the grid"],
  ["comment", "m", "Write a comment"],
  ["select", "s", "Select or deselect"],
  ["undecided", "n", "Next undecided"],
  ["goto", "g", "Go to a position or an id"],
  ["help", "?", "Show these keys"],
];
const FIXED = [
  ["1 … 9, 0", "Relabel to the class with that key"],
  ["arrows", "Move; with shift: select a range"],
  ["home, end", "First or last item of the page"],
  ["page up, page down", "Previous or next page"],
  ["ctrl+a", "Select the page"],
  ["ctrl+click, shift+click", "Select one item or a range"],
  ["escape", "Close, or clear the selection"],
];
const TAKEN = /^([0-9]|arrow.*|home|end|pageup|pagedown|escape|enter|tab|shift\+tab|ctrl\+.*|f\d+)$/;

// "z", "shift+z", "space", "?"; for symbols, shift is implied.
function keyName(event) {
  const name = event.key === " " ? "space" : event.key.toLowerCase();
  const shifted = event.shiftKey && (name.length > 1 || name !== name.toUpperCase());
  return (event.ctrlKey || event.metaKey ? "ctrl+" : "") + (shifted ? "shift+" : "") + name;
}

class KeyMap {
  constructor() {
    let stored = {};
    try {
      stored = JSON.parse(localStorage.getItem(KEY_SPACE)) ?? {};
    } catch {
      stored = {}; // not valid JSON
    }
    this.keys = Object.fromEntries(
      ACTIONS.map(([action, key]) => [action, typeof stored[action] === "string" ? stored[action] : key]),
    );
  }

  action(name) {
    return ACTIONS.find(([action]) => this.keys[action] === name)?.[0];
  }

  // Assign a key to an action; return why that is impossible, or an empty string.
  assign(action, name) {
    if (TAKEN.test(name)) return `“${name}” has a fixed meaning.`;
    const other = ACTIONS.find(([one]) => one !== action && this.keys[one] === name);
    if (other) return `“${name}” already means: ${other[2]}.`;
    this.keys[action] = name;
    localStorage.setItem(KEY_SPACE, JSON.stringify(this.keys));
    return "";
  }

  reset() {
    localStorage.removeItem(KEY_SPACE);
    this.keys = Object.fromEntries(ACTIONS.map(([action, key]) => [action, key]));
  }
}
