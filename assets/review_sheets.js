// Images. Python sends them separately from the data that names them, as one packet: 4 bytes header length, header
// (JSON: {kind, sheets: [{name, columns, rows, pitch, tile, bytes}], page, serial}), then the JPEGs; page is the
// constant data of a page of tiles. See core/ui/review/grid.py.

const CACHED_SHEETS = { page: 4, detail: 12 };
const sheets = new Map(); // name -> {kind, url, ready, columns, rows, pitch, tile}
const pages = new Map(); // stamp -> page
const listeners = new Set();
const taken = new Map(); // kind -> serial of its last packet, which Streamlit hands over again with every run

function takeSheets(packet) {
  const length = new DataView(packet.buffer, packet.byteOffset).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(packet.subarray(4, 4 + length)));
  if (taken.get(head.kind) === head.serial) return;
  taken.set(head.kind, head.serial);
  let at = 4 + length;
  if (head.page) {
    pages.set(head.page.stamp, head.page);
    if (pages.size > CACHED_SHEETS.page) pages.delete(pages.keys().next().value);
  }
  for (const sheet of head.sheets) {
    const known = sheets.get(sheet.name);
    if (known) {
      sheets.delete(sheet.name); // moves it to the end of the order
      sheets.set(sheet.name, known);
    } else {
      const url = URL.createObjectURL(new Blob([packet.slice(at, at + sheet.bytes)], { type: "image/jpeg" }));
      const entry = { ...sheet, kind: head.kind, url, ready: false };
      sheets.set(sheet.name, entry);
      const picture = new Image();
      picture.src = url;
      entry.picture = picture; // keeps it decoded
      picture.decode().finally(() => {
        entry.ready = true;
        listeners.forEach((listener) => listener());
      });
    }
    at += sheet.bytes;
  }
  listeners.forEach((listener) => listener());
  const same = [...sheets].filter(([, one]) => one.kind === head.kind);
  for (const [name, old] of same.slice(0, Math.max(0, same.length - CACHED_SHEETS[head.kind]))) {
    URL.revokeObjectURL(old.url);
    sheets.delete(name);
  }
}

// Show one cell of a sheet as the background of a node whose side is `side` CSS pixels.
function showCell(node, sheet, cell, side) {
  if (!sheet) return;
  const scale = side / sheet.tile;
  const step = sheet.pitch * scale;
  node.style.width = node.style.height = `${side}px`;
  node.style.backgroundImage = `url("${sheet.url}")`;
  node.style.backgroundSize = `${sheet.columns * step}px ${sheet.rows * step}px`;
  node.style.backgroundPosition = `-${(cell % sheet.columns) * step}px -${Math.floor(cell / sheet.columns) * step}px`;
}
